"use strict";
// What every page of ours may need: copy buttons, "are you sure?", fields that belong to a choice. No inline handlers.
document.addEventListener("click", async event => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  const text = source.textContent.trim();
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no clipboard without https on another host: select it, the person copies it
    getSelection().selectAllChildren(source);
    return;
  }
  const before = button.innerHTML;
  button.textContent = "Copied";
  setTimeout(() => { button.innerHTML = before; }, 1500);
});

document.addEventListener("submit", event => {
  const question = event.target.dataset.sure;
  if (question && !confirm(question)) event.preventDefault();
});

// What changes something is sent once, however fast the button is pressed. (A form's fields hide its own properties of
// their names: `method`, `dataset`.)
const AGAIN_MS = 5000;
let sent = new WeakMap();
document.addEventListener("submit", event => {
  const form = event.target, now = performance.now();
  if (event.defaultPrevented || form.getAttribute("method") !== "post") return;
  if (now - (sent.get(form) ?? -AGAIN_MS) < AGAIN_MS) event.preventDefault();
  else sent.set(form, now);
});
addEventListener("pageshow", () => { sent = new WeakMap(); });

// Fields that belong to a choice: with another one they are neither shown nor sent. Of a choice that says of which kind
// it is (a model version) the kind counts. "" is no choice at all.
const BELONGS = [
  ["optimizer", ["sgd"], ["momentum"]],
  ["task", ["generation"], ["weights"]],
  ["task", ["classification"], ["classes"]],
  ["format", ["", "csv", "npz", "images"], ["target", "modality"]],
  ["method", ["dpo"], ["beta"]],
  ["version", ["language"], ["context_tokens", "share"]],
  ["version", ["arrays", ""], ["max_batch", "top_k", "decimals", "scores"]],
];

function belong(choice, wanted, field) {
  const place = field.closest("[data-field]"), chosen = choice.selectedOptions[0];
  const shown = wanted.includes(chosen?.dataset.kind ?? choice.value);
  place.hidden = field.disabled = !shown && !place.querySelector(".sr-error");
}

for (const [name, wanted, fields] of BELONGS) {
  const choice = document.getElementById(`id_${name}`);
  for (const field of fields.map(each => document.getElementById(`id_${each}`))) {
    if (!choice || !field) continue;
    choice.addEventListener("change", () => belong(choice, wanted, field));
    belong(choice, wanted, field);
  }
}

// A moving part that is no longer there (signed out, deleted, another tenant chosen): show what is there instead.
document.addEventListener("htmx:beforeSwap", event => {
  const asked = new URL(event.detail.pathInfo.requestPath, location.origin).pathname;
  const answered = new URL(event.detail.xhr.responseURL).pathname;
  if (asked !== answered || event.detail.xhr.status === 404) {
    event.preventDefault();
    location.reload();
  }
});
