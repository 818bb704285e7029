// The chat's page. What the model says is text while it comes; when it is complete, the server makes HTML of it.
//
// A conversation goes by its name, which is made up here of the time it began and its first words. The name stands in
// the address behind "#", so that a reload, a bookmark and the back button find it again.

const csrfToken = document.querySelector("meta[name=csrf-token]").content;
const [scroll, welcome, turns, again, form, prompt, send, stop, status, list, none, toggle] =
  ["scroll", "welcome", "turns", "again", "form", "prompt", "send", "stop", "status", "conversations", "none", "toggle"]
    .map((id) => document.getElementById(id));

const LONGEST_TITLE = 30;

let answering = null; // the AbortController of the answer that is being written
let listed = ""; // what the list of conversations shows
let lastMessageId = ""; // the message that the next question follows
let following = 0; // the frame in which the end is scrolled to
let shown; // settled when the conversation of the address is on the page

// What is said here is meant for the person at the page.
class Failure extends Error {}

function nameInAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("conversation") ?? "";
}

function addressOf(name) {
  return `#${new URLSearchParams({ conversation: name })}`;
}

function titleOf(name) {
  return name.slice(name.indexOf(" ") + 1);
}

function newName(question) {
  const words = [...question.trim().replace(/\s+/g, " ")];
  const title = words.length > LONGEST_TITLE ? `${words.slice(0, LONGEST_TITLE - 1).join("").trim()}…` : words.join("");
  return `${new Date().toISOString()} ${title}`;
}

// The server

async function get(path, fields = {}) {
  return readJson(await request(`${path}?${new URLSearchParams(fields)}`));
}

function post(path, fields, signal) {
  return request(path, { method: "POST", headers: { "X-CSRFToken": csrfToken }, body: new URLSearchParams(fields), signal });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("This site can't be reached at the moment.");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Failure(told ? inWords(told) : `The site refused this (${response.status}). Reload the page and try again.`);
}

// A log-in in front of this site answers with a page of its own once a visitor has to log in anew.
async function readJson(response) {
  try {
    return await response.json();
  } catch {
    throw new Failure("The site did not answer as it should. Reload the page and try again.");
  }
}

// One event after the other, as they come. Each is one line of data; comments only keep the connection alive.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield JSON.parse(block.slice("data: ".length));
    }
  }
}

function inWords({ message, retry_after: seconds }) {
  return seconds ? `${message} The service asks to wait for ${duration(seconds)}.` : message;
}

function duration(seconds) {
  const [amount, unit] = seconds < 90 ? [Math.ceil(seconds), "second"] : [Math.ceil(seconds / 60), "minute"];
  return `${amount} ${unit}${amount === 1 ? "" : "s"}`;
}

// What is on the page

function addTurn(role, speaker) {
  const turn = document.createElement("article");
  turn.className = role;
  const heading = document.createElement("h3");
  heading.className = "unseen";
  heading.textContent = speaker;
  const body = document.createElement("div");
  body.className = "body";
  turn.append(heading, body);
  turns.append(turn);
  welcome.hidden = true;
  return body;
}

function addQuestion(text) {
  addTurn("user", "You").textContent = text;
}

function addNote(text, isFailure) {
  const note = document.createElement("p");
  note.className = isFailure ? "note failure" : "note";
  note.textContent = text;
  turns.append(note);
  welcome.hidden = true;
}

// The one place where HTML is put into the page: it comes from this site, which lets none of the model's through.
function fill(body, html) {
  follow();
  body.innerHTML = html;
}

function toTheEnd() {
  scroll.scrollTop = scroll.scrollHeight;
}

function isAtTheEnd() {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
}

// Keeps the end in sight, where it is, while something is added. To look where the end is has the browser lay out the
// whole answer, so that is done once in a frame, however many pieces come.
function follow() {
  if (following) return;
  const wasAtTheEnd = isAtTheEnd();
  following = requestAnimationFrame(() => {
    following = 0;
    if (wasAtTheEnd) toTheEnd();
  });
}

function setAnswering(controller) {
  answering = controller;
  send.hidden = Boolean(controller);
  stop.hidden = !controller;
  turns.setAttribute("aria-busy", String(Boolean(controller)));
  offerAgain();
}

// The last answer can be asked for again while no other one is being written.
function offerAgain() {
  again.hidden = Boolean(answering) || !lastTurn()?.classList.contains("assistant");
}

function lastTurn() {
  return turns.querySelector("article:last-of-type");
}

async function listConversations() {
  showNames((await get("/conversations")).names);
}

// Leaves a list alone that is right already: the focus may be in it.
function showNames(names) {
  const current = nameInAddress();
  const content = JSON.stringify([names, current]);
  if (content === listed) return;
  listed = content;
  list.replaceChildren(...names.reverse().map((name) => entryFor(name, name === current)));
  none.hidden = names.length > 0;
}

function entryFor(name, isCurrent) {
  const link = document.createElement("a");
  link.href = addressOf(name);
  link.textContent = titleOf(name);
  if (isCurrent) link.setAttribute("aria-current", "page");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "×";
  button.title = "Delete";
  button.setAttribute("aria-label", `Delete “${titleOf(name)}”`);
  button.addEventListener("click", () => forget(name));
  const entry = document.createElement("li");
  entry.append(link, button);
  return entry;
}

// Shows the conversation of the address.
async function show() {
  answering?.abort();
  setAnswering(null);
  const name = nameInAddress();
  lastMessageId = "";
  turns.replaceChildren();
  offerAgain();
  status.textContent = "";
  welcome.hidden = Boolean(name);
  setSidebar(false);
  prompt.focus();
  try {
    await listConversations();
    const { messages } = name ? await get("/messages", { name }) : { messages: [] };
    if (name !== nameInAddress()) return;
    welcome.hidden = messages.length > 0;
    for (const message of messages) addMessage(message);
    offerAgain();
    toTheEnd();
  } catch (error) {
    if (name === nameInAddress()) tell(error);
  }
}

function addMessage({ role, text, html, id }) {
  if (role === "user") {
    addQuestion(text);
  } else {
    fill(addTurn("assistant", "Answer"), html);
    lastMessageId = id;
  }
}

function tell(error) {
  if (!(error instanceof Failure)) throw error;
  addNote(error.message, true);
  toTheEnd();
}

// What can be done

async function ask(question) {
  const controller = new AbortController();
  setAnswering(controller);
  await shown;
  if (controller.signal.aborted) {
    takeBack(question, controller);
    return;
  }
  const name = nameInAddress() || newName(question);
  if (name !== nameInAddress()) history.pushState(null, "", addressOf(name));
  addQuestion(question);
  const { outcome, turn } = await hear("/ask", { name, prompt: question, parent_message_id: lastMessageId }, controller);
  if (answering !== controller) return; // another conversation is on the page
  end(outcome);
  if (outcome instanceof Failure && !turn.isConnected) prompt.value ||= question;
}

// Has the last question answered again. The earlier answer stays where no other one comes to be whole.
async function regenerate() {
  const controller = new AbortController();
  const earlier = lastTurn();
  const earlierId = lastMessageId;
  setAnswering(controller);
  while (earlier.nextSibling) earlier.nextSibling.remove();
  earlier.hidden = true;
  const { outcome, turn } = await hear("/retry", { name: nameInAddress() }, controller);
  if (answering !== controller) return; // another conversation is on the page
  (lastMessageId === earlierId ? turn : earlier).remove();
  earlier.hidden = false;
  end(outcome);
}

// Writes an answer onto the page while it comes, and gives its place and what there is to note about its end.
async function hear(path, fields, controller) {
  const body = addTurn("assistant", "Answer");
  const turn = body.parentElement;
  const text = body.appendChild(new Text());
  body.classList.add("coming");
  status.textContent = "Answering …";
  toTheEnd();
  let outcome = "";
  try {
    outcome = await read(await post(path, fields, controller.signal), text);
  } catch (error) {
    if (controller.signal.aborted) outcome = "Stopped.";
    else if (error instanceof Failure) outcome = error;
    else outcome = new Failure("The answer was cut off before its end.");
  }
  await finish(body, text.data);
  return { outcome, turn };
}

function end(outcome) {
  setAnswering(null);
  status.textContent = outcome ? "" : "The answer is complete.";
  if (outcome instanceof Failure) {
    tell(outcome);
  } else if (outcome) {
    addNote(outcome, false);
    toTheEnd();
  }
}

// Gives a question back that was stopped before it was asked.
function takeBack(question, controller) {
  prompt.value ||= question;
  if (answering === controller) setAnswering(null);
}

// Reads an answer into a text of the page, and gives what there is to note about its end.
async function read(response, text) {
  listConversations().catch(() => {}); // the next time will do
  for await (const event of eventsOf(response)) {
    if (event.type === "error") {
      lastMessageId = event.message_id ?? lastMessageId; // the answer is whole, but the site could not keep it
      throw new Failure(inWords(event));
    }
    if (event.type === "complete") {
      lastMessageId = event.message_id ?? "";
      return event.complete ? "" : "This may not be all of the answer.";
    }
    if (event.type === "waiting") {
      status.textContent = event.message;
      continue;
    }
    if (!text.data) status.textContent = "Answering …";
    follow();
    text.appendData(event.text);
  }
  throw new Failure("The answer was cut off before its end.");
}

async function finish(body, text) {
  if (text) {
    try {
      fill(body, (await readJson(await post("/markdown", { text }))).html);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      body.classList.add("plain"); // the text as it came is readable too
    }
  } else {
    body.parentElement.remove();
  }
  body.classList.remove("coming");
}

async function forget(name) {
  if (!confirm(`Delete “${titleOf(name)}” for good?`)) return;
  try {
    const { names } = await readJson(await post("/delete", { name }));
    if (name === nameInAddress()) {
      begin();
    } else {
      showNames(names);
      (list.querySelector("a") ?? prompt).focus(); // what had it is gone
    }
  } catch (error) {
    tell(error);
  }
}

function begin() {
  history.pushState(null, "", location.pathname);
  shown = show();
}

function setSidebar(open) {
  toggle.setAttribute("aria-expanded", String(open));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = prompt.value.trim();
  if (!question || answering) return;
  prompt.value = "";
  prompt.focus();
  ask(question);
});

prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") answering?.abort();
});

stop.addEventListener("click", () => {
  answering?.abort();
  prompt.focus();
});

again.addEventListener("click", () => {
  prompt.focus();
  regenerate();
});

document.getElementById("new").addEventListener("click", begin);
toggle.addEventListener("click", () => setSidebar(toggle.getAttribute("aria-expanded") !== "true"));
list.addEventListener("click", (event) => {
  if (event.target.closest("a")) setSidebar(false);
});

window.addEventListener("hashchange", () => {
  shown = show();
});

shown = show();
