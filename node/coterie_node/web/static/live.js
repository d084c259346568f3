// Live parts of the page: an element with data-live="/live/..." follows what the server sends after each block.
// The first event has the whole part. A later one has <template data-keep="FIRST LAST"> for the elements from the one id
// to the other that stand there already. Without this file every page works; it is then as of when it was opened.
"use strict";
const state = document.getElementById("live-state");

/** Put what was sent into a part; false if an element that should stand there does not. */
function replacePart(part, html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const active = part.contains(document.activeElement) ? document.activeElement : null;
  const scrolled = [...part.querySelectorAll(".scroll")].map((box) => [box.getAttribute("aria-label"), box.scrollLeft]);
  for (const place of page.querySelectorAll("template[data-keep]")) {
    const [first, last] = place.dataset.keep.split(" ").map((id) => document.getElementById(id));
    if (!first || !last || first.parentNode !== last.parentNode) return false;
    const kept = document.createRange();
    kept.setStartBefore(first);
    kept.setEndAfter(last);
    place.replaceWith(kept.extractContents());
  }
  part.replaceChildren(...page.body.childNodes);
  for (const [name, left] of scrolled) {
    const box = left && part.querySelector(`.scroll[aria-label="${CSS.escape(name)}"]`);
    if (box) box.scrollLeft = left;
  }
  const focused = active?.isConnected ? active : active?.id && document.getElementById(active.id);
  if (focused) focused.focus({ preventScroll: true });
  return true;
}

function follow(part) {
  const waiting = [];
  let source;
  const show = () => {
    const writes = part.contains(document.activeElement) && /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    while (waiting.length && !writes) { // nobody loses what they are writing: it is shown afterwards
      if (!replacePart(part, waiting.shift())) return open();
      if (state) state.textContent = "live";
    }
  };
  const open = () => {
    if (source) source.close();
    source = new EventSource(part.dataset.live);
    source.addEventListener("open", () => { waiting.length = 0; });
    source.addEventListener("part", (event) => { waiting.push(event.data); show(); });
    source.addEventListener("end", (event) => {
      event.target.close();
      if (state) state.textContent = `not live: ${event.data}`;
    });
    source.onerror = () => { if (state) state.textContent = "not live: the connection is lost"; };
  };
  part.addEventListener("focusout", () => setTimeout(show));
  addEventListener("pagehide", () => source.close());
  open();
}

for (const part of document.querySelectorAll("[data-live]")) follow(part);
for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => { if (!confirm(form.dataset.confirm)) event.preventDefault(); });
}
