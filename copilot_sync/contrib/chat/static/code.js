// Code in an answer: coloured, with its language and a button that copies it. It grows while the answer comes.

import { copyButton, make } from "./dom.js";
import { texts } from "./texts.js";
import { sanitized } from "./sanitizer.js";
import hljs from "./vendor/highlight.js";

// Characters that are coloured, and of a line in them. What comes after is code as well, without colours.
const MOST_COLOURED = 20_000;
const LONGEST_LINE = 2_000;

// The state of a code's element: { language, coloured, rest }.
const states = new WeakMap();

// Gives the element for code, on the one that it had when it was shorter.
export function codeElement(text, info, earlier) {
  const language = info.trim().split(/\s/)[0].slice(0, 30);
  const element = states.get(earlier)?.language === language ? earlier : newElement(language);
  const state = states.get(element);
  const { coloured, rest } = divided(text);
  if (state.text === text) return element;
  if (state.coloured !== coloured) {
    state.code.replaceChildren(...colour(coloured, language), new Text(rest));
  } else if (rest.startsWith(state.rest)) {
    state.code.lastChild.appendData(rest.slice(state.rest.length));
  } else {
    state.code.lastChild.data = rest;
  }
  Object.assign(state, { text, coloured, rest });
  return element;
}

function newElement(language) {
  const code = make("code");
  const name = make("span", { className: "language" }, language || texts.code);
  const copy = copyButton(texts.copyCode, () => states.get(element).text);
  const element = make(
    "figure",
    { className: "code", role: "group", "aria-label": language || texts.code },
    make("div", { className: "bar" }, name, copy),
    make("pre", { tabIndex: 0, role: "region", "aria-label": language || texts.code }, code),
  );
  states.set(element, { language, code, text: null, coloured: null, rest: "" });
  return element;
}

// Whole lines are coloured: those that are neither too long nor too late.
function divided(text) {
  let end = 0;
  for (;;) {
    const next = text.indexOf("\n", end);
    const after = next < 0 ? text.length : next + 1;
    if (after > MOST_COLOURED || after - end > LONGEST_LINE) break;
    end = after;
    if (next < 0) break;
  }
  return { coloured: text.slice(0, end), rest: text.slice(end) };
}

function colour(text, language) {
  if (!text || !hljs.getLanguage(language)) return [new Text(text)];
  return [...sanitized(hljs.highlight(text, { language, ignoreIllegals: true }).value).childNodes];
}
