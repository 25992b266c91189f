"""Where in an image a label comes from, by hiding parts of it: occlusion and LIME.

A hidden pixel gets ImageNet's mean colour, the nearest a backbone knows to nothing. Hiding is an
intervention, not a removal: a grey patch is an object too, and a picture that is half grey is one
that no backbone was ever shown. So every explanation is judged afterwards (`assess/faithfulness`).
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from mlc_jax.errors import NumericsError

NOTHING = np.array([124, 116, 104], np.uint8)
KERNEL_WIDTH = 0.25
RIDGE = 1.0
TINY = 1e-9  # no probability is taken as surer than this away from 0 and 1
HELD_OUT = 0.2  # of LIME's samples, which tell how well its linear model speaks for the classifier


@dataclass(frozen=True, eq=False)
class Probe:
    """An image, and a classifier that can be asked about it.

    Attributes:
      image: uint8 [H, W, 3].
      segments: int [H, W], the superpixel of each pixel, from 0 on.
      score: uint8 [b, H, W, 3] to probabilities float64 [b, L].
      most: b at most.
      advance: told how many images were asked about.
    """

    image: np.ndarray
    segments: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]
    most: int
    advance: Callable[[int], None]

    @property
    def sizes(self) -> np.ndarray:
        """Pixels of each superpixel, int64 [S]."""
        return np.bincount(self.segments.ravel())

    def hiding(self, masks: Iterable[np.ndarray]) -> np.ndarray:
        """Probabilities float64 [n, L] of the image with the pixels of each mask [H, W] hidden.

        Raises:
          NumericsError: one is not finite.
        """
        waiting, made = iter(masks), []
        while some := list(itertools.islice(waiting, self.most)):
            hide = np.stack(some)[..., None]
            made.append(self.score(np.where(hide, NOTHING, self.image)))
            self.advance(len(some))
        probabilities = np.concatenate(made)
        if not np.isfinite(probabilities).all():
            raise NumericsError(
                "with parts of the image hidden, its features are not finite; train with "
                "config.features.dtype=float32, or other weights"
            )
        return probabilities

    def hiding_superpixels(self, hide: np.ndarray) -> np.ndarray:
        """The same for superpixels: hide bool [n, S]."""
        return self.hiding(row[self.segments] for row in hide)


def superpixels(image: np.ndarray, count: int) -> np.ndarray:
    """About `count` superpixels of an image: regions of like colour, compact where there is none.

    SLIC (Achanta et al., 2012) joins what is not connected to its neighbours, and all of a picture
    of noise; so colour counts for less until at least half as many superpixels are left.

    Args:
      image: uint8 [H, W, 3].
      count: how many.

    Returns:
      int [H, W], numbered from 0 without gaps.
    """
    for compactness in (10.0, 100.0, 1000.0, 10_000.0):
        made = slic(image, n_segments=count, compactness=compactness, start_label=0)
        numbers, segments = np.unique(made, return_inverse=True)
        if len(numbers) >= count / 2:
            break
    return segments.reshape(made.shape)


def occlusion(probe: Probe, whole: np.ndarray, share: float) -> np.ndarray:
    """How much each label loses where a patch hides the image (arXiv:1311.2901, section 4.2).

    Args:
      probe: the image.
      whole: float64 [L], probabilities of the whole image.
      share: of height and of width that a patch has; it moves by half of that.

    Returns:
      float64 [L, H, W], the mean loss of probability over the patches that cover a pixel.
    """
    size = probe.image.shape[:2]
    patches = patches_over(size, share)

    def masks() -> Iterable[np.ndarray]:
        for patch in patches:
            mask = np.zeros(size, bool)
            mask[patch] = True
            yield mask

    lost = whole - probe.hiding(masks())
    total = np.zeros((len(whole), *size))
    times = np.zeros(size)
    for (rows, columns), own in zip(patches, lost, strict=True):
        total[:, rows, columns] += own[:, None, None]
        times[rows, columns] += 1
    return total / times


def patches_over(size: tuple[int, ...], share: float) -> list[tuple[slice, slice]]:
    """The (rows, columns) of patches that cover a size (height, width), as for `occlusion`."""
    height, width = size
    return list(itertools.product(_places(height, share), _places(width, share)))


def _places(side: int, share: float) -> list[slice]:
    """Patches that cover a side, half of one on the next."""
    length = max(1, round(share * side))
    count = -(-2 * (side - length) // length) + 1
    starts = np.rint(np.linspace(0, side - length, count)).astype(int)
    return [slice(start, start + length) for start in starts.tolist()]


class Lime(NamedTuple):
    """A linear model of the classifier around one image.

    Attributes:
      weights: float64 [L, S], what showing each superpixel adds to the log odds of each label.
      fidelity: float64 [L], weighted R² on samples that were not fitted: 1 where the classifier
        behaves like the linear model, 0 or less where the model says nothing. NaN where no sample
        changed the probability.
    """

    weights: np.ndarray
    fidelity: np.ndarray


def lime(probe: Probe, samples: int, rng: np.random.Generator) -> Lime:
    """LIME (arXiv:1602.04938, algorithm 1), for all labels from the same samples.

    Each sample shows every superpixel with probability 1/2, the first shows all. Its weight is
    exp(−D² / σ²) (section 3.3), D its cosine distance to the whole image in superpixels, σ 0.25.
    Two things differ from the paper. A ridge regression takes the place of K-Lasso: with far more
    samples than superpixels none has to be left out. And what is modelled is the log odds, since a
    probability near 0 or 1 is flat and no linear model follows it.

    Args:
      probe: the image.
      samples: at least 10.
      rng: draws them.
    """
    shown = rng.random((samples, len(probe.sizes))) < 0.5
    shown[0] = True
    probabilities = np.clip(probe.hiding_superpixels(~shown), TINY, 1 - TINY)
    log_odds = np.log(probabilities) - np.log1p(-probabilities)
    # The cosine of a 0/1 vector and all ones is the root of its share of ones.
    distance = 1 - np.sqrt(shown.mean(axis=1))
    weight = np.exp(-(distance**2) / KERNEL_WIDTH**2)
    pieces = shown.astype(np.float64)

    held_out = round(HELD_OUT * samples)
    fitted, rest = slice(samples - held_out), slice(samples - held_out, None)
    model = Ridge(alpha=RIDGE).fit(pieces[fitted], log_odds[fitted], weight[fitted])
    fidelity = r2_score(
        log_odds[rest],
        model.predict(pieces[rest]).reshape(held_out, -1),
        sample_weight=weight[rest],
        multioutput="raw_values",
    )
    weights = Ridge(alpha=RIDGE).fit(pieces, log_odds, weight).coef_
    changed = np.ptp(log_odds, axis=0) > 0
    return Lime(np.atleast_2d(weights), np.where(changed, fidelity, np.nan))
