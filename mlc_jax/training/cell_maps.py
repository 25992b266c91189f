"""Where in an image the prediction of a cell comes from, by the heads that made it."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np

from mlc_jax.data.dataset import ImageSet
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.explanations import grad_cam
from mlc_jax.models.feature_store import FeatureStore
from mlc_jax.models.features import FeatureSpec
from mlc_jax.training.completion import Completion
from mlc_jax.training.features import extractor
from mlc_jax.training.feeds import passes_per_call
from mlc_jax.training.parallel import Devices

Maps = Callable[[np.ndarray], jax.Array | np.ndarray]


def map_source(
    store: FeatureStore, backbone: Backbone, spec: FeatureSpec, images: ImageSet, devices: Devices
) -> tuple[Maps, int]:
    """The backbone's maps of images: from the store, or anew where it keeps pooled features only.

    Returns:
      (a function of rows int64 [n], n at most the number that follows, giving [n, h, w, C]; that
      number).
    """
    most = passes_per_call(spec.image_size, devices)
    if not spec.pooled:
        return lambda rows: store.whole(images, rows), most
    extract = extractor(backbone, dataclasses.replace(spec, pooled=False), devices)

    def passed(rows: np.ndarray) -> jax.Array:
        padded = np.resize(rows, most)  # one program serves every number of rows
        return extract(np.stack([images[row] for row in padded.tolist()]))[: rows.size]

    return passed, most


def cell_maps(
    completion: Completion,
    values: np.ndarray,
    maps_of: Maps,
    most: int,
    cells: Sequence[tuple[int, int]],
    advance: Callable[[int], None],
) -> list[np.ndarray]:
    """Grad-CAM of cells: of a known cell by the heads that predicted it out of fold, else by all.

    They are heads of the round that was kept for the label; the map of several is the mean of
    theirs, as the logit is. What the image's other labels add to a logit is in no map.

    Args:
      completion: the heads, over a backbone that was not fine-tuned.
      values: int8 [N, L], observed cells; -1 elsewhere.
      maps_of, most: see `map_source`.
      cells: row of the image and column of the label; only labels that were fitted.
      advance: called with the number of images done.

    Returns:
      per cell float32 [h, w]: the evidence for a 1 (positive) and against it. Of linear heads it
      adds up to the logit without their bias and context.
    """
    heads_of: dict[int, list[int]] = {}
    of_fold: dict[tuple[int, int], list[int]] = {}
    for number, fitted in enumerate(completion.fits):
        for place, head in enumerate(fitted.heads):
            if completion.model_round[head.label] == number:
                heads_of.setdefault(head.label, []).append(place)
                for row in head.split.predict.tolist():
                    of_fold.setdefault((row, head.label), []).append(place)
    of_row: dict[int, list[int]] = {}
    for place, (row, _) in enumerate(cells):
        of_row.setdefault(row, []).append(place)
    # One program for each round, as heads of later rounds have a context.
    see = {fitted.stack: jax.jit(partial(grad_cam, fitted.stack)) for fitted in completion.fits}
    rows = np.array(list(of_row), np.int64)
    made: dict[int, np.ndarray] = {}
    for start in range(0, rows.size, most):
        batch = rows[start : start + most]
        for row, maps in zip(batch.tolist(), maps_of(batch), strict=True):
            for place in of_row[row]:
                label = cells[place][1]
                fitted = completion.fits[completion.model_round[label]]
                heads = of_fold[row, label] if values[row, label] >= 0 else heads_of[label]
                seen = []
                for own in heads:
                    params = jax.tree.map(lambda leaf, own=own: leaf[own], fitted.params.head)
                    mean, std = fitted.frozen.mean[own], fitted.frozen.std[own]
                    seen.append(see[fitted.stack](params, mean, std, maps[None], 0)[0])
                made[place] = np.mean(jax.device_get(seen), axis=0)
        advance(batch.size)
    return [made[place] for place in range(len(cells))]
