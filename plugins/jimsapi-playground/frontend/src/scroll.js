// Keeps the end of a conversation in view while it grows, unless the person has scrolled away from it.

const NEAR = 300; // pixels
const PAUSE = 100; // milliseconds; measuring the page for each piece of a text would cost more the longer the page is

let timer = null;

export function followEnd() {
  timer ??= setTimeout(() => {
    timer = null;
    if (document.activeElement.closest(".question")) return; // the person is answering
    const { scrollHeight, scrollTop, clientHeight } = scroller();
    if (scrollHeight - scrollTop - clientHeight < NEAR) toEnd();
  }, PAUSE);
}

export function toEnd() {
  const place = scroller();
  place.scrollTop = place.scrollHeight;
  const { activeElement: active } = document;
  if (active.closest(".question")) active.scrollIntoView({ block: "nearest" }); // its form may be longer than the screen
}

// Scrolls by most of a screen, up or down.
export function scrollPage(direction) {
  const place = scroller();
  place.scrollTop += direction * 0.9 * place.clientHeight;
}

// The conversation scrolls between the header and the message field. On a low screen the whole page does.
function scroller() {
  const conversation = document.querySelector(".conversation");
  const isOwn = conversation && getComputedStyle(conversation).overflowY === "auto";
  return isOwn ? conversation : document.scrollingElement;
}
