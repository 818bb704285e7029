// How elements are made. Nothing here knows what a chat is.

import { texts } from "./texts.js";

const SVG = "http://www.w3.org/2000/svg";

// Outlines on a field of 24 by 24.
const ICONS = {
  add: "M12 5v14M5 12h14",
  again: "M20 11a8 8 0 1 0-2.3 6.2M20 4v7h-7",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  down: "M12 5v14M6 13l6 6 6-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  export: "M12 4v11M7 10l5 5 5-5M5 20h14",
  keyboard: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M18 10h.01M8 14h8",
  menu: "M4 7h16M4 12h16M4 17h16",
  remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16.2 16.2L20 20",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
};

// Makes an element. Properties that are functions become listeners; children may be texts.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name in element && name !== "role") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

// A button that shows an icon alone: its name is there for those who point at it or listen.
export function iconButton(name, label, click) {
  return make("button", { type: "button", className: "quiet", title: label, "aria-label": label, click }, icon(name));
}

// Copies a text, also where the browser offers no clipboard because the page did not come over HTTPS.
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const holder = make("textarea", { value: text, className: "unseen", readOnly: true });
  const before = document.activeElement;
  document.body.append(holder);
  holder.select();
  const done = document.execCommand("copy");
  holder.remove();
  before?.focus();
  if (!done) throw new Error("nothing was copied");
}

// A button that copies what a function gives, and says whether it did.
export function copyButton(label, text) {
  let waiting = 0;
  const name = (icons, words) => {
    button.replaceChildren(icon(icons));
    button.title = words;
    button.setAttribute("aria-label", words);
  };
  const button = iconButton("copy", label, async () => {
    try {
      await copyText(text());
      name("check", texts.copied);
    } catch {
      name("close", texts.noCopy);
    }
    clearTimeout(waiting);
    waiting = setTimeout(name, 2000, "copy", label);
  });
  return button;
}

// Calls a function in the next frame; in a window that nobody sees, which has no frames, soon.
export function nextFrame(call) {
  let called = false;
  const once = () => {
    if (!called) call();
    called = true;
  };
  requestAnimationFrame(once);
  setTimeout(once, 250);
}
