"""Where in an image a filled cell comes from, by the head that filled it."""

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
    maps_of: Maps,
    most: int,
    cells: Sequence[tuple[int, int]],
    advance: Callable[[int], None],
) -> list[np.ndarray]:
    """Grad-CAM of cells, each by a head that was asked about its image out of fold.

    It is a head of the round that was kept for the label. What such a head was told of the image's
    other labels adds to its logit, and is in no map.

    Args:
      completion: the heads, over a backbone that was not fine-tuned.
      maps_of, most: see `map_source`.
      cells: row of the image and column of the label; only labels that were fitted.
      advance: called with the number of images done.

    Returns:
      per cell float32 [h, w]: the evidence for a 1 (positive) and against it. Of a linear head it
      adds up to the logit without its bias and without what the head was told.
    """
    owner = {
        (row, head.label): (fitted, number)
        for fitted_round, fitted in enumerate(completion.fits)
        for number, head in enumerate(fitted.heads)
        if completion.model_round[head.label] == fitted_round
        for row in head.split.predict.tolist()
    }
    of_row: dict[int, list[int]] = {}
    for place, (row, _) in enumerate(cells):
        of_row.setdefault(row, []).append(place)
    # One program for each round: later ones have heads that are told more.
    see = {fitted.stack: jax.jit(partial(grad_cam, fitted.stack)) for fitted in completion.fits}
    rows = np.array(list(of_row), np.int64)
    made: dict[int, np.ndarray] = {}
    for start in range(0, rows.size, most):
        batch = rows[start : start + most]
        for row, maps in zip(batch.tolist(), maps_of(batch), strict=True):
            for place in of_row[row]:
                fitted, head = owner[cells[place]]
                params = jax.tree.map(lambda leaf, head=head: leaf[head], fitted.params.head)
                mean, std = fitted.frozen.mean[head], fitted.frozen.std[head]
                seen = see[fitted.stack](params, mean, std, maps[None], 0)
                made[place] = np.asarray(seen)[0]
        advance(batch.size)
    return [made[place] for place in range(len(cells))]
