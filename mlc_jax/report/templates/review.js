// Filters, progress, saving, keys; and the start of it all.

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
