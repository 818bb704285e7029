// The conversation that is shown: what was said, and what is asked. It goes by a name that this page makes up, which
// stands in the address behind "#", so that a reload, a bookmark and the back button find it again.

import { nextFrame } from "./dom.js";
import { answerEvents, Failure, get, NothingToFollow, post } from "./server.js";
import { toEnd } from "./scrolling.js";
import { say } from "./speech.js";
import { texts } from "./texts.js";
import { AnswerTurn, failureNote, note, Question } from "./turns.js";

// The parent of the first question of a conversation.
const ROOT = "root";
// Messages that become turns in one frame.
const AT_ONCE = 10;
// What a try will not mend.
const LASTING = ["not_configured", "not_authorized", "not_permitted", "not_found", "quota_exceeded", "not_kept"];

const [turns, welcome, status] = ["turns", "welcome", "status"].map((id) => document.getElementById(id));

export class Conversation {
  // "changed" is called when an answer begins or ends, "begun" with a name and a question when a conversation does,
  // "returned" with a question that can't be asked now, and "gone" with a name when the service has forgotten a conversation.
  constructor({ model, changed, begun, returned, gone }) {
    Object.assign(this, { model, changed, begun, returned, gone });
    this.name = "";
    this.turns = []; // questions and answers as they stand on the page
    this.answering = null; // the AbortController of the answer that comes
    this.lastId = ""; // the message that the next question follows
    this.visit = 0; // how often a conversation was shown
    this.loading = Promise.resolve();
  }

  // Shows the conversation of a name; an empty one begins a new conversation.
  show(name) {
    this.answering?.abort();
    this.visit += 1;
    this.name = name;
    this.turns = [];
    this.lastId = "";
    this.setAnswering(null);
    turns.replaceChildren();
    welcome.hidden = Boolean(name);
    this.loading = name ? this.load(this.visit) : Promise.resolve();
    return this.loading;
  }

  async load(visit) {
    turns.setAttribute("aria-busy", "true");
    let answer = null;
    try {
      const found = await get("messages", { name: this.name });
      if (visit !== this.visit) return;
      answer = found.answer;
      await this.place(found.messages, visit);
      if (visit !== this.visit) return;
      if (!answer) this.explainEnd();
    } catch (error) {
      if (visit !== this.visit) return;
      this.tell(error, () => this.show(this.name));
    }
    this.setAnswering(null);
    toEnd();
    if (answer) this.resume(answer);
  }

  // Puts the messages on the page, the newest first, so that they are there soon however many there are.
  async place(messages, visit) {
    welcome.hidden = messages.length > 0 || Boolean(this.answering);
    const first = messages.find(({ role }) => role === "user");
    if (first) this.begun(this.name, first.text);
    this.lastId = messages.findLast(({ role }) => role === "assistant")?.id ?? "";
    this.turns = messages.map((message) => this.turnOf(message));
    for (let end = this.turns.length; end > 0; end -= AT_ONCE) {
      turns.prepend(...this.turns.slice(Math.max(0, end - AT_ONCE), end).map(({ element }) => element));
      await new Promise(nextFrame);
      if (visit !== this.visit) return;
    }
  }

  turnOf({ role, id, parent_id: parentId, text, model }) {
    const edited = (question, words) => this.edit(question, words);
    if (role === "user") return new Question({ text, id, parentId: parentId ?? "" }, edited);
    const turn = this.newAnswer();
    turn.add(text);
    turn.end({ model });
    return turn;
  }

  newAnswer(spoken = false) {
    return new AnswerTurn({ spoken, regenerated: () => this.regenerate() });
  }

  add(turn) {
    this.turns.push(turn);
    turns.append(turn.element);
    welcome.hidden = true;
  }

  // A question that nobody answered can be asked again.
  explainEnd() {
    if (this.turns.at(-1) instanceof Question) this.tell(new Failure("interrupted"), () => this.regenerate());
  }

  setAnswering(controller) {
    this.answering = controller;
    turns.setAttribute("aria-busy", String(Boolean(controller)));
    this.offerAgain();
    this.changed();
  }

  // The last answer can be had again, and questions be changed, while no other answer comes.
  offerAgain() {
    const answers = this.turns.filter((turn) => turn instanceof AnswerTurn);
    for (const turn of answers) turn.again.hidden = Boolean(this.answering) || turn !== this.turns.at(-1);
    for (const turn of this.turns) if (turn instanceof Question) turn.edit.hidden = Boolean(this.answering);
  }

  // Asks a question behind a message; without one, behind the last answer.
  async ask(text, parentId = null) {
    if (this.answering) return;
    const controller = new AbortController();
    this.setAnswering(controller);
    const { visit } = this;
    await this.loading;
    if (visit !== this.visit) return;
    if (this.answering && this.answering !== controller) { // an answer was under way
      this.returned(text);
      return;
    }
    if (!this.name) {
      this.name = newName();
      history.pushState(null, "", `#${this.name}`);
    }
    this.begun(this.name, text);
    const question = this.turnOf({ role: "user", text, parent_id: parentId ?? this.lastId });
    this.add(question);
    await this.send(question, controller);
  }

  async send(question, controller = new AbortController()) {
    const { text: words, parentId } = question;
    const fields = { name: this.name, prompt: words, model: this.model(), parent_message_id: parentId };
    const turn = this.newAnswer(true);
    this.clearNotes();
    this.add(turn);
    this.setAnswering(controller);
    const again = () => {
      this.drop(turn);
      this.send(question);
    };
    await this.hear(turn, { name: this.name, start: { place: "ask", fields } }, controller, again);
  }

  // Asks a question anew that was changed: what followed it is left behind.
  edit(question, text) {
    if (this.answering) return;
    const place = this.turns.indexOf(question);
    for (const turn of this.turns.splice(place)) turn.element.remove();
    this.ask(text, question.parentId || ROOT);
  }

  // Has the last question answered again. The earlier answer stays if no other one comes to be whole.
  async regenerate() {
    if (this.answering) return;
    const earlier = this.turns.at(-1) instanceof AnswerTurn ? this.turns.pop() : null;
    const { lastId } = this;
    const turn = this.newAnswer(true);
    const controller = new AbortController();
    this.clearNotes();
    if (earlier) earlier.element.hidden = true;
    this.add(turn);
    this.setAnswering(controller);
    const start = { place: "retry", fields: { name: this.name, model: this.model() } };
    const restore = () => {
      if (!earlier) return;
      earlier.element.hidden = false;
      if (this.lastId === lastId) {
        this.drop(turn);
        this.turns.push(earlier);
      } else {
        earlier.element.remove();
      }
    };
    await this.hear(turn, { name: this.name, start }, controller, () => this.regenerate(), restore);
  }

  // Goes on with an answer that was under way when the page was loaded.
  async resume({ question }) {
    const controller = new AbortController();
    this.clearNotes();
    const last = this.turns.at(-1);
    this.begun(this.name, question);
    if (!(last instanceof Question && last.text === question)) {
      this.add(this.turnOf({ role: "user", text: question, parent_id: this.lastId }));
    }
    const asked = this.turns.at(-1);
    const turn = this.newAnswer(true);
    this.add(turn);
    this.setAnswering(controller);
    const again = () => {
      this.drop(turn);
      this.send(asked);
    };
    await this.hear(turn, { name: this.name }, controller, again, () => {}, texts.resuming);
  }

  // Goes on with an answer that was stopped: with what the service has of it, or else with another one.
  async goOn(turn) {
    if (this.answering) return;
    const controller = new AbortController();
    this.clearNotes();
    this.setAnswering(controller);
    const { visit } = this;
    const found = await this.lookFor(turn).catch((failure) => failure);
    if (visit !== this.visit) return;
    this.setAnswering(null);
    if (found instanceof Failure && found.code === "interrupted") this.regenerate();
    else this.finish(turn, found, () => this.goOn(turn));
  }

  // Writes an answer onto the page while it comes, and says how it ended.
  async hear(turn, source, controller, again, restore = () => {}, words = texts.sending) {
    const { visit } = this;
    let outcome;
    turn.wait(words);
    status.textContent = words;
    toEnd();
    try {
      outcome = await this.read(turn, answerEvents({ ...source, signal: controller.signal }));
    } catch (error) {
      if (!controller.signal.aborted && error instanceof NothingToFollow) {
        outcome = await this.lookFor(turn).catch((failure) => failure);
      } else {
        outcome = controller.signal.aborted ? { stopped: true } : error;
      }
    }
    if (visit === this.visit) await this.finish(turn, outcome, again, restore); // else, another conversation is shown
  }

  async finish(turn, outcome, again, restore = () => {}) {
    const { visit } = this;
    await turn.end(outcome);
    if (visit !== this.visit) return;
    restore();
    if (turn.element.isConnected && !turn.text) this.drop(turn);
    this.setAnswering(null);
    this.explain(outcome, turn, again);
  }

  async read(turn, events) {
    const began = performance.now();
    for await (const event of events) {
      turn.lastId = event.lastId ?? turn.lastId;
      if (event.type === "content") {
        if (!turn.text) status.textContent = texts.answering;
        turn.add(event.text);
      } else if (event.type === "complete") {
        this.lastId = event.message_id ?? "";
        return { seconds: (performance.now() - began) / 1000, ...event };
      } else if (event.type === "error") {
        this.lastId = event.message_id ?? this.lastId; // the answer is whole, but the site could not keep it
        throw new Failure(event.code, event);
      } else {
        this.tellState(turn, event);
      }
    }
    throw new Failure("interrupted");
  }

  tellState(turn, { type, reason, seconds, position }) {
    let words = texts.thinking;
    if (type === "lost") words = texts.reconnecting;
    if (type === "waiting") words = (reason === "limit" ? texts.waitingLimit : texts.waitingService)(seconds);
    if (type === "started" && position === 0 && turn.text) turn.restart(); // it comes from its beginning
    turn.wait(words);
    status.textContent = words;
  }

  // The site has nothing more of an answer. The service may have all of it.
  async lookFor(turn) {
    const { messages } = await get("messages", { name: this.name });
    const last = messages.at(-1);
    const isNew = last?.role === "assistant" && last.id !== this.lastId;
    if (!isNew || last.text.length <= turn.text.length) throw new Failure("interrupted");
    turn.restart();
    turn.add(last.text);
    this.lastId = last.id;
    return { complete: true, model: last.model };
  }

  explain(outcome, turn, again) {
    status.textContent = "";
    if (outcome instanceof Error) {
      this.tell(outcome, again);
    } else if (outcome.stopped) {
      const [label, done] = turn.text ? [texts.goOn, () => this.goOn(turn)] : [texts.tryAgain, again];
      this.addNote(note(texts.stopped, label, done));
      say(texts.stopped);
    } else if (!outcome.complete) {
      this.addNote(note(texts.incomplete));
      say(texts.incomplete);
    } else {
      status.textContent = texts.complete;
    }
  }

  // Says what went wrong, in a place where it can be tried again.
  tell(error, again = null) {
    if (!(error instanceof Failure)) throw error;
    // The site looks for itself, and leaves the conversation out of its list.
    if (error.code === "not_found") get("messages", { name: this.name }).catch(() => {}).finally(() => this.gone(this.name));
    this.addNote(failureNote(error, LASTING.includes(error.code) ? null : again));
  }

  addNote(element) {
    this.clearNotes();
    turns.append(element);
    welcome.hidden = true;
    toEnd();
  }

  clearNotes() {
    for (const element of turns.querySelectorAll(".note")) element.remove();
  }

  drop(turn) {
    turn.element.remove();
    this.turns = this.turns.filter((each) => each !== turn);
  }

  // Ends the answer that comes. The site is told, because it may finish answers that nobody reads any more.
  stop(options = {}) {
    if (!this.answering) return;
    if (this.name) post("stop", { name: this.name }, options).catch(() => {}); // it ends without readers as well
    this.answering.abort();
  }

  editLast() {
    this.turns.findLast((turn) => turn instanceof Question)?.change();
  }

  // What was said, as Markdown.
  toMarkdown(title) {
    const parts = this.turns.map((turn) => {
      const speaker = turn instanceof Question ? texts.exportedQuestion : texts.exportedAnswer;
      return `## ${speaker}\n\n${turn.text}\n`;
    });
    return [`# ${title}\n`, ...parts].join("\n");
  }
}

function newName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
