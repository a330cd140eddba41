// Reads server-sent events whose data is JSON. Each character is looked at once, whatever the length of an event.

export async function* serverSent(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let begun = [];
  let event = { name: "message", data: [], id: null };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = value.split("\n");
    for (let index = 0; index < parts.length - 1; index += 1) {
      const line = begun.length ? begun.join("") + parts[index] : parts[index];
      begun = [];
      if (line === "") {
        if (event.data.length) yield { ...event, data: JSON.parse(event.data.join("\n")) };
        event = { name: "message", data: [], id: null };
      } else {
        takeLine(event, line.endsWith("\r") ? line.slice(0, -1) : line);
      }
    }
    const rest = parts.at(-1);
    if (rest) begun.push(rest);
  }
}

function takeLine(event, line) {
  const colon = line.indexOf(":");
  const field = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (field === "event") event.name = value;
  else if (field === "data") event.data.push(value);
  else if (field === "id") event.id = value;
}
