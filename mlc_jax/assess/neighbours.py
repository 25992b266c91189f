"""The images that look most alike, by the frozen backbone's features."""

import numpy as np

_CHUNK = 512  # queries at a time: a chunk times ten thousand images is 20 MB of similarities


def nearest(
    features: np.ndarray, queries: np.ndarray, candidates: np.ndarray, count: int
) -> np.ndarray:
    """The candidates whose features point most nearly the same way as each query's (cosine).

    Args:
      features: float32 [N, C].
      queries: int64 [Q], rows.
      candidates: int64 [K], distinct rows; a query is never its own neighbour.
      count: how many neighbours to find.

    Returns:
      int64 [Q, count], rows, nearest first; -1 where there are fewer. Of equally near ones the
      earlier candidate comes first. A row of zeros points nowhere, and has cosine 0 with all.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = features / np.where(lengths > 0, lengths, 1.0)
    pool = units[candidates]
    found = np.full((queries.size, count), -1, np.int64)
    for start in range(0, queries.size, _CHUNK):
        rows = queries[start : start + _CHUNK]
        similar = units[rows] @ pool.T
        similar[rows[:, None] == candidates[None, :]] = -np.inf
        every = np.arange(rows.size)
        for rank in range(min(count, candidates.size)):
            best = similar.argmax(axis=1)
            there = ~np.isneginf(similar[every, best])
            found[start : start + rows.size, rank] = np.where(there, candidates[best], -1)
            similar[every, best] = -np.inf
    return found
