// The gallery: a box as high as all tiles together, in which only those in view exist.

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
