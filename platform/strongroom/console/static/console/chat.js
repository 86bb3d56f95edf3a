"use strict";
// The chat box of a language model: a conversation by the route that callers use, each answer as it comes; or of two
// beside each other, each with its own conversation, both asked the same.
//
// A conversation's messages are what its next request sends; they are kept nowhere else. What failed before a word came
// is taken out of them; where nobody answered a word, it goes back into the box. Stopping closes the connections, which
// ends the work on the server.
const chat = document.getElementById("chat");
const chats = chat.dataset.chats === "yes";
const [say, sending, stopping, settings] = ["say", "send", "stop", "settings"].map(name => chat.querySelector(`[data-${name}]`));
const said = chat.querySelector("#said");
const ROUTE = chats ? "/v1/chat/completions" : "/v1/completions";
let going = null;  // what aborts the answers that come

// --- what is asked

class Wrong extends Error {
  constructor(name, message) { super(message); this.field = name; }
}

function setting(name) {
  return document.getElementById(`id_chat-${name}`);
}

function figure(name, fits, wanted) {
  const input = setting(name), text = input.value.trim();
  if (!text && !input.validity.badInput) return undefined;
  if (!text || !fits(Number(text))) throw new Wrong(name, `must be ${wanted}`);
  return Number(text);
}

// Lines as they are, spaces too; a new line cannot stand in a line, so it is written \n.
function stops() {
  const lines = setting("stop").value.split("\n").filter(line => line);
  return lines.length ? lines.map(line => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t")) : undefined;
}

function format() {
  const text = setting("schema").value.trim();
  if (!text) return undefined;
  let schema;
  try {
    schema = JSON.parse(text);
  } catch (error) {
    throw new Wrong("schema", `is no JSON: ${error.message}`);
  }
  if (schema === null || typeof schema !== "object" || Array.isArray(schema)) throw new Wrong("schema", "must be an object, such as {…}");
  return { type: "json_schema", json_schema: { name: "answer", schema } };
}

// What is asked of every model alike. A field that is undefined is not sent: the model's default counts.
function settled() {
  return {
    stream: true, stream_options: { include_usage: true },
    temperature: figure("temperature", Number.isFinite, "a number"),
    top_p: figure("top_p", Number.isFinite, "a number"),
    max_tokens: figure("max_tokens", Number.isSafeInteger, "a whole number"),
    seed: figure("seed", Number.isSafeInteger, "a whole number"),
    stop: stops(),
    response_format: chats ? format() : undefined,
  };
}

function complain(name, message) {
  const place = chat.querySelector(`[data-field=${name}]`);
  place.querySelector(".sr-error")?.remove();
  place.classList.toggle("sr-wrong", Boolean(message));
  if (!message) return;
  const told = element("p", "sr-error", message);
  told.setAttribute("role", "alert");
  place.append(told);
}

// The settings, or null where one cannot be sent; it is told at its place.
function readable() {
  for (const place of chat.querySelectorAll(".sr-wrong")) complain(place.dataset.field, "");
  try {
    return settled();
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    settings.open = true;
    complain(error.field, error.message);
    setting(error.field).focus();
    return null;
  }
}

// --- what comes

// The documents of a stream of events, to its [DONE].
async function* chunks(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const { value, done } = await reached(reader.read());
    if (done) throw new Failed("The answer broke off.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event === "data: [DONE]") return;
      if (event.startsWith("data: ")) yield JSON.parse(event.slice(6));
    }
  }
}

class Answer {
  constructor(talk) {
    this.talk = talk;
    this.part = talk.turn(talk.model, "");
    this.text = this.part.querySelector(".sr-said").firstChild;
    this.part.setAttribute("aria-busy", "true");  // read out once it is whole, not piece by piece
    this.began = performance.now();
    this.first = this.last = this.reason = this.usage = null;
  }

  take(chunk) {
    if (chunk.error) throw new Failed(chunk.error.message);
    this.usage = chunk.usage ?? this.usage;
    const choice = chunk.choices[0];
    this.reason = choice?.finish_reason ?? this.reason;
    const piece = choice?.delta?.content ?? choice?.text;
    if (!piece) return;
    this.last = performance.now();
    this.first ??= this.last;
    this.talk.follow(() => this.text.appendData(piece));
  }

  end(looks, note) {
    this.part.setAttribute("aria-busy", "false");
    const facts = [note, this.tokens(), this.first && `first token ${Math.round(this.first - this.began)} ms`, this.rate()];
    this.talk.follow(() => this.part.append(element("p", looks, facts.filter(fact => fact).join(" · "))));
  }

  tokens() {
    if (!this.usage) return null;
    const { prompt_tokens: read, prompt_tokens_details: details, completion_tokens: made } = this.usage;
    return `${read} tokens in, ${details.cached_tokens} of them cached, ${made} out`;
  }

  rate() {
    const made = this.usage?.completion_tokens, seconds = (this.last - this.first) / 1000;
    return made > 1 && seconds > 0 ? `${((made - 1) / seconds).toFixed(1)} tokens/s` : null;
  }
}

// --- a conversation with one model

class Talk {
  constructor(turns) {
    this.turns = turns;
    this.model = turns.dataset.model;
    this.messages = [];
  }

  turn(name, text) {
    const part = element("article", "sr-turn"), content = element("div", "sr-said");
    content.append(document.createTextNode(text));
    part.append(element("b", "", name), content);
    this.follow(() => this.turns.append(part), true);
    return part;
  }

  // The conversation's end stays in sight, unless somebody scrolled up.
  follow(change, always = false) {
    const follows = always || this.turns.scrollHeight - this.turns.scrollTop - this.turns.clientHeight < 48;
    change();
    if (follows) this.turns.scrollTop = this.turns.scrollHeight;
  }

  request(text) {
    if (!chats) return { model: this.model, prompt: text };
    const system = setting("system").value.trim(), opening = system ? [{ role: "system", content: system }] : [];
    return { model: this.model, messages: [...opening, ...this.messages, { role: "user", content: text }] };
  }

  // Whether a word came, or it was forgotten meanwhile.
  async exchange(text, wanted) {
    const spoken = this.messages;
    this.turn("You", text).classList.add("sr-you");
    const answer = new Answer(this);
    if (wanted.response_format) answer.part.classList.add("sr-exact");
    try {
      const asking = asked(chat, ROUTE, { ...this.request(text), ...wanted }, going.signal);
      for await (const chunk of chunks(await asking)) answer.take(chunk);
      answer.end("sr-told", answer.reason === "length" ? "cut off at max tokens" : null);
    } catch (error) {
      if (error.name === "AbortError") answer.end("sr-told", "stopped");
      else if (error instanceof Failed) answer.end("sr-note sr-bad", error.message);
      else throw error;
    }
    if (answer.first) spoken.push({ role: "user", content: text }, { role: "assistant", content: answer.text.data });
    return Boolean(answer.first) || spoken !== this.messages;
  }

  forget() {
    this.messages = [];
    this.turns.replaceChildren();
  }
}

const talks = [...chat.querySelectorAll("[data-turns]")].map(turns => new Talk(turns));

async function exchange(text) {
  const wanted = readable();
  if (!wanted) return;
  said.value = "";
  begin();
  try {
    const came = await Promise.all(talks.map(talk => talk.exchange(text, wanted)));
    if (!came.includes(true) && !said.value) said.value = text;
  } finally {
    over();
  }
}

function begin() {
  going = new AbortController();
  swap(sending, stopping);
}

function over() {
  going = null;
  swap(stopping, sending);
}

// One button in the other's place; the keyboard does not lose where it is, and no phone shows its own unasked.
function swap(before, after) {
  const had = document.activeElement === before, mayWrite = after === sending && matchMedia("(pointer: fine)").matches;
  after.hidden = false;
  if (had) (mayWrite ? said : after).focus();
  before.hidden = true;
}

function abort() {
  going?.abort();
}

say.addEventListener("submit", event => {
  event.preventDefault();
  const text = said.value.trim();
  if (text && !going && talks.length) exchange(text);
});
said.addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say.requestSubmit();
});
chat.addEventListener("keydown", event => { if (event.key === "Escape") abort(); });
stopping.addEventListener("click", abort);
chat.querySelector("[data-new]").addEventListener("click", () => {
  abort();
  for (const talk of talks) talk.forget();
  said.focus();
});
setting("schema")?.addEventListener("change", () => {
  complain("schema", "");
  try { format(); } catch (error) { complain(error.field, error.message); }
});
if (matchMedia("(max-width: 60rem)").matches) settings.open = false;  // a phone shows the conversation first
