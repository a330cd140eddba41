// Renders the Markdown that models write. It makes elements, never HTML, so no text can become a script.

const LONGEST = 200_000; // characters; longer texts are shown as they are
const DEEPEST = 8; // quotes and lists within each other
const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+-]*)/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+/;
const HEADING = /^\s{0,3}#{1,6}\s/;
const RULE = /^\s{0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ROW = /^\s*\|.*\|\s*$/;
export const INLINE =
  /(?<code>`{1,4})(?<inner>[^`]{1,5000})\k<code>|\[(?<text>[^[\]\n]{1,1000})\]\((?<url>[^()\s]{1,2000})\)|(?<bare>https?:\/\/[^\s<>"'`]{1,2000})|\*\*(?<strong>[^*\n]{1,5000})\*\*|(?<![\w*])\*(?<em>[^*\s][^*\n]{0,5000})\*(?!\w)|(?<![\w_])_(?<em2>[^_\s][^_\n]{0,5000})_(?!\w)/g;

export function Markdown({ text }) {
  if (text.length > LONGEST) return <p class="plain">{text}</p>;
  return <div class="markdown">{blocks(text.split("\n"), 0)}</div>;
}

// Without a regular expression for the end: it would take the square of the number of spaces in a line.
function headingOf(line) {
  const text = line.trim().replace(/^#+/, "").trim();
  let end = text.length;
  while (end > 0 && text[end - 1] === "#") end -= 1;
  return text.slice(0, end).trim();
}

function blocks(lines, depth) {
  if (depth > DEEPEST) return <p>{lines.join("\n")}</p>;
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = blockAt(lines, at, depth);
    if (block) made.push(block);
    at = next;
  }
  return made;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  const fence = FENCE.exec(line);
  if (fence) {
    let end = at + 1;
    while (end < lines.length && !lines[end].trimStart().startsWith(fence[1])) end += 1;
    const code = lines.slice(at + 1, end).join("\n");
    return [<pre class="code"><code>{code}</code></pre>, end + 1];
  }
  const heading = HEADING.exec(line);
  if (heading) return [<p class="heading">{inline(headingOf(line))}</p>, at + 1];
  if (RULE.test(line)) return [<hr />, at + 1];
  if (/^\s{0,3}>/.test(line)) {
    const end = endOf(lines, at, (one) => /^\s{0,3}>/.test(one));
    const inner = lines.slice(at, end).map((one) => one.replace(/^\s{0,3}>\s?/, ""));
    return [<blockquote>{blocks(inner, depth + 1)}</blockquote>, end];
  }
  if (ITEM.test(line)) return listAt(lines, at, depth);
  if (ROW.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[at + 1] ?? "")) return tableAt(lines, at);
  const end = endOf(lines, at, (one) => one.trim() && !FENCE.test(one) && !HEADING.test(one) && !ITEM.test(one));
  return [<p>{inline(lines.slice(at, Math.max(end, at + 1)).join("\n"))}</p>, Math.max(end, at + 1)];
}

function endOf(lines, at, belongs) {
  let end = at;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return end;
}

function listAt(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const isOrdered = /\d/.test(mark);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const found = ITEM.exec(lines[next]);
    if (!found || found[1].length !== indent.length || /\d/.test(found[2]) !== isOrdered) break;
    const width = found[0].length;
    const end = endOf(lines, next + 1, (one) => one.trim() && one.search(/\S/) > indent.length);
    const inner = [lines[next].slice(width), ...lines.slice(next + 1, end).map((one) => unindented(one, width))];
    items.push(<li>{inner.length === 1 ? inline(inner[0]) : blocks(inner, depth + 1)}</li>);
    next = end;
    if (next < lines.length && !lines[next].trim() && ITEM.test(lines[next + 1] ?? "")) next += 1;
  }
  const first = isOrdered ? Number.parseInt(mark, 10) : undefined;
  return [isOrdered ? <ol start={first}>{items}</ol> : <ul>{items}</ul>, next];
}

function unindented(line, width) {
  return line.slice(Math.min(width, line.search(/\S/)));
}

function tableAt(lines, at) {
  const end = endOf(lines, at, (one) => ROW.test(one));
  const cells = (line) => line.trim().slice(1, -1).split("|").map((cell) => cell.trim());
  const [head, , ...rows] = lines.slice(at, end).map(cells);
  const table = (
    <table>
      <thead><tr>{head.map((cell) => <th scope="col">{inline(cell)}</th>)}</tr></thead>
      <tbody>{rows.map((row) => <tr>{row.map((cell) => <td>{inline(cell)}</td>)}</tr>)}</tbody>
    </table>
  );
  return [table, end];
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > end) parts.push(text.slice(end, found.index));
    parts.push(element(found));
    end = found.index + found[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}

function element({ 0: whole, groups }) {
  const { inner, text, url, bare, strong, em, em2 } = groups;
  if (inner !== undefined) return <code>{inner}</code>;
  if (strong !== undefined) return <strong>{inline(strong)}</strong>;
  if (url !== undefined) return <Link url={url}>{text}</Link>;
  if (bare !== undefined) {
    const link = bare.replace(/[.,;:!?)\]]+$/, "");
    return [<Link url={link}>{link}</Link>, bare.slice(link.length)];
  }
  return (em ?? em2) !== undefined ? <em>{inline(em ?? em2)}</em> : whole;
}

export function Link({ url, children }) {
  const safe = safeUrl(url);
  if (!safe) return <>{children} ({url})</>;
  return <a href={safe} rel="noopener noreferrer" target="_blank">{children}</a>;
}

export function safeUrl(url) {
  try {
    const parsed = new URL(url);
    return ["http:", "https:", "mailto:"].includes(parsed.protocol) ? parsed.href : null;
  } catch {
    return null;
  }
}
