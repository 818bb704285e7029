// What the model writes becomes elements of the page here, and nowhere else.
//
// The model's words are hostile input. markdown-it shows HTML as text; links lead to the web and to mail, and images
// are links, because loading one tells somebody else what is read here. DOMPurify is the second wall, and the policy of
// the page the third. What would cost much is shown as it came: a little Markdown can't become very much HTML.

import { codeElement } from "./code.js";
import { make } from "./dom.js";
import { texts } from "./texts.js";
import { sanitized } from "./sanitizer.js";
import MarkdownIt from "./vendor/markdown-it.js";

// Characters of a block. One that has more is shown as it came.
const LONGEST_BLOCK = 120_000;
// Columns and cells of a table. It is none with more columns, and ends after so many cells.
const MOST_COLUMNS = 60;
const MOST_CELLS = 1_500;
// Characters of a paragraph, an item or a cell that may begin something, for which all that follows is searched. One
// that has more of them is text.
const MOST_MARKS = 1_000;
const MARK = /[[\]*_~`<]|:\/\//g;

// Blocks inside of others. What is deeper, the parser leaves out, so that such a block is shown as it came.
const DEEPEST = 40;

const parser = new MarkdownIt({ linkify: true, maxNesting: DEEPEST }).disable("reference");
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
parser.validateLink = mayBeLinked;
parser.core.ruler.at("inline", readWords);
parser.core.ruler.push("images", (state) => state.tokens.forEach(linkImages));

const { fn: readTable } = parser.block.ruler.__rules__.find(({ name }) => name === "table");
parser.block.ruler.at("table", readSmallTable, { alt: ["paragraph", "reference"] });

// Rows are filled up with empty cells, so a little text could become a large table.
function readSmallTable(state, line, endLine, silent) {
  const { src, bMarks, eMarks } = state;
  const columns = src.slice(bMarks[line + 1], eMarks[line + 1]).split("|").length;
  if (columns > MOST_COLUMNS) return false;
  return readTable(state, line, Math.min(endLine, line + 2 + Math.floor(MOST_CELLS / columns)), silent);
}

// Without a host an address would be a place of this site.
function mayBeLinked(url) {
  return /^(https?:\/\/[^/?#\\]|mailto:[^/])/i.test(url) && URL.canParse(url);
}

function readWords(state) {
  for (const token of state.tokens) {
    if (token.type !== "inline") continue;
    token.children = [];
    const isCostly = token.content.match(MARK)?.length > MOST_MARKS;
    if (isCostly) token.children.push(textToken(token, token.content, "text_special"));
    else state.md.inline.parse(token.content, state.md, state.env, token.children);
  }
}

// In a text of the other type, "text_special", no links are looked for.
function textToken({ constructor: Token }, content, type = "text") {
  return Object.assign(new Token(type, "", 0), { content });
}

// Puts a link in the place of each image, or its words alone inside of another link.
function linkImages(block) {
  let depth = 0;
  block.children = block.children?.flatMap((token) => {
    if (token.type === "link_open") depth += 1;
    if (token.type === "link_close") depth -= 1;
    if (token.type !== "image") return [token];
    const text = textToken(token, token.content || token.attrGet("src"));
    if (depth) return [text];
    const open = new token.constructor("link_open", "a", 1);
    open.attrSet("href", token.attrGet("src"));
    return [open, text, new token.constructor("link_close", "a", -1)];
  });
}

parser.renderer.rules.link_open = (tokens, index, options, env, renderer) => {
  tokens[index].attrSet("rel", "noopener noreferrer nofollow");
  tokens[index].attrSet("target", "_blank");
  return renderer.renderToken(tokens, index, options);
};

// The page has headings of its own above those of an answer.
parser.renderer.rules.heading_open = parser.renderer.rules.heading_close = (tokens, index) => {
  const level = Math.min(6, Number(tokens[index].tag[1]) + 2);
  return tokens[index].nesting === 1 ? `<h${level}>` : `</h${level}>\n`;
};

// The policy of the page lets no style in, so the alignment of a column is a class.
parser.renderer.rules.th_open = parser.renderer.rules.td_open = (tokens, index, options, env, renderer) => {
  const style = tokens[index].attrGet("style");
  if (style) tokens[index].attrs = [["class", style.replace("text-align:", "")]];
  return renderer.renderToken(tokens, index, options);
};

// Gives the blocks of a text: of each the line where it begins, its tokens, and the text that it came from.
export function blocksOf(text) {
  const lines = text.split("\n");
  if (text.length > 2 * LONGEST_BLOCK) return [{ line: 0, tokens: [], source: text }];
  const blocks = [];
  for (const token of parser.parse(text, {})) {
    if (token.level === 0 && token.nesting >= 0) blocks.push({ line: token.map[0], tokens: [] });
    blocks.at(-1).tokens.push(token);
  }
  blocks.forEach((block, place) => {
    block.source = lines.slice(block.line, blocks[place + 1]?.line).join("\n");
  });
  return blocks;
}

// What was made of elements, so that what has not changed can stay: the HTML of one, or of each item of a list.
const htmlOf = new WeakMap();

// Draws a block, on the element that it had when it was shorter, and gives its element. What is on the page already
// stays as it is. Once there is no more time, "whole" is false, and the rest has to be drawn another time.
export function drawBlock(block, earlier, hasTime) {
  const { tokens: [first], source } = block;
  const isDeep = block.tokens.some(({ level }) => level >= DEEPEST - 1);
  if (isDeep || source.length > LONGEST_BLOCK) return { element: plain(source, earlier), whole: true };
  if (first.type === "fence") return { element: codeElement(first.content, first.info, earlier), whole: true };
  if (first.type === "code_block") return { element: codeElement(first.content, "", earlier), whole: true };
  if (first.type.endsWith("list_open")) return drawList(block, earlier, hasTime);
  const html = render(block.tokens);
  return { element: htmlOf.get(earlier) === html ? earlier : elementFrom(html), whole: true };
}

function plain(source, earlier) {
  const element = earlier?.classList.contains("plain") ? earlier : make("p", { className: "plain" });
  if (element.textContent !== source) element.textContent = source;
  return element;
}

// Draws the items of a list that are not on the page as they are. A block that was begun goes on where it was.
function drawList(block, earlier, hasTime) {
  const [{ tag, attrs }] = block.tokens;
  const list = earlier?.localName === tag && !htmlOf.has(earlier) ? earlier : make(tag);
  if (attrs) list.start = attrs[0][1];
  block.items ??= itemsOf(block.tokens);
  block.drawn ??= 0;
  for (; block.drawn < block.items.length; block.drawn += 1) {
    const before = list.children[block.drawn];
    const html = render(block.items[block.drawn]);
    if (htmlOf.get(before) === html) continue;
    if (!hasTime()) return { element: list, whole: false };
    if (before) before.replaceWith(elementFrom(html));
    else list.append(elementFrom(html));
  }
  while (list.children.length > block.items.length) list.lastChild.remove();
  return { element: list, whole: true };
}

function itemsOf(tokens) {
  const items = [];
  for (const token of tokens.slice(1, -1)) {
    if (token.level === 1 && token.nesting === 1) items.push([]);
    items.at(-1).push(token);
  }
  return items;
}

function render(tokens) {
  return parser.renderer.render(tokens, parser.options, {});
}

function elementFrom(html) {
  const fragment = sanitized(html);
  for (const code of fragment.querySelectorAll("pre > code")) {
    code.parentElement.replaceWith(codeElement(code.textContent, code.className.replace("language-", "")));
  }
  for (const table of fragment.querySelectorAll("table")) {
    const box = make("div", { className: "table", tabIndex: 0, role: "region", "aria-label": texts.table });
    table.replaceWith(box);
    box.append(table);
  }
  const element = fragment.firstElementChild;
  htmlOf.set(element, html);
  return element;
}
