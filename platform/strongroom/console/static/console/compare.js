"use strict";
// Two texts → how near their vectors are: the cosine between what /v1/embeddings answers.
const compare = document.getElementById("compare");
const answer = document.getElementById("answer");

async function near(one, other) {
  const wanted = { model: compare.dataset.model, input: [one, other], encoding_format: "float" };
  const found = await reached((await asked(compare, "/v1/embeddings", wanted)).json());
  const vectors = found.data.map(each => each.embedding);
  return { cosine: cosine(...vectors), numbers: vectors[0].length, tokens: found.usage.prompt_tokens };
}

function cosine(one, other) {
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return dot(one, other) / Math.sqrt(dot(one, one) * dot(other, other));
}

function shown(found) {
  const part = element("div", "sr-answer"), row = element("div", "sr-bar sr-best");
  part.style.setProperty("--label", "4rem");
  const track = document.createElement("i"), fill = document.createElement("u");
  fill.style.width = `${100 * Math.max(0, found.cosine)}%`;  // through the object model: no style attribute is parsed
  track.append(fill);
  row.append(element("span", "", "cosine"), track, element("b", "", found.cosine.toFixed(3)));
  const usage = `${found.tokens} tokens → two vectors of ${found.numbers} numbers`;
  part.append(element("span", "sr-label", found.cosine.toFixed(2)), row, element("small", "", usage));
  return part;
}

compare.querySelector("[data-ask]").addEventListener("submit", async event => {
  event.preventDefault();
  answer.replaceChildren(element("p", "sr-empty", "Asking …"));
  try {
    answer.replaceChildren(shown(await near(compare.querySelector("#one").value, compare.querySelector("#other").value)));
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    answer.replaceChildren(element("p", "sr-note sr-bad", error.message));
  }
});
