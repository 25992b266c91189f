"""Images that are copies of one another, to the byte or nearly so: they must share a fold.

Near copies (the same scene a moment later, a crop, another compression) are found by their frozen
features, which know nothing of labels or folds.
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.data.folds import groups_of_copies

_BLOCK = 1024
_LARGEST = 0.05


@dataclass(frozen=True)
class Groups:
    """Which images go together.

    Attributes:
      of_image: int64 [N], equal for images of one group.
      exact: how many images are byte-identical to an earlier one.
      near: int64 [P, 2], pairs of rows that are near copies and not exact ones.
      note: what was found or not, for people.
    """

    of_image: np.ndarray
    exact: int
    near: np.ndarray
    note: str


def group_images(digests: tuple[str, ...], features: np.ndarray, similarity: float) -> Groups:
    """Groups exact and near copies.

    Args:
      digests: content digests, one per image.
      features: float [N, C], one vector per image.
      similarity: cosine of the standardised features from which two images are near copies; above 1
        to leave near copies alone. On photographs of scenes every pair at 0.9 or more that was
        looked at was the same scene.

    Returns:
      Groups; where a chain of near copies holds more than a twentieth of the images, the features
      cannot tell images apart, and exact copies alone are grouped.
    """
    exact_groups = groups_of_copies(digests)
    exact = len(digests) - int(exact_groups.max(initial=-1)) - 1
    told = f"{exact} images are exact copies of others"
    if similarity > 1:
        return Groups(exact_groups, exact, np.zeros((0, 2), np.int64), f"{told}; near ones ignored")
    pairs = similar_pairs(features, similarity)
    near = pairs[exact_groups[pairs[:, 0]] != exact_groups[pairs[:, 1]]]
    groups = joined(exact_groups, near)
    largest = int(np.max(np.bincount(groups), initial=0))
    if near.size and largest > max(10, _LARGEST * len(digests)):
        return Groups(
            exact_groups,
            exact,
            near[:0],
            f"{told}; near ones cannot be told: these features call {largest} images alike",
        )
    many = "1 pair is" if len(near) == 1 else f"{len(near)} pairs are"
    return Groups(groups, exact, near, f"{told}, {many} nearly so; each group lies in one fold")


def similar_pairs(features: np.ndarray, similarity: float) -> np.ndarray:
    """Pairs of rows i < j whose standardised features have at least that cosine; int64 [P, 2]."""
    centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float64).astype("f4")
    centred /= np.maximum(centred.std(axis=0), 1e-6)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    found = []
    for start in range(0, len(centred), _BLOCK):
        # Only what lies to the right of the block's diagonal: every pair once.
        cosines = centred[start : start + _BLOCK] @ centred[start:].T
        rows, columns = np.nonzero(np.triu(cosines >= similarity, 1))
        found.append(np.stack([rows + start, columns + start], axis=1))
    return np.concatenate(found).astype(np.int64) if found else np.zeros((0, 2), np.int64)


def joined(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Groups int64 [N] after those of each pair of rows were made one, numbered from 0 in order."""
    parent = np.arange(int(groups.max(initial=-1)) + 1)

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = int(parent[group])
        return group

    for one, other in groups[pairs].tolist():
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    roots = np.array([root(group) for group in range(len(parent))], np.int64)
    return np.unique(roots, return_inverse=True)[1][groups].astype(np.int64)
