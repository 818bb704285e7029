// The end of a conversation stays in sight while it grows, unless one has scrolled up to read.

const box = document.getElementById("scroll");
const turns = document.getElementById("turns");
const button = document.getElementById("to-end");
// Pixels from the end that count as being there.
const NEAR = 40;

let isPinned = true;
let lastTop = 0;

function gap() {
  return box.scrollHeight - box.scrollTop - box.clientHeight;
}

export function toEnd() {
  isPinned = true;
  box.scrollTop = box.scrollHeight;
  button.hidden = true;
}

function scrolled() {
  // What is added moves the end away, but nobody up: that is done by a person.
  if (gap() < NEAR) isPinned = true;
  else if (box.scrollTop < lastTop) isPinned = false;
  lastTop = box.scrollTop;
  button.hidden = isPinned || gap() < NEAR;
}

function grown() {
  if (isPinned) box.scrollTop = box.scrollHeight;
  button.hidden = isPinned || gap() < NEAR;
}

box.addEventListener("scroll", scrolled, { passive: true });
button.addEventListener("click", () => {
  toEnd();
  document.getElementById("prompt").focus();
});
new ResizeObserver(grown).observe(turns);
new ResizeObserver(grown).observe(box);
