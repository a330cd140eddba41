// A text that arrives in pieces, without rendering the rest of the page for each of them.

import { useLayoutEffect, useRef } from "preact/hooks";
import { followEnd } from "./scroll.js";

const NODE = 8192; // characters; adding to a longer text would copy it each time

export function LiveText({ pieces }) {
  const place = useRef();
  useLayoutEffect(() => {
    place.current.textContent = "";
    let node = place.current.appendChild(document.createTextNode(pieces.text));
    const add = (piece) => {
      if (node.length > NODE) node = place.current.appendChild(document.createTextNode(piece));
      else node.appendData(piece);
      followEnd();
    };
    pieces.readers.add(add);
    return () => pieces.readers.delete(add);
  }, [pieces]);
  return <p class="plain" ref={place} />;
}
