// An answer on the page, drawn while it comes.
//
// Blocks that nothing can change any more are drawn once. The last one is drawn again as it grows, at most once in a
// frame, and the less often the longer that takes. All answers of the page together are drawn for a few milliseconds of
// each frame, so that the page stays fluent, also where 200 of them are shown at once: the newest come first.

import { make, nextFrame } from "./dom.js";
import { blocksOf, drawBlock } from "./markdown.js";

// Milliseconds of a frame.
const SLICE = 10;
// For each millisecond that it took to draw, so many pass before the same answer is drawn again.
const REST = 6;
const LONGEST_REST = 1_500;
// Characters that are read at once, if the first block is not longer.
const WINDOW = 8_000;
// Blocks that lie in one element. The browser lays out only those of a long answer that are in sight.
const PART = 40;

const waiting = new Set();
let planned = false;

function plan(drawing) {
  waiting.add(drawing);
  if (planned) return;
  planned = true;
  nextFrame(drawSome);
}

function drawSome() {
  planned = false;
  const end = performance.now() + SLICE;
  const hasTime = () => performance.now() < end;
  for (const drawing of [...waiting].reverse()) {
    if (!hasTime()) break;
    if (drawing.draw(hasTime)) waiting.delete(drawing);
  }
  if (waiting.size) plan(waiting.values().next().value);
}

export class Drawing {
  // Draws into an element. "drawn" is called after each time with the elements that are whole from then on, and with
  // those that may still change.
  constructor(body, drawn = () => {}) {
    this.body = body;
    this.drawn = drawn;
    this.text = "";
    this.ended = false;
    this.start = 0; // of the first block that is not whole
    this.open = []; // the elements of what comes from there on
    this.part = null; // the element that they are put into
    this.size = WINDOW; // characters from there on that are read
    this.work = null; // the blocks that were read, as long as they are not all on the page
    this.rest = 0; // the timer until it is drawn again
    this.done = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  add(text) {
    this.text += text.replaceAll("\r", "");
    if (!this.rest) plan(this);
  }

  // Says that no more comes. The promise that it gives is settled once all is on the page.
  end() {
    this.ended = true;
    plan(this);
    return this.done;
  }

  // Draws as much as there is time for. Gives whether that was all.
  draw(hasTime) {
    const began = performance.now();
    const fixed = [];
    const drawn = this.step(hasTime, fixed);
    this.drawn(fixed, this.open);
    if (!drawn) return false;
    const isMore = this.text.length > drawn.length || this.ended !== drawn.ended;
    if (this.ended) {
      if (!isMore) this.resolve();
      return !isMore;
    }
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      this.rest = 0;
      if (this.text.length > drawn.length) plan(this);
    }, Math.min(REST * (performance.now() - began), LONGEST_REST));
    return true;
  }

  // Gives what was read, once all of it is on the page. Each call brings something onto the page, or reads more.
  step(hasTime, fixed) {
    while (hasTime()) {
      const work = this.work ??= this.read();
      if (work.isAll || work.closed) {
        if (!this.fix(work, hasTime, fixed)) return null;
        if (work.isAll && !this.drawOpen(work, hasTime)) return null;
        this.size = WINDOW;
      } else {
        this.size *= 2;
      }
      this.work = null;
      if (work.isAll) return work;
    }
    return null;
  }

  read() {
    const { length } = this.text;
    const isAll = this.start + this.size >= length;
    const isLast = isAll && this.ended;
    const source = this.text.slice(this.start, this.start + this.size);
    const blocks = blocksOf(isLast || !isAll ? source : worthShowing(source));
    const closed = isLast ? blocks.length : closedIn(blocks, source);
    return { source, begin: this.start, blocks, next: 0, closed, isAll, length, ended: this.ended };
  }

  // Draws the blocks that nothing can change any more.
  fix(work, hasTime, fixed) {
    for (; work.next < work.closed; work.next += 1) {
      if (!hasTime()) return false;
      if (!this.drawAt(0, work.blocks[work.next], hasTime)) return false;
      fixed.push(this.open.shift());
      this.start = work.begin + offsetOf(work.source, work.blocks[work.next + 1]?.line);
    }
    return true;
  }

  drawOpen({ blocks, closed }, hasTime) {
    const open = blocks.slice(closed);
    for (const [place, block] of open.entries()) if (!this.drawAt(place, block, hasTime)) return false;
    for (const element of this.open.splice(open.length)) element.remove();
    return true;
  }

  drawAt(place, block, hasTime) {
    const { element, whole } = drawBlock(block, this.open[place], hasTime);
    this.put(element, place);
    return whole;
  }

  put(element, place) {
    const before = this.open[place];
    if (before === element) return;
    this.open[place] = element;
    if (before) {
      before.replaceWith(element);
      return;
    }
    if (!this.part || this.part.children.length >= PART) {
      this.part = make("div", { className: "part" });
      this.body.append(this.part);
    }
    this.part.append(element);
  }
}

// How many blocks are closed: those before the last one that begins with a whole line. What begins with less may turn
// out to be the next line of the block before.
function closedIn(blocks, source) {
  const lines = source.split("\n").length - 1;
  return Math.max(0, blocks.findLastIndex(({ line }) => line < lines));
}

function offsetOf(source, line) {
  if (line === undefined) return source.length;
  let offset = 0;
  for (let count = 0; count < line; count += 1) offset = source.indexOf("\n", offset) + 1;
  return offset;
}

// What a last line shows while it has nothing but marks would flash as a heading, a rule or a list, and the first line
// of a table as words with bars.
const MARKS_ALONE = /(^|\n)[ \t>]*([-=*+#_~|]+|`+[^`\n]*|\d{1,9}[.)]?)[ \t]*$/;
const TABLE_BEGINS = /(^|\n)\|[^\n]*(\n[ \t|:-]*)?$/;
const LINK_BEGINS = /\[([^\]\n]{0,300})\]\([^)\s]{0,2000}$/;

// Gives as much of an answer's end as can be shown already, with what is still open in it closed.
function worthShowing(source) {
  const paragraph = source.slice(source.lastIndexOf("\n\n") + 1);
  if (isInFence(source)) return source.replace(/\n[ \t>]*`{1,}$/, "\n");
  const table = TABLE_BEGINS.exec(paragraph);
  if (table && !/\n\|/.test(paragraph.slice(0, table.index))) {
    return source.slice(0, source.length - paragraph.length + table.index + table[1].length);
  }
  const held = source.replace(MARKS_ALONE, "$1");
  if (held !== source) return held;
  const words = source.replace(LINK_BEGINS, "$1");
  const open = paragraph.replace(/(`+)[^`]+\1/g, "");
  if (open.includes("`")) return open.endsWith("`") ? words.replace(/`+$/, "") : `${words}\``;
  if (open.split("**").length % 2) return words;
  return /\*\*$/.test(words) ? words.slice(0, -2) : `${words.trimEnd()}**`;
}

function isInFence(source) {
  let fence = "";
  for (const [, mark] of source.matchAll(/^[ \t>]*(?:[-*+][ \t]+|\d+[.)][ \t]+)?(`{3,}|~{3,})/gm)) {
    if (!fence) fence = mark;
    else if (mark.startsWith(fence)) fence = "";
  }
  return Boolean(fence);
}
