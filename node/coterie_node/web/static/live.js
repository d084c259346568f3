// Live parts of the page: an element with data-live="/live/..." is replaced by what the server sends after each block.
// Without this file every page works; it is then as of the moment at which it was opened.
"use strict";
for (const part of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(part.dataset.live);
  const state = document.getElementById("live-state");
  source.addEventListener("part", (event) => {
    const busy = part.contains(document.activeElement) && /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (busy) return; // nobody loses what they are writing
    const focus = part.contains(document.activeElement) ? document.activeElement.id : "";
    const page = new DOMParser().parseFromString(event.data, "text/html");
    part.replaceChildren(...page.body.childNodes);
    if (focus) document.getElementById(focus)?.focus();
    if (state) state.textContent = "live";
  });
  source.addEventListener("end", () => source.close());
  source.onerror = () => { if (state) state.textContent = "not live: the connection is lost"; };
  addEventListener("pagehide", () => source.close());
}
for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => { if (!confirm(form.dataset.confirm)) event.preventDefault(); });
}
