// The page as a whole: its buttons, its keys, and what it keeps in the browser.

import { Conversation } from "./conversation.js";
import { icon, make } from "./dom.js";
import { get, responses, settings } from "./server.js";
import { Sidebar } from "./sidebar.js";
import { texts } from "./texts.js";

const THEMES = ["auto", "light", "dark"];

const byId = (id) => document.getElementById(id);
const [form, prompt, send, stop, select, body, shade, shortcuts] =
  ["form", "prompt", "send", "stop", "model", "sidebar", "shade", "shortcuts"].map(byId);
const isPhone = matchMedia("(max-width: 48rem)");
const isTouched = matchMedia("(pointer: coarse)");

// The words and icons of what stands in the HTML.
for (const element of document.querySelectorAll("[data-icon]")) element.append(icon(element.dataset.icon));
for (const element of document.querySelectorAll("[data-text]")) element.append(texts[element.dataset.text]);
for (const element of document.querySelectorAll("[data-placeholder]")) {
  element.placeholder = texts[element.dataset.placeholder];
}
for (const element of document.querySelectorAll("[data-label]")) {
  element.setAttribute("aria-label", texts[element.dataset.label]);
  if (element.localName === "button") element.title = texts[element.dataset.label];
}
byId("suggestions").append(...texts.suggested.map(([title, question]) => make(
  "li",
  {},
  make("button", { type: "button", click: () => ask(question) }, make("b", {}, title), make("span", {}, question)),
)));
byId("keys").append(...texts.keys.flatMap(([keys, meaning]) => [
  make("dt", {}, ...keys.split(" ").map((key) => make("kbd", {}, key))),
  make("dd", {}, meaning),
]));

const conversation = new Conversation({
  model: () => select.value,
  changed: () => {
    send.hidden = Boolean(conversation?.answering);
    stop.hidden = !conversation?.answering;
    byId("export").hidden = !conversation?.turns.length;
  },
  begun: (name, question) => sidebar.begin(name, question),
  returned: (question) => {
    prompt.value ||= question;
  },
  gone: (name) => {
    sidebar.begun.delete(name);
    reload();
  },
});

const sidebar = new Sidebar({
  current: () => conversation.name,
  gone: () => begin(),
  changed: () => {
    const title = sidebar.titleOf(conversation.name);
    byId("title").textContent = title || texts.chat;
    document.title = title ? `${title} – ${texts.chat}` : texts.chat;
  },
  failed: (error) => conversation.tell(error),
});

function nameInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

async function show() {
  const shown = conversation.show(nameInAddress());
  sidebar.draw();
  openSidebar(false);
  focusPrompt();
  await shown;
}

function begin() {
  history.pushState(null, "", location.pathname + location.search);
  show();
}

// On a phone the keyboard would cover half of the page.
function focusPrompt() {
  if (!isTouched.matches) prompt.focus();
}

function ask(question) {
  conversation.ask(question);
}

responses.addEventListener("over", reload);

function reload() {
  sidebar.load().catch(() => {}); // the next time will do
}

function openSidebar(isOpen) {
  const isDrawer = isPhone.matches;
  document.documentElement.classList.toggle("drawer", isOpen && isDrawer);
  byId("open-sidebar").setAttribute("aria-expanded", String(isOpen && isDrawer));
  shade.hidden = !(isOpen && isDrawer);
  document.querySelector("main").inert = isOpen && isDrawer;
}

function closeSidebar() {
  openSidebar(false);
  byId("open-sidebar").focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = prompt.value.trim();
  if (!question || conversation.answering) return;
  prompt.value = "";
  focusPrompt();
  ask(question);
});

prompt.addEventListener("keydown", (event) => {
  if (event.key === "ArrowUp" && !prompt.value && !conversation.answering) {
    event.preventDefault();
    conversation.editLast();
  }
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

stop.addEventListener("click", () => {
  conversation.stop();
  prompt.focus();
});

byId("new").addEventListener("click", begin);
byId("open-sidebar").addEventListener("click", () => {
  openSidebar(true);
  byId("close-sidebar").focus();
});
byId("close-sidebar").addEventListener("click", closeSidebar);
shade.addEventListener("click", closeSidebar);
body.addEventListener("click", (event) => {
  if (event.target.closest("a")) openSidebar(false);
});
isPhone.addEventListener("change", () => openSidebar(false));
addEventListener("popstate", () => {
  if (nameInAddress() !== conversation.name) show();
});

// The keys. Each single one works only where nothing is typed.

function showShortcuts() {
  if (!shortcuts.open) shortcuts.showModal();
}

const WITH_CTRL = {
  k: () => {
    openSidebar(true);
    byId("search").focus();
  },
  "/": showShortcuts,
};

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("textarea, input, select");
  const key = event.key.toLowerCase();
  const withCtrl = (event.ctrlKey || event.metaKey) && !event.altKey;
  let action = null;
  if (shortcuts.open) return;
  if (key === "escape" && event.shiftKey) action = () => prompt.focus();
  else if (key === "escape" && !shade.hidden) action = closeSidebar;
  else if (key === "escape" && conversation.answering) action = () => conversation.stop();
  else if (withCtrl && event.shiftKey && key === "o") action = begin;
  else if (withCtrl && !event.shiftKey) action = WITH_CTRL[key];
  else if (key === "?" && !isTyping) action = showShortcuts;
  if (!action) return;
  event.preventDefault();
  action();
});

byId("keyboard").addEventListener("click", showShortcuts);
byId("close-shortcuts").addEventListener("click", () => shortcuts.close());
shortcuts.addEventListener("click", (event) => {
  if (event.target === shortcuts) shortcuts.close();
});

// What the browser keeps, if it does.

function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // It is as it was the next time.
  }
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").title = texts.theme[theme];
  byId("theme").setAttribute("aria-label", texts.theme[theme]);
}

function themeNow() {
  return document.documentElement.dataset.theme ?? "auto";
}

byId("theme").addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(themeNow()) + 1) % THEMES.length];
  setTheme(theme);
  keep("theme", theme);
});
setTheme(themeNow());

async function listModels() {
  const { models } = await get("models");
  const standard = models.find(({ id }) => id === settings.default_model);
  const others = models.filter((model) => model !== standard);
  select.replaceChildren(
    make("option", { value: "" }, standard?.name ?? texts.defaultModel),
    ...others.map(({ id, name }) => make("option", { value: id }, name || id)),
  );
  const model = kept("model");
  if (others.some(({ id }) => id === model)) select.value = model;
  select.hidden = others.length === 0;
}

select.addEventListener("change", () => keep("model", select.value));

byId("export").addEventListener("click", () => {
  const title = sidebar.titleOf(conversation.name) || texts.chat;
  const url = URL.createObjectURL(new Blob([conversation.toMarkdown(title)], { type: "text/markdown" }));
  const name = title.replace(/[^\p{L}\p{N} ._-]+/gu, "").trim().slice(0, 60) || texts.chat;
  make("a", { href: url, download: `${name}.md` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
});

// A page that the browser keeps for the back button keeps its answer as well, so nothing is ended here unless nobody
// should pay for an answer that is not read.
if (settings.stop_on_leave) addEventListener("pagehide", () => conversation.stop({ keepalive: true }));

show();
sidebar.load().catch((error) => conversation.tell(error));
listModels().catch(() => {}); // the default one will do
