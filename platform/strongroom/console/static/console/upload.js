"use strict";
// Sends a file to the raw route, past Django, with a bar that tells what has really left this machine.
// XMLHttpRequest, not fetch: fetch has no progress of an upload. The token travels in a header, since the edge checks
// the session before it reads the first byte; the tenant too, so that a switch in another tab changes nothing.
const form = document.getElementById("upload");
const input = document.getElementById("file");
input.hasChangeListener = true;  // else unfold, once all is loaded, looks for a text field beside it and falls
const sending = form.querySelector("[data-sending]");
const failed = form.querySelector("[data-failed]");
const isModel = Boolean(form.elements.model);
const FORMATS = isModel ? { onnx: "onnx", gguf: "gguf" } : { csv: "csv", npz: "npz", zip: "images", jsonl: "chat-jsonl" };
const ZIPPED = ["onnx-zip", "safetensors-zip"];  // a zip's name does not say which

function chosen() {
  const file = input.files[0];
  if (!file) return;
  failed.hidden = true;
  form.querySelector("[data-name]").textContent = `${file.name} · ${size(file.size)}`;
  const name = form.elements.name || form.elements.model;
  if (!name.value) name.value = plain(file.name);
  if (isModel) guess(ending(file));
  else if (FORMATS[ending(file)]) choose(form.elements.format, FORMATS[ending(file)]);
}

function ending(file) {
  return file.name.split(".").pop().toLowerCase();
}

// What the ending says of a model; whoever brings a zip says what is in it.
function guess(kind) {
  const { format, task } = form.elements;
  if (kind !== "zip" || !ZIPPED.includes(format.value)) format.value = FORMATS[kind] || "";
  choose(task, kind === "gguf" ? "generation" : task.value);
}

function choose(select, value) {
  select.value = value;
  select.dispatchEvent(new Event("change", { bubbles: true }));
}

function plain(fileName) {
  const stem = fileName.replace(/\.[^.]*$/, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^[^a-z]+|-+$/g, "");
  return stem.slice(0, 63);
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

function format(file) {
  return form.elements.format.value || FORMATS[ending(file)];
}

function address(file) {
  const { name, model, target, modality } = form.elements;
  const query = new URLSearchParams({ format: format(file) || "csv" });
  if (!isModel) {
    query.set("target", target.value);
    query.set("modality", modality.value);
  }
  return `${form.dataset.route.replace("NAME", encodeURIComponent((name || model).value.trim()))}?${query}`;
}

function send(file, done) {
  const request = new XMLHttpRequest();
  const began = performance.now();
  const bar = sending.querySelector("progress"), said = sending.querySelector("[data-said]");
  request.open("PUT", address(file));
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
  request.setRequestHeader("X-Strongroom-Tenant", form.dataset.tenant);
  request.upload.addEventListener("progress", event => {
    if (!event.lengthComputable) return;
    const rate = event.loaded / Math.max(0.001, (performance.now() - began) / 1000);
    bar.value = event.loaded / event.total;
    said.textContent = event.loaded < event.total
      ? `${size(event.loaded)} of ${size(event.total)}, ${size(rate)}/s` : "All sent; the last segment is sealed.";
  });
  request.addEventListener("load", () => {
    const answer = parsed(request.responseText);
    if (request.status < 300) done(answer);
    else refuse(answer);
  });
  request.addEventListener("error", () => refuse({ detail: "The connection broke off; nothing was kept. Try again." }));
  sending.hidden = false;
  failed.hidden = true;
  form.querySelector("[type=submit]").disabled = true;
  request.send(file);
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return { detail: "The server's answer could not be read." }; }
}

function refuse(problem) {
  const said = (problem.errors || []).map(each => `${each.path.replace(/^[?/]/, "")} ${each.message}${each.hint ? ` (${each.hint})` : ""}`.trim());
  failed.textContent = said.length ? said.join(" · ") : problem.detail;
  failed.hidden = false;
  sending.hidden = true;
  form.querySelector("[type=submit]").disabled = false;
}

form.addEventListener("submit", event => {
  const file = input.files[0];
  if (form.dataset.then) {  // a data set: the answer says where it is
    event.preventDefault();
    if (!file) return refuse({ detail: "Choose a file." });
    return send(file, answer => location.assign(`${form.dataset.then}${answer.name}/${answer.version}/`));
  }
  if (!file) return;  // a model that is here already: the form alone goes to Django
  event.preventDefault();
  if (!format(file)) return refuse({ detail: "Say what the file is: its name does not tell." });
  send(file, answer => { form.elements.artefact.value = answer.artefact; input.value = ""; form.submit(); });
});
input.addEventListener("change", chosen);
for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  input.addEventListener(kind, () => input.closest(".sr-drop").classList.toggle("sr-over", over));
}
