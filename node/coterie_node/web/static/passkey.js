// Forms with data-passkey="create" or "get": the browser's passkey answers the options, and the form carries the answer.
// Their button is disabled until this listens: a form that is sent before has no answer, and its question is used up.
"use strict";
const decode = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const encode = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
async function ask(kind, options) {
  options.challenge = decode(options.challenge);
  for (const list of [options.allowCredentials, options.excludeCredentials]) {
    for (const entry of list ?? []) entry.id = decode(entry.id);
  }
  if (options.user) options.user.id = decode(options.user.id);
  const credential = await navigator.credentials[kind]({ publicKey: options });
  const answer = { id: credential.id, rawId: encode(credential.rawId), type: credential.type, response: {} };
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature"]) {
    if (credential.response[name]) answer.response[name] = encode(credential.response[name]);
  }
  return JSON.stringify(answer);
}
for (const form of document.querySelectorAll("form[data-passkey]")) {
  const state = form.querySelector("[role=status]");
  form.addEventListener("submit", async (event) => {
    if (form.elements.answer.value) return;
    event.preventDefault();
    state.textContent = "Your browser asks for your passkey.";
    try {
      form.elements.answer.value = await ask(form.dataset.passkey, JSON.parse(form.dataset.options));
      form.submit();
    } catch (error) {
      state.textContent = `No passkey answered (${error.name}). Open the page again to try once more.`;
    }
  });
  form.querySelector("button").disabled = false;
}
