"""The embedded demo: drawn garments with four labels, blanks included, whose truth is known.

It mirrors the set that the original recipe was made for: 975 rows, of which three have no file, and
80, 91, 92 and 92 blanks on the other 972. Blanks are missing completely at random.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mlc_jax.data.garments import draw_garment
from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_json, write_text
from mlc_jax.files.digest import digest_file, digest_json
from mlc_jax.files.lock import exclusive

DEMO_VERSION = 1  # raise it whenever the same seed draws anything else
NAMES = ("sleeves", "collar", "stripes", "print")
ROWS = 975
ABSENT = (489, 624, 875)  # rows whose image does not exist, as in the original set
BLANKS = (80, 91, 92, 92)  # per label, on the 972 rows that have a file
# Labels are dealt in blocks of rows, each with this many positives: prevalence 0.88, 0.80, 0.52 and
# 0.08 for every seed, and a row's labels do not depend on how many rows follow.
BLOCK = 25
POSITIVES = (22, 20, 13, 2)
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Demo:
    """Where the demo lies.

    Attributes:
      labels: the labels file, with blanks.
      images: the image folder.
      truth: the labels file without blanks, for `mlc_jax.data.labels.read_labels`.
    """

    labels: Path
    images: Path
    truth: Path


def draw_demo(root: Path, *, seed: int = 0, rows: int = ROWS) -> Demo:
    """Draws the demo into `root`, or finds it there.

    A finished demo of the same version, seed and rows, with every file as it was drawn, is used as
    it is; an interrupted, damaged or older one is drawn again. Another process that draws the same
    root is waited for.

    Args:
      root: a folder of the demo's own; made when missing.
      seed: of labels, blanks and pictures.
      rows: of the labels file; absent files and blanks shrink in proportion.

    Raises:
      WorkdirError: `root` holds something that is no demo.
    """
    demo = Demo(labels=root / "labels.csv", images=root / "images", truth=root / "truth.csv")
    stamp, identity = root / "demo.json", {"version": DEMO_VERSION, "seed": seed, "rows": rows}

    def is_whole() -> bool:
        return stamp.exists() and _read_stamp(stamp) == identity | {"digest": _digest(demo)}

    if is_whole():  # read without a lock, so that its cache may be read-only
        return demo
    with exclusive(root / ".lock", wait=True):
        if is_whole():
            return demo
        if not stamp.exists() and any(not path.name.startswith(".") for path in root.iterdir()):
            raise WorkdirError(f"{root} holds files that are not the demo's; choose another folder")
        # The stamp is written first without a digest: it marks the folder as ours, so that what an
        # interrupted draw leaves may be removed, and as unfinished.
        write_json(stamp, identity)
        if demo.images.exists():
            shutil.rmtree(demo.images)
        demo.images.mkdir()
        truth = demo_labels(seed, rows)
        for row in _with_file(rows):
            _write_image(demo.images / _filename(row), seed, row, truth[row])
        write_text(demo.truth, _table(truth, np.zeros_like(truth)))
        write_text(demo.labels, _table(truth, demo_blanks(seed, rows)))
        write_json(stamp, identity | {"digest": _digest(demo)})
    return demo


def demo_labels(seed: int, rows: int) -> np.ndarray:
    """The true labels; bool [rows, 4]. Row i does not depend on `rows`."""
    rng = np.random.default_rng([seed, 0])
    deck = np.arange(BLOCK)[:, None] < np.array(POSITIVES)
    blocks = [rng.permuted(deck, axis=0) for _ in range(0, rows, BLOCK)]
    return np.concatenate(blocks)[:rows]


def demo_blanks(seed: int, rows: int) -> np.ndarray:
    """Which cells are blank in the labels file; bool [rows, 4]. Rows without a file have none."""
    rng = np.random.default_rng([seed, 1])
    usable = _with_file(rows)
    blanks = np.zeros((rows, len(NAMES)), bool)
    for column, count in enumerate(BLANKS):
        share = count / (ROWS - len(ABSENT))
        blanks[rng.choice(usable, round(share * len(usable)), replace=False), column] = True
    return blanks


def _with_file(rows: int) -> list[int]:
    return [row for row in range(rows) if row not in ABSENT]


def _filename(row: int) -> str:
    return f"image_{row}.jpg"


def _write_image(path: Path, seed: int, row: int, labels: np.ndarray) -> None:
    """Draws one image from a generator of its own, so that it does not depend on the others."""
    picture = draw_garment(np.random.default_rng([seed, 2, row]), labels)
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(encoded.tobytes())


def _table(labels: np.ndarray, blanks: np.ndarray) -> str:
    lines = [",".join(("filename", *NAMES))]
    for row, (values, hidden) in enumerate(zip(labels, blanks, strict=True)):
        cells = (
            "" if blank else str(int(value)) for value, blank in zip(values, hidden, strict=True)
        )
        lines.append(",".join((_filename(row), *cells)))
    return "\n".join(lines) + "\n"


def _read_stamp(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text())
    except ValueError:
        return None


def _digest(demo: Demo) -> str:
    """The digest of all files of a demo, whatever is there of them."""
    files = [demo.labels, demo.truth, *demo.images.glob("*")]
    return digest_json({path.name: digest_file(path) for path in files if path.is_file()})
