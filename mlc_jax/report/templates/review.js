"use strict";
// Shows one cell at a time beside a gallery of all, keeps what the person decides, and saves it.
// Everything it shows comes from two blocks of JSON in the page; it asks no server for anything.

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

// ---- The card

function show(number) {
  const before = current;
  current = number;
  if (before !== null) dress(before);
  element("card").hidden = element("evidence").hidden = number === null;
  element("done").hidden = number !== null;
  for (const id of ["yes", "no", "skip"]) element(id).disabled = number === null;
  if (number === null) {
    element("done-text").textContent = shown.length
      ? `All ${shown.length} cells that the filters show are looked at. Save your decisions.`
      : "The filters show no cell.";
    return;
  }
  const cell = page.cells[number];
  const label = labelOf(cell);
  const image = imageOf(cell);
  element("picture").src = source(cell.image);
  element("picture").alt = `The picture ${image.name}`;
  element("card").style.setProperty("--ratio", image.width / image.height);
  element("evidence").style.setProperty("--ratio", image.width / image.height);
  element("reason").textContent = REASONS[cell.reason];
  element("reason").className = `badge ${cell.reason}`;
  element("rank").textContent = `${number + 1} of ${page.cells.length}`;
  element("filename").textContent = image.name;
  element("label").textContent = label.name;
  element("state").textContent = stateOf(cell, decisions.get(number));
  element("unlearnable").hidden = label.learnable;
  element("unlearnable").textContent = label.learnable ? "" : `Not learnable: ${label.verdict}.`;
  showProbability(cell);
  showHeat(cell, label);
  showNeighbours(cell);
  dress(number);
  reveal(number);
}

function stateOf(cell, decision) {
  const value = {
    suspect: `A person gave ${cell.value}; the model disagrees.`,
    abstained: "No value was filled in.",
    filled: `The model filled in ${cell.value}.`,
  }[cell.reason];
  if (decision === undefined) return value;
  return `${value} You ${decision === SKIPPED ? "skipped it" : `decided ${decision}`}.`;
}

function showProbability(cell) {
  const known = cell.probability !== null;
  element("scale").hidden = !known;
  element("figures").textContent = known
    ? `Probability of 1: ${shareText(cell.probability)}, threshold ${cell.threshold.toFixed(2)}. ` +
      `Probability that the ${cell.value < 0 ? "better guess" : "value"} is wrong: ${shareText(cell.error)}.`
    : "No model speaks of this label.";
  if (!known) return;
  element("scale-bar").style.width = `${100 * cell.probability}%`;
  element("scale-mark").style.left = `${100 * cell.threshold}%`;
}

function showNeighbours(cell) {
  element("neighbours").hidden = !cell.neighbours.length;
  element("neighbour-list").replaceChildren(
    ...cell.neighbours.map(([image, value]) => {
      const item = make("li", `neighbour is-${value}`);
      const picture = make("img");
      picture.src = source(image);
      picture.alt = `${page.images[image].name}, which a person gave ${value}`;
      item.append(picture, make("b", "value", String(value)));
      item.title = page.images[image].name;
      return item;
    }),
  );
}

function showHeat(cell, label) {
  const map = cell.map === null ? null : page.maps[cell.map];
  const large = element("heat-switch").getAttribute("aria-pressed") === "true";
  element("heat-part").hidden = map === null;
  element("heat-large").hidden = map === null || !large;
  if (map === null) return;
  element("heat-picture").src = source(cell.image);
  for (const canvas of [element("heat"), element("heat-large")]) {
    drawHeat(canvas, map);
    canvas.setAttribute("aria-label", `Heat map: what speaks most for “${label.name}” is ${peak(map)}`);
  }
}

// A grid of evidence, row by row in hundredths, is drawn a pixel per place; the browser smooths it.
function drawHeat(canvas, map) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(map.width, map.height);
  map.values.forEach((hundredths, at) => {
    const colour = hundredths > 0 ? [255, 120, 0] : [0, 90, 255];
    pixels.data.set([...colour, Math.round(2 * Math.abs(hundredths))], 4 * at);
  });
  context.putImageData(pixels, 0, 0);
}

function peak(map) {
  const at = map.values.indexOf(Math.max(...map.values));
  const third = (place, size) => Math.floor((3 * (place + 0.5)) / size);
  const down = ["at the top", "half-way down", "at the bottom"];
  const across = ["left", "middle", "right"];
  return `${down[third(Math.floor(at / map.width), map.height)]}, ` +
    `${across[third(at % map.width, map.width)]}`;
}

function switchHeat() {
  const button = element("heat-switch");
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  if (current !== null) show(current);
}

// ---- The gallery: a box as high as all tiles together, in which only those in view exist.

const tiles = new Map(); // number of a cell to its tile

function columns() {
  const room = element("tiles").clientWidth + TILE.gap;
  return Math.max(1, Math.floor(room / (TILE.width + TILE.gap)));
}

function layOut() {
  const across = columns();
  const pitch = TILE.height + TILE.gap;
  const box = element("tiles");
  box.style.height = `${Math.ceil(shown.length / across) * pitch}px`;
  const top = box.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / pitch) - TILE.spareRows);
  const last = Math.ceil((window.innerHeight - top) / pitch) + TILE.spareRows;
  const wanted = new Set(shown.slice(first * across, Math.max(0, last * across)));
  for (const [number, tile] of tiles) {
    if (wanted.has(number)) continue;
    tile.remove();
    tiles.delete(number);
  }
  const width = (box.clientWidth + TILE.gap) / across - TILE.gap;
  let at = first * across;
  let after = null;
  for (const number of wanted) {
    let tile = tiles.get(number);
    if (!tile) {
      tile = makeTile(number);
      tiles.set(number, tile);
    }
    tile.style.transform =
      `translate(${(at % across) * (width + TILE.gap)}px, ${Math.floor(at / across) * pitch}px)`;
    tile.style.width = `${width}px`;
    // In the order of the cells, so that the tab key goes through them in that order.
    const beside = after ? after.nextSibling : box.firstChild;
    if (beside !== tile) box.insertBefore(tile, beside);
    after = tile;
    at += 1;
  }
}

function makeTile(number) {
  const cell = page.cells[number];
  const tile = make("button", "tile");
  tile.type = "button";
  tile.dataset.cell = number;
  const picture = make("img");
  picture.src = source(cell.image);
  picture.alt = "";
  const line = make("span", "line");
  line.append(make("span", "name", labelOf(cell).name), make("b", "value"));
  const low = make("span", "line quiet", REASONS[cell.reason] + (cell.value < 0 ? "" : ` ${cell.value}`));
  low.append(make("span", "", cell.probability === null ? "" : `p ${cell.probability.toFixed(2)}`));
  tile.append(picture, line, low);
  tile.addEventListener("click", () => {
    show(number);
    element("card").scrollIntoView({ block: "nearest" });
  });
  tiles.set(number, tile);
  dress(number);
  return tile;
}

// Brings a tile up to what was decided about its cell.
function dress(number) {
  const tile = tiles.get(number);
  if (!tile) return;
  const cell = page.cells[number];
  const decision = decisions.get(number);
  const value = decision === undefined ? "" : decision === SKIPPED ? "–" : String(decision);
  tile.querySelector("b").textContent = value;
  tile.className = `tile ${cell.reason}${value ? ` is-${decision}` : ""}`;
  if (number === current) tile.setAttribute("aria-current", "true");
  else tile.removeAttribute("aria-current");
  tile.setAttribute(
    "aria-label",
    `${labelOf(cell).name}, ${imageOf(cell).name}. ${stateOf(cell, decision)}`,
  );
}

// Scrolls to the tile of the card's cell where the gallery lies beside the card.
function reveal(number) {
  const at = shown.indexOf(number);
  if (at < 0 || !window.matchMedia("(min-width: 60rem)").matches) return;
  const top = element("tiles").getBoundingClientRect().top;
  const y = top + Math.floor(at / columns()) * (TILE.height + TILE.gap);
  if (y < 120) window.scrollBy(0, y - 120);
  else if (y + TILE.height > window.innerHeight) window.scrollBy(0, y + TILE.height + 20 - window.innerHeight);
}

// ---- Filters, progress, saving

function filter() {
  const label = element("by-label").value;
  const reason = element("by-reason").value;
  const state = element("by-state").value;
  shown = [];
  page.cells.forEach((cell, number) => {
    if (label !== "" && cell.label !== Number(label)) return;
    if (reason !== "" && cell.reason !== reason) return;
    if (state !== "" && (state === "open") === decisions.has(number)) return;
    shown.push(number);
  });
  element("count").textContent = `${shown.length} of ${page.cells.length} cells`;
  layOut();
  const stays = current !== null && shown.includes(current);
  show(stays ? current : (nextOpen(null) ?? shown[0] ?? null));
}

function showProgress() {
  let skipped = 0;
  for (const value of decisions.values()) if (value === SKIPPED) skipped += 1;
  const decided = decisions.size - skipped;
  element("progress").value = decisions.size;
  element("progress-text").textContent =
    `${decided} of ${page.cells.length} decided` + (skipped ? `, ${skipped} skipped` : "");
  element("undo").disabled = !past.length;
  element("save").disabled = !decided;
}

function save() {
  const saved = [...decisions]
    .sort(([one], [other]) => one - other)
    .map(([number, value]) => ({
      filename: imageOf(page.cells[number]).name,
      label: labelOf(page.cells[number]).name,
      value: value === SKIPPED ? null : value,
    }));
  const text = JSON.stringify(
    { format: page.format, version: page.version, run: page.run, decisions: saved },
    null,
    1,
  );
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = page.saved_as;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  unsaved = false;
  element("saved").hidden = false;
}

function addOptions(select, entries) {
  for (const [value, text] of entries) {
    const option = make("option", "", text);
    option.value = value;
    select.append(option);
  }
}

const KEYS = {
  1: () => decide(1),
  0: () => decide(0),
  s: () => decide(SKIPPED),
  " ": () => decide(SKIPPED),
  u: undo,
  Backspace: undo,
  h: switchHeat,
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.target.closest("select")) return;
  // A space on a button or a switch presses it, as everywhere.
  if (event.key === " " && event.target.closest("button, input, summary")) return;
  event.preventDefault();
  // A key that is held down goes through the cells, but decides one only.
  if (!event.repeat || event.key.startsWith("Arrow")) act();
}

// A list that has the focus takes the keys. Who chose with a pointer wants them for deciding; who
// chose with keys may be on the way to another entry.
let typed = false;

function onFilter(event) {
  filter();
  if (!typed) event.target.blur();
}

function begin() {
  const count = (test) => page.cells.filter(test).length;
  addOptions(
    element("by-label"),
    page.labels
      .map((label, number) => [number, label.name, count((cell) => cell.label === number)])
      .filter(([, , cells]) => cells)
      .map(([number, name, cells]) => [number, `${name} (${cells})`]),
  );
  addOptions(
    element("by-reason"),
    Object.entries(REASONS)
      .map(([reason, text]) => [reason, text, count((cell) => cell.reason === reason)])
      .filter(([, , cells]) => cells)
      .map(([reason, text, cells]) => [reason, `${text} (${cells})`]),
  );
  recall();
  element("progress").max = Math.max(1, page.cells.length);
  for (const id of ["by-label", "by-reason", "by-state"]) {
    element(id).addEventListener("mousedown", () => (typed = false));
    element(id).addEventListener("keydown", () => (typed = true));
    element(id).addEventListener("change", onFilter);
  }
  element("heat-switch").addEventListener("click", switchHeat);
  element("yes").addEventListener("click", () => decide(1));
  element("no").addEventListener("click", () => decide(0));
  element("skip").addEventListener("click", () => decide(SKIPPED));
  element("undo").addEventListener("click", undo);
  element("save").addEventListener("click", save);
  document.addEventListener("keydown", onKey);
  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      layOut();
    });
  };
  window.addEventListener("scroll", later, { passive: true });
  window.addEventListener("resize", later);
  window.addEventListener("beforeunload", (event) => {
    if (!keeps && unsaved) event.preventDefault();
  });
  showProgress();
  filter();
  performance.mark("shown");
}

begin();
