// Keeps the end of a conversation in view while it grows, unless the person has scrolled away from it. Only scrolling
// changes that: a part that is longer than the screen may appear at the end.

const NEAR = 300; // pixels
const PAUSE = 100; // milliseconds; measuring the page for each piece of a text would cost more the longer the page is

let timer = null;
let isAway = false; // the person has scrolled away from the end
let own = null; // where the page itself has scrolled to

document.addEventListener("scroll", ({ target }) => {
  const place = scroller();
  const { scrollHeight, scrollTop, clientHeight } = place;
  if (target.contains(place)) isAway = scrollTop !== own && scrollHeight - scrollTop - clientHeight >= NEAR;
}, { capture: true, passive: true });

export function followEnd() {
  timer ??= setTimeout(() => {
    timer = null;
    if (document.activeElement.closest(".question")) return; // the person is answering
    if (!isAway) toEnd();
  }, PAUSE);
}

export function toEnd() {
  const place = scroller();
  place.scrollTop = place.scrollHeight;
  const { activeElement: active } = document;
  if (active.matches(".question")) active.scrollIntoView({ block: "start" }); // it may be longer than the screen
  else if (active.closest(".question")) active.scrollIntoView({ block: "nearest" });
  own = place.scrollTop;
  isAway = false;
}

// Shows the beginning of a question that has the focus, unless the person has scrolled away from the end.
export function showBeginning() {
  if (!isAway) toEnd();
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
