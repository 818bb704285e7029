// How the page talks to its site. Nothing here knows what the page looks like.

import { texts } from "./texts.js";

export const settings = JSON.parse(document.getElementById("settings").textContent);

// Milliseconds before the connection is tried again: twice as many each time, and how often that is.
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 8_000;
const MOST_TRIES = 10;

// Has an "over" event after each answer.
export const responses = new EventTarget();

// Statuses of a visitor who has to log in anew.
const LOGGED_OUT = [401, 403];

// What is said here is meant for the person at the page. The code is that of the server, or one of this page.
export class Failure extends Error {
  constructor(code, { message, retry_after: retryAfter = null, mayPass = false } = {}) {
    super(texts.errors[code] ?? message ?? texts.errors.failed);
    this.code = code;
    this.retryAfter = retryAfter;
    this.mayPass = mayPass; // whether it may be over in a moment
  }
}

// There is no answer under way.
export class NothingToFollow extends Error {}

export async function get(place, fields = {}) {
  return readJson(await request(`${settings.urls[place]}?${new URLSearchParams(fields)}`));
}

export async function post(place, fields, options) {
  return readJson(await send(place, fields, options));
}

function send(place, fields, options = {}) {
  const { header, token } = settings.csrf;
  const headers = { [header]: token };
  return request(settings.urls[place], { method: "POST", headers, body: new URLSearchParams(fields), ...options });
}

async function request(url, options) {
  let response;
  try {
    // What the browser keeps would be shown again by its back button, long after it was true.
    response = await fetch(url, { cache: "no-store", ...options });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("offline");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  if (told?.code) throw new Failure(told.code, told);
  throw new Failure("refused", { mayPass: !LOGGED_OUT.includes(response.status) });
}

// A log-in in front of this site answers with a page of its own once a visitor has to log in anew.
async function readJson(response) {
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    throw new Failure("unexpected");
  }
}

// One event after the other, as they come. Comments only keep the connection alive.
async function* eventsOf(response) {
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new Failure("unexpected");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = readEvent(block);
        if (event.type) yield event;
      }
    }
  } finally {
    drain(reader);
  }
}

function readEvent(block) {
  const event = {};
  for (const line of block.split("\n")) {
    if (line.startsWith("data: ")) Object.assign(event, JSON.parse(line.slice("data: ".length)));
    if (line.startsWith("id: ")) event.lastId = line.slice("id: ".length);
  }
  return event;
}

// After the last event the site may still give the conversation a title. Then the response is over.
async function drain(reader) {
  try {
    while (!(await reader.read()).done);
    responses.dispatchEvent(new Event("over"));
  } catch {
    // It was cut, or this page has ended it.
  }
}

// The events of an answer up to its end. If the connection is lost, it is made again, and the answer goes on where it
// was: a question is sent once. Then an event of the type "lost" comes.
//
// "start" is where the question is sent, with its fields; without it, an answer is followed that is under way. "lastId"
// is that of the last event which the page has.
//
// Throws a Failure if the question was refused or the connection does not come back, NothingToFollow if there is no
// answer any more, and an AbortError if the signal says so.
export async function* answerEvents({ name, start = null, lastId = "", signal }) {
  let open = start ? () => send(start.place, start.fields, { signal }) : () => follow(name, lastId, signal);
  let isFirst = Boolean(start);
  let tries = 0;
  for (;;) {
    try {
      for await (const event of eventsOf(await open())) {
        tries = 0;
        lastId = event.lastId ?? lastId;
        yield event;
        if (event.type === "complete" || event.type === "error") return;
      }
    } catch (error) {
      if (signal.aborted || error instanceof NothingToFollow) throw error;
      const isRefusal = error instanceof Failure && error.code !== "offline";
      if (isRefusal && (isFirst || !error.mayPass)) throw error;
      if (!(error instanceof Failure || error instanceof TypeError)) throw error; // a fault of the page
    }
    if (tries === MOST_TRIES) throw new Failure("offline");
    yield { type: "lost" };
    await pause(Math.min(FIRST_PAUSE * 2 ** tries, LONGEST_PAUSE), signal);
    tries += 1;
    isFirst = false;
    open = () => follow(name, lastId, signal);
  }
}

async function follow(name, lastId, signal) {
  const headers = lastId ? { "Last-Event-ID": lastId } : {};
  const response = await request(`${settings.urls.answer}?${new URLSearchParams({ name })}`, { headers, signal });
  if (response.status === 204) throw new NothingToFollow();
  return response;
}

// Waits, but not longer than until the browser is online again.
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}
