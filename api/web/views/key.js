/* The dialog for the API key: asked for when the service says 401, kept in this tab alone. */

import { key, useKey } from "../api.js";
import { find } from "../dom.js";

/** changed(): called whenever another key, or none, is used from now on. */
export function installKeyDialog(service, changed) {
  const dialog = find("#key-dialog");
  const input = find("#key");
  const words = find("#key-words");
  const open = (reason) => {
    words.textContent = reason ?? "";
    input.value = key();
    if (!dialog.open) dialog.showModal();
    input.focus();
  };
  const use = (text) => {
    useKey(text);
    dialog.close();
    changed();
  };
  find("#open-key").classList.toggle("unseen", service.authentication === "none");
  find("#open-key").addEventListener("click", () => open());
  find("#cancel-key").addEventListener("click", () => dialog.close());
  find("#forget-key").addEventListener("click", () => use(""));
  find("#key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) use(input.value.trim());
    else words.textContent = "Paste a key, or close this.";
  });
  document.addEventListener("provenn:key", (event) => open(event.detail));
  return { missing: () => service.authentication !== "none" && !key(), open };
}
