"use strict";
// The review page shows one cell at a time beside a gallery of all. Its script is four files, one
// after the other: what is decided and kept, the card, the gallery, and what the person does.
// All of it comes from two blocks of JSON in the page; no server is asked for anything.

const page = JSON.parse(document.getElementById("cells-json").textContent);
const thumbnails = JSON.parse(document.getElementById("thumbnails-json").textContent);

const SKIPPED = "s";
const REASONS = { suspect: "suspect", abstained: "left blank", filled: "filled in" };
const TILE = { width: 132, height: 150, gap: 10, spareRows: 2 };

const decisions = new Map(); // number of a cell to 0, 1 or SKIPPED; open cells are not in it
const past = []; // [number of a cell, what it was before], the latest last
let shown = []; // numbers of the cells that the filters let through, most useful first
let current = null; // number of the cell on the card; null when none is open
let unsaved = false;

const element = (id) => document.getElementById(id);
const labelOf = (cell) => page.labels[cell.label];
const imageOf = (cell) => page.images[cell.image];
const source = (image) => `data:image/jpeg;base64,${thumbnails[image]}`;

// A share to two places, but never as certain as 0 or 1.
function shareText(share) {
  if (share < 0.005) return "below 0.01";
  return share > 0.995 ? "above 0.99" : share.toFixed(2);
}

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- What the browser keeps. One entry per cell, so that a decision costs the same among ten
// thousand as among ten, and a page written anew for the same run finds them again.

let keeps = true;

function place(number) {
  const cell = page.cells[number];
  return `mlc_jax review ${page.run} ${JSON.stringify([imageOf(cell).name, labelOf(cell).name])}`;
}

function keep(number) {
  if (!keeps) return;
  try {
    if (decisions.has(number)) localStorage.setItem(place(number), String(decisions.get(number)));
    else localStorage.removeItem(place(number));
  } catch {
    stopKeeping();
  }
}

function recall() {
  try {
    page.cells.forEach((_, number) => {
      const kept = localStorage.getItem(place(number));
      if (kept === SKIPPED) decisions.set(number, SKIPPED);
      else if (kept === "0" || kept === "1") decisions.set(number, Number(kept));
    });
  } catch {
    stopKeeping();
  }
}

function stopKeeping() {
  keeps = false;
  element("not-kept").hidden = false;
}

// ---- Deciding

function decide(value) {
  if (current === null) return;
  past.push([current, decisions.get(current)]);
  set(current, value);
  show(nextOpen(current));
}

function undo() {
  if (!past.length) return;
  const [number, before] = past.pop();
  set(number, before);
  // An undone cell is shown even where the filters have changed since.
  show(number);
}

function set(number, value) {
  if (value === undefined) decisions.delete(number);
  else decisions.set(number, value);
  unsaved = true;
  element("saved").hidden = true;
  keep(number);
  dress(number);
  showProgress();
}

function nextOpen(number) {
  const from = shown.indexOf(number) + 1;
  for (let step = 0; step < shown.length; step++) {
    const candidate = shown[(from + step) % shown.length];
    if (!decisions.has(candidate)) return candidate;
  }
  return null;
}

function step(by) {
  if (!shown.length) return;
  const at = current === null ? (by > 0 ? -1 : shown.length) : shown.indexOf(current);
  show(shown[Math.min(shown.length - 1, Math.max(0, at + by))]);
}
