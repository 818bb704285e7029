// The list of conversations: by day, searched, renamed, and deleted after a moment in which that can be undone.

import { iconButton, make } from "./dom.js";
import { get, post } from "./server.js";
import { language, texts } from "./texts.js";

// Milliseconds in which a deletion can be undone.
const UNDO = 6_000;
const DAY = 86_400_000;
// Characters of a title that is made of a question.
const LONGEST_TITLE = 60;

const [place, none, search, toasts] = ["conversations", "none", "search", "toasts"]
  .map((id) => document.getElementById(id));

export class Sidebar {
  // "gone" is called when the conversation that is shown is deleted, "failed" with what goes wrong.
  constructor({ current, gone, changed, failed }) {
    Object.assign(this, { current, gone, changed, failed });
    this.listed = []; // as the site has them
    this.begun = new Map(); // titles of those that the site may not know yet
    this.deleted = new Map(); // the timer of each that is going to be deleted
    this.shown = "";
    search.addEventListener("input", () => this.draw());
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !search.value) return;
      event.stopPropagation();
      search.value = "";
      this.draw();
    });
    addEventListener("pagehide", () => this.deleteNow());
  }

  async load() {
    this.take(await get("conversations"));
  }

  take({ conversations }) {
    this.listed = conversations;
    this.draw();
  }

  // A conversation that begins has its first question for a title until the site knows better.
  begin(name, question) {
    const words = [...question.trim().replace(/\s+/g, " ")];
    const title = words.slice(0, LONGEST_TITLE).join("").trim();
    if (!this.begun.has(name)) this.begun.set(name, words.length > LONGEST_TITLE ? `${title}…` : title);
    this.draw();
  }

  get entries() {
    const known = new Set(this.listed.map(({ name }) => name));
    const fresh = [...this.begun.keys()].filter((name) => !known.has(name)).reverse()
      .map((name) => ({ name, title: null, updated_at: new Date().toISOString() }));
    return [...fresh, ...this.listed].filter(({ name }) => !this.deleted.has(name));
  }

  titleOf(name) {
    const entry = this.listed.find((each) => each.name === name);
    return entry?.title || this.begun.get(name) || (entry ? texts.untitled : "");
  }

  // Leaves a list alone that is right already: the focus may be in it.
  draw() {
    const words = search.value.trim().toLocaleLowerCase(language);
    const current = this.current();
    const entries = this.entries.map((each) => ({ ...each, title: this.titleOf(each.name) }))
      .filter(({ title }) => title.toLocaleLowerCase(language).includes(words));
    const content = JSON.stringify([entries.map(({ name, title, updated_at: at }) => [name, title, dayOf(at)]), current]);
    this.changed();
    none.hidden = entries.length > 0;
    none.textContent = words ? texts.nothingFound : texts.noConversations;
    if (content === this.shown || place.querySelector("input")) return;
    this.shown = content;
    const groups = Map.groupBy(entries, ({ updated_at: at }) => dayOf(at));
    place.replaceChildren(...[...groups].map(([day, inIt], number) => make(
      "section",
      {},
      make("h2", { id: `day-${number}` }, day),
      make("ul", { "aria-labelledby": `day-${number}` }, ...inIt.map((entry) => this.entryFor(entry, current))),
    )));
  }

  entryFor({ name, title }, current) {
    const link = make("a", { href: `#${encodeURIComponent(name)}`, title }, title);
    if (name === current) link.setAttribute("aria-current", "page");
    const entry = make(
      "li",
      {},
      link,
      iconButton("edit", texts.rename(title), () => this.rename(entry, name, title)),
      iconButton("remove", texts.remove(title), () => this.remove(name, title)),
    );
    return entry;
  }

  rename(entry, name, title) {
    const field = make("input", { value: title, maxLength: 200, "aria-label": texts.newTitle });
    const before = [...entry.childNodes];
    let isOver = false;
    const end = (isMeant) => {
      if (isOver) return;
      isOver = true;
      const words = field.value.trim();
      entry.replaceChildren(...before);
      entry.querySelector("button").focus();
      if (isMeant && words && words !== title) this.give(name, words);
      else this.draw();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      end(event.key === "Enter");
    });
    field.addEventListener("blur", () => end(true));
    entry.replaceChildren(field);
    field.select();
  }

  async give(name, title) {
    const entry = this.listed.find((each) => each.name === name);
    const before = entry?.title;
    if (entry) entry.title = title;
    this.begun.set(name, title);
    this.draw();
    this.focusOn(name);
    try {
      this.take(await post("rename", { name, title }));
    } catch (error) {
      if (entry) entry.title = before;
      this.begun.delete(name);
      this.draw();
      this.failed(error);
    }
    this.focusOn(name);
  }

  focusOn(name) {
    if (document.activeElement !== document.body) return;
    this.linkOf(name)?.parentElement.querySelector("button").focus();
  }

  remove(name, title) {
    const names = this.entries.map((each) => each.name);
    const next = names[names.indexOf(name) + 1] ?? names[names.indexOf(name) - 1];
    const end = () => {
      clearTimeout(this.deleted.get(name)?.timer);
      toast.remove();
    };
    const undo = make("button", {
      type: "button",
      click: () => {
        end();
        this.deleted.delete(name);
        this.draw();
        this.linkOf(name)?.focus();
      },
    }, texts.undo);
    const toast = make("div", { className: "toast" }, make("span", {}, texts.removed(title)), undo);
    toasts.append(toast);
    const timer = setTimeout(() => {
      end();
      this.delete(name, {});
    }, UNDO);
    this.deleted.set(name, { timer, end });
    this.draw();
    (this.linkOf(next) ?? document.getElementById("prompt")).focus(); // what had it is gone
    if (name === this.current()) this.gone();
  }

  linkOf(name) {
    return [...place.querySelectorAll("a")].find((link) => link.hash === `#${encodeURIComponent(name)}`);
  }

  async delete(name, options) {
    try {
      const left = await post("delete", { name }, options);
      this.begun.delete(name);
      this.listed = this.listed.filter((each) => each.name !== name);
      this.deleted.delete(name);
      this.take(left);
    } catch (error) {
      this.deleted.delete(name);
      this.draw();
      this.failed(error);
    }
  }

  // The page is left: what was to be deleted is deleted now.
  deleteNow() {
    for (const [name, { end }] of this.deleted) {
      end();
      this.delete(name, { keepalive: true });
    }
  }
}

function dayOf(time) {
  if (!time) return texts.undated;
  const date = new Date(time);
  const today = new Date().setHours(0, 0, 0, 0);
  if (date >= today) return texts.today;
  if (date >= today - DAY) return texts.yesterday;
  if (date >= today - 7 * DAY) return texts.lastWeek;
  if (date >= today - 30 * DAY) return texts.lastMonth;
  const month = new Intl.DateTimeFormat(language, { month: "long", year: "numeric" }).format(date);
  return month.charAt(0).toLocaleUpperCase(language) + month.slice(1);
}

