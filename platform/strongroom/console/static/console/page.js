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

// Momentum belongs to sgd: with another optimizer the field is neither shown nor sent.
function followOptimizer() {
  const optimizer = document.getElementById("id_optimizer");
  const momentum = document.getElementById("id_momentum");
  if (!optimizer || !momentum) return;
  const follow = () => {
    const field = momentum.closest("[data-field]");
    field.hidden = momentum.disabled = optimizer.value !== "sgd" && !field.querySelector(".sr-error");
  };
  optimizer.addEventListener("change", follow);
  follow();
}
followOptimizer();

// A moving part that is no longer there (signed out, deleted, another tenant chosen): show what is there instead.
document.addEventListener("htmx:beforeSwap", event => {
  const asked = new URL(event.detail.pathInfo.requestPath, location.origin).pathname;
  const answered = new URL(event.detail.xhr.responseURL).pathname;
  if (asked !== answered || event.detail.xhr.status === 404) {
    event.preventDefault();
    location.reload();
  }
});
