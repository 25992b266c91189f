"""Images that are copies of one another, to the byte or nearly so: they must share a fold.

Near copies (the same scene a moment later, a crop, another compression) are found by their frozen
features, which know nothing of labels or folds. Copies of copies go together: a chain of frames is
one group, however long it is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from mlc_jax.data.folds import groups_of_copies
from mlc_jax.errors import CheckpointError
from mlc_jax.files.atomic import replacing
from mlc_jax.files.digest import digest_file

_ROWS, _COLUMNS = 1024, 8192  # of the products that are compared at a time: 32 MB


@dataclass(frozen=True)
class Copies:
    """Which images are copies of one another.

    Attributes:
      of_image: int64 [N], equal for copies, and for copies of copies.
      exact: how many images are byte-identical to an earlier one.
      near: int64 [P, 2], pairs of rows that are near copies and not exact ones: as many as are
        needed to tie the groups together, P < N, not every pair inside a group.
      note: what was found, for people.
    """

    of_image: np.ndarray
    exact: int
    near: np.ndarray
    note: str


def group_images(digests: tuple[str, ...], features: np.ndarray, similarity: float) -> Copies:
    """Finds exact and near copies.

    A group is never given up because it is large: features that cannot tell images apart make one
    group of all of them, and folds are then impossible, which is an error and not a leak.

    Args:
      digests: content digests, one per image.
      features: float [N, C], one vector per image.
      similarity: cosine of the standardised features from which two images are near copies; above 1
        to leave near copies alone. On photographs of scenes every pair at 0.9 or more that was
        looked at was the same scene.
    """
    exact_groups = groups_of_copies(digests)
    exact = len(digests) - int(exact_groups.max(initial=-1)) - 1
    told = f"{exact} images are exact copies of others"
    if similarity > 1:
        return Copies(exact_groups, exact, np.zeros((0, 2), np.int64), f"{told}; near ones ignored")
    # Exact copies have equal features: the first of each stands for all.
    first = np.unique(exact_groups, return_index=True)[1]
    component, pairs = components_of_alike(standardised(features[first]), similarity)
    note = f"{told}, {len(pairs)} are nearly so"
    return Copies(component[exact_groups], exact, first[pairs], note)


def standardised(features: np.ndarray) -> np.ndarray:
    """Features as float32 [N, C] with mean 0 and variance 1 per channel, then length 1 per row."""
    return _units(features, *_statistics(features))


def _statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, float32 [C] each."""
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean, np.maximum((features.astype(np.float32) - mean).std(axis=0), 1e-6)


def _units(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    standard = (features.astype(np.float32) - mean) / std
    standard /= np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-6)
    return standard


@dataclass(frozen=True, eq=False)
class SeenImages:
    """Features of the images that a classifier was fitted on, by which it knows them again.

    Attributes:
      units: float16 [M, C], standardised, of length 1.
      mean, std: float32 [C], by which they were standardised.
    """

    units: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @staticmethod
    def of(features: np.ndarray, rows: np.ndarray) -> "SeenImages":
        """Those of the given rows, int [M], of features [N, C]; standardised as all of these."""
        mean, std = _statistics(features)
        return SeenImages(_units(features[rows], mean, std).astype(np.float16), mean, std)

    def near(self, features: np.ndarray, similarity: float) -> np.ndarray:
        """Which images, by features float [n, C], are near copies of a seen one; bool [n]."""
        units, seen = _units(features, self.mean, self.std), np.zeros(len(features), np.bool_)
        for start in range(0, len(self.units), _COLUMNS):
            some = self.units[start : start + _COLUMNS].astype(np.float32)
            for top in range(0, len(units), _ROWS):
                alike = units[top : top + _ROWS] @ some.T >= similarity
                seen[top : top + _ROWS] |= alike.any(axis=1)
        return seen

    def write(self, path: Path) -> str:
        """Writes a file, atomic; its digest."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, units=self.units, mean=self.mean, std=self.std)
        return digest_file(path)

    @staticmethod
    def read(path: Path, digest: str) -> "SeenImages":
        """Reads what `write` wrote.

        Raises:
          CheckpointError: it is missing, or not the file of that digest.
        """
        try:
            if digest_file(path) == digest:
                with np.load(path, allow_pickle=False) as held:
                    return SeenImages(held["units"], held["mean"], held["std"])
        except (OSError, ValueError, KeyError):
            pass
        raise CheckpointError(
            f"{path} is missing or damaged: put the former one back, or train again"
        )


def components_of_alike(units: np.ndarray, similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of the graph whose edges are the pairs of at least that cosine.

    Cosines are compared block by block, and of a block only pairs that still lie in two components
    are looked at, one for each row on one side (Borůvka, 1926): a component of k rows costs k - 1
    pairs, not the square of k. Beside the products, time and memory are linear in N.

    Args:
      units: float32 [N, C], rows of length 1.
      similarity: the least cosine of an edge.

    Returns:
      (int64 [N], the component of each row, numbered from 0 in order of first appearance;
      int64 [P, 2], edges i < j that tie the components together, a spanning forest, in order).
    """
    component = np.arange(len(units))
    pairs: list[tuple[int, int]] = []
    for top in range(0, len(units), _ROWS):
        rows = np.arange(top, min(top + _ROWS, len(units)))
        # Only what lies on and to the right of the block's diagonal: every pair once.
        for left in range(top, len(units), _COLUMNS):
            columns = np.arange(left, min(left + _COLUMNS, len(units)))
            alike = units[rows] @ units[columns].T >= similarity
            used_rows, used_columns = alike.any(axis=1), alike.any(axis=0)
            alike = alike[used_rows][:, used_columns]
            pairs += _joined(component, alike, rows[used_rows], columns[used_columns])
    numbers = np.unique(component, return_inverse=True)[1].astype(np.int64)
    return numbers, np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _joined(
    component: np.ndarray, alike: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> list[tuple[int, int]]:
    """Joins the components, in place, that a block of pairs ties together; the pairs that did it.

    Numbers of components stay in the order of their first rows.
    """
    pairs: list[tuple[int, int]] = []
    while True:
        apart = alike & (component[rows][:, None] != component[columns])
        (hit,) = np.nonzero(apart.any(axis=0))
        if not hit.size:
            return pairs
        ends = np.stack([rows[apart[:, hit].argmax(axis=0)], columns[hit]], axis=1)
        # Of several pairs between the same two components, one; and none that closes a circle.
        sides, places = np.unique(np.sort(component[ends], axis=1), axis=0, return_index=True)
        numbered = np.arange(1.0, len(places) + 1)
        graph = coo_array((numbered, sides.T), shape=(len(component), len(component)))
        forest = minimum_spanning_tree(graph.tocsr())
        kept = ends[places[forest.data.astype(np.int64) - 1]]
        pairs += [(min(pair), max(pair)) for pair in kept.tolist()]
        component[:] = connected_components(forest, directed=False)[1][component]
