// Keeps the end of a conversation in view while it grows, unless the person has scrolled away from it.

const NEAR = 300; // pixels
const PAUSE = 100; // milliseconds; measuring the page for each piece of a text would cost more the longer the page is

let timer = null;

export function followEnd() {
  timer ??= setTimeout(() => {
    timer = null;
    const { scrollHeight } = document.documentElement;
    if (scrollHeight - window.scrollY - window.innerHeight < NEAR) toEnd();
  }, PAUSE);
}

export function toEnd() {
  window.scrollTo(0, document.documentElement.scrollHeight);
}
