// The turns of a conversation on the page: a question, its answer, and what there is to say about its end.

import { copyButton, icon, iconButton, make } from "./dom.js";
import { Drawing } from "./drawing.js";
import { Reader } from "./speech.js";
import { clock, language, texts } from "./texts.js";

function turn(role, speaker, ...parts) {
  const heading = make("h2", { className: "unseen" }, speaker);
  return make("article", { className: role }, heading, ...parts);
}

// A question, with the buttons that copy and change it.
export class Question {
  constructor({ text, id = "", parentId = "" }, edited) {
    Object.assign(this, { text, id, parentId, edited });
    this.body = make("div", { className: "body", dir: "auto" }, text);
    this.edit = iconButton("edit", texts.edit, () => this.change());
    const copy = copyButton(texts.copyQuestion, () => this.text);
    this.actions = make("div", { className: "actions" }, copy, this.edit);
    this.element = turn("user", texts.you, this.body, this.actions);
  }

  // Lets the question be written anew in its place.
  change() {
    const field = make("textarea", { value: this.text, rows: 1, dir: "auto", "aria-label": texts.editing });
    const close = () => {
      form.replaceWith(this.body, this.actions);
      this.edit.focus();
    };
    const form = make(
      "form",
      {
        className: "change",
        submit: (event) => {
          event.preventDefault();
          const text = field.value.trim();
          if (!text) return;
          close();
          this.edited(this, text);
        },
        keydown: (event) => {
          if (event.key === "Escape") {
            event.preventDefault();
            event.stopPropagation();
            close();
          } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            form.requestSubmit();
          }
        },
      },
      field,
      make(
        "div",
        { className: "choices" },
        make("button", { type: "button", click: close }, texts.cancel),
        make("button", { type: "submit", className: "primary" }, texts.askAgain),
      ),
    );
    this.actions.remove();
    this.body.replaceWith(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

// An answer, which is drawn while it comes or was stored.
export class AnswerTurn {
  constructor({ regenerated, spoken = false }) {
    this.body = make("div", { className: "body", dir: "auto" });
    this.state = make("p", { className: "state" }, make("span", { className: "dots", "aria-hidden": "true" }), "");
    this.meta = make("span", { className: "meta" });
    this.again = iconButton("again", texts.again, regenerated);
    this.copy = copyButton(texts.copyAnswer, () => this.drawing.text);
    this.actions = make("div", { className: "actions", hidden: true }, this.copy, this.again, this.meta);
    this.element = turn("assistant", texts.answer, this.body, this.state, this.actions);
    this.state.hidden = true;
    this.spoken = spoken;
    this.lastId = ""; // of the last event that came
    this.restart();
  }

  // Begins anew with nothing on the page.
  restart() {
    const reader = this.spoken ? new Reader() : null;
    this.body.replaceChildren();
    this.drawing = new Drawing(this.body, (fixed, open) => reader?.read(fixed, open));
  }

  // Says what happens as long as nothing else is to be seen.
  wait(words) {
    this.state.hidden = !words;
    this.state.lastChild.data = words;
    this.body.classList.toggle("coming", !words);
  }

  add(text) {
    if (!this.state.hidden) this.wait("");
    this.drawing.add(text);
  }

  get text() {
    return this.drawing.text;
  }

  // Says that no more comes, and with what it was made.
  async end(details = {}) {
    this.state.hidden = true;
    this.body.classList.remove("coming");
    await this.drawing.end();
    this.meta.textContent = metaOf(details);
    this.actions.hidden = !this.text;
  }
}

function metaOf({ model, usage, seconds }) {
  const tokens = usage?.output_tokens;
  const number = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
  return [
    model,
    tokens == null ? "" : texts.tokens(number.format(tokens), tokens),
    seconds == null ? "" : texts.seconds(number.format(seconds)),
  ].filter(Boolean).join(" · ");
}

// What is said about an answer's end, with a button if something can be done about it.
export function note(words, label = "", done = null) {
  const button = label ? [make("button", { type: "button", click: done }, label)] : [];
  return make("div", { className: "note" }, make("p", {}, words), ...button);
}

// A failure, and a button that tries again, if that makes sense. It counts down as long as the service asks to wait.
export function failureNote(failure, tryAgain) {
  const box = make("div", { className: "note failure", role: "alert" }, make("p", {}, failure.message));
  if (!tryAgain) return box;
  const label = make("span");
  const button = make("button", { type: "button", click: tryAgain }, icon("again"), label);
  const due = Date.now() + 1000 * (failure.retryAfter ?? 0);
  const count = () => {
    const seconds = (due - Date.now()) / 1000;
    button.disabled = seconds > 0;
    label.textContent = seconds > 0 ? texts.tryAgainIn(clock(seconds)) : texts.tryAgain;
    if (seconds > 0 && (box.isConnected || !label.counted)) setTimeout(count, Math.min(1000, 1000 * seconds + 20));
    label.counted = true;
  };
  count();
  box.append(button);
  return box;
}

