"use strict";
// The try-it box of a deployment: a file or JSON goes to the same predict route that callers use, labels and scores
// come back as bars. The answer is set by textContent only.
const box = document.getElementById("try");
const MAX_BARS = 12;

async function ask(body, type) {
  const answer = document.getElementById("answer");
  answer.replaceChildren(line("p", "sr-empty", "Asking …"));
  let response, found;
  try {
    response = await fetch(box.dataset.route, {
      method: "POST", body,
      headers: { "Content-Type": type, "X-CSRFToken": box.querySelector("[name=csrfmiddlewaretoken]").value, "X-Strongroom-Tenant": box.dataset.tenant },
    });
    found = await response.json();
  } catch {
    found = { detail: "The server cannot be reached." };
  }
  answer.replaceChildren(...(response && response.ok ? shown(found) : [line("p", "sr-note sr-bad", found.detail)]));
}

function line(tag, looks, text) {
  const element = document.createElement(tag);
  element.className = looks;
  element.textContent = text;
  return element;
}

function shown(found) {
  const parts = found.predictions.slice(0, 20).map(prediction);
  const usage = found.usage;
  parts.push(line("small", "", `${found.model}@${found.version} · ${usage.items} item${usage.items === 1 ? "" : "s"} · ${usage.compute_ms} ms computing, ${usage.queue_ms} ms waiting`));
  return parts;
}

function prediction(each) {
  const part = line("div", "sr-answer", "");
  if (each.label === undefined) {
    part.append(each.value === undefined ? line("pre", "sr-code", JSON.stringify(each, null, 1).slice(0, 4000)) : line("span", "sr-label", String(each.value)));
    return part;
  }
  part.append(line("span", "sr-label", each.label));
  const scores = each.scores ? Object.entries(each.scores) : [[each.label, each.score]];
  const longest = Math.max(...scores.map(([label]) => label.length));
  part.style.setProperty("--label", `${Math.min(24, longest + 2)}ch`);
  for (const [label, score] of scores.sort((a, b) => b[1] - a[1]).slice(0, MAX_BARS)) part.append(bar(label, score, label === each.label));
  return part;
}

function bar(label, score, best) {
  const row = line("div", best ? "sr-bar sr-best" : "sr-bar", "");
  const track = document.createElement("i"), fill = document.createElement("u");
  fill.style.width = `${100 * score}%`;  // through the object model: no style attribute is parsed
  track.append(fill);
  row.append(line("span", "", label), track, line("b", "", `${(100 * score).toFixed(1)} %`));
  return row;
}

function image(file) {
  const preview = box.querySelector(".sr-preview"), reader = new FileReader();
  reader.addEventListener("load", () => { preview.src = reader.result; preview.hidden = false; });  // a data: URL
  reader.readAsDataURL(file);
  box.querySelector("[data-name]").textContent = file.name;
  ask(file, file.type);
}

if (box) {
  const input = box.querySelector("#file");
  if (input) {
    input.hasChangeListener = true;  // else unfold, once all is loaded, looks for a text field beside it and falls
    input.addEventListener("change", () => input.files[0] && image(input.files[0]));
  }
  const button = box.querySelector("[data-ask]");
  if (button) button.addEventListener("click", () => ask(box.querySelector("#body").value, "application/json"));
}
