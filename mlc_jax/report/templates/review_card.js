// The card: one cell with its picture, what the model says of it, and why.

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
