// What is read out to those who listen: whole sentences, each once, and not every piece of an answer as it comes.

import { texts } from "./texts.js";

const region = document.getElementById("speech");
const SENTENCE_ENDS = /[.!?…](?=["»”’)\]]*\s)|\n/g;
// Sentences that stay in the region. Those that are read are taken out.
const MOST_KEPT = 8;

export function say(text) {
  const words = text.trim();
  if (!words) return;
  const paragraph = document.createElement("p");
  paragraph.textContent = words;
  region.append(paragraph);
  while (region.children.length > MOST_KEPT) region.firstChild.remove();
}

// Follows an answer as it is drawn.
export class Reader {
  constructor() {
    this.said = 0; // characters of the block that comes
  }

  // To be called with the elements that are whole, and with those that may still change.
  read(fixed, [open]) {
    for (const element of fixed) {
      say(wordsOf(element).slice(this.said));
      this.said = 0;
    }
    if (!open || open.matches(".code, .table")) return;
    const words = wordsOf(open);
    const end = [...words.matchAll(SENTENCE_ENDS)].at(-1)?.index ?? -1;
    if (end < this.said) return;
    say(words.slice(this.said, end + 1));
    this.said = end + 1;
  }
}

function wordsOf(element) {
  if (element.matches(".code")) return texts.codeSpoken(element.getAttribute("aria-label"));
  if (element.matches(".table")) return texts.tableSpoken;
  return element.textContent;
}
