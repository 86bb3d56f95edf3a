"use strict";
// What both boxes need that ask a model in words or texts by /v1, as OpenAI's callers do: a request with the session's
// token, and a failure in words. Whatever comes back is set by textContent only.
class Failed extends Error {}

async function asked(box, route, document, signal) {
  const headers = {
    "Content-Type": "application/json", "X-CSRFToken": box.querySelector("[name=csrfmiddlewaretoken]").value,
    "X-Strongroom-Tenant": box.dataset.tenant,
  };
  const response = await reached(fetch(route, { method: "POST", body: JSON.stringify(document), headers, signal }));
  if (!response.ok) throw new Failed(await refusal(response));
  return response;
}

// What the network says is a TypeError with words of the browser's own; an abort stays what it is.
async function reached(asking) {
  try {
    return await asking;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failed("The server cannot be reached, or the answer broke off.");
  }
}

// OpenAI's error, or a problem of the native face.
async function refusal(response) {
  try {
    const found = await response.json();
    return found.error?.message || found.detail;
  } catch {
    return `The server answered ${response.status} without a reason.`;
  }
}

function element(tag, looks, text = "") {
  const made = document.createElement(tag);
  made.className = looks;
  made.textContent = text;
  return made;
}
