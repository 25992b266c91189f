"""Whether an explanation explains: deletion and insertion, against orders dealt at random.

Deletion and insertion are those of arXiv:1806.07421, section 4.2: hide what the explanation calls
important first, and the probability should fall early; show it first, and it should rise early. The
areas under both curves say how early. They are measured over superpixels, in the order of their
mean importance, for two reasons: an order of single pixels tears an image apart sooner than one of
blobs, so chance could not be compared with it; and every method is judged by the same pieces.
"""

from dataclasses import dataclass

import numpy as np

BEATS_CHANCE = 0.05
"""An explanation explains where orders dealt at random do as well no more often than this."""


def importance_order(heat: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Superpixels by their mean importance, greatest first.

    Args:
      heat: float [H, W].
      segments: int [H, W], the superpixel of each pixel, 0 to S − 1, all of which occur.

    Returns:
      int64 [S].
    """
    total = np.bincount(segments.ravel(), weights=heat.ravel())
    return np.argsort(-total / np.bincount(segments.ravel()), kind="stable")


def deletion_masks(order: np.ndarray, steps: int) -> np.ndarray:
    """What is hidden while superpixels are hidden in an order; bool [K, S], its ends left out.

    The complement of a row is what is hidden when the same superpixels are the ones that are shown.

    Args:
      order: int [S].
      steps: how many at most; K is one less than the steps there are.
    """
    cuts = np.unique(np.rint(np.linspace(0, len(order), steps + 1)).astype(int))[1:-1]
    hidden = np.zeros((len(cuts), len(order)), bool)
    for row, cut in zip(hidden, cuts, strict=True):
        row[order[:cut]] = True
    return hidden


@dataclass(frozen=True, eq=False)
class Curves:
    """The two curves of an order.

    Attributes:
      shares: float64 [K], of the pixels that are hidden (deletion) or shown (insertion), 0 to 1.
      deletion, insertion: float64 [K, L], probabilities of all labels.
    """

    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_area(self) -> np.ndarray:
        """The mean probability while the image is hidden, float64 [L]; low is good."""
        return np.trapezoid(self.deletion, self.shares, axis=0)

    @property
    def insertion_area(self) -> np.ndarray:
        """The mean probability while the image is shown, float64 [L]; high is good."""
        return np.trapezoid(self.insertion, self.shares, axis=0)

    @property
    def gain(self) -> np.ndarray:
        """Insertion minus deletion, float64 [L].

        Backwards, an order has the same curves exchanged and mirrored, and so minus this gain: over
        all orders the mean is 0, whatever the classifier.
        """
        return self.insertion_area - self.deletion_area


def make_curves(
    masks: np.ndarray,
    sizes: np.ndarray,
    deleted: np.ndarray,
    inserted: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
) -> Curves:
    """Puts answers together.

    Args:
      masks: bool [K, S], from `deletion_masks`.
      sizes: pixels of each superpixel, [S].
      deleted: float64 [K, L], answers with the masks hidden.
      inserted: float64 [K, L], answers with all but the masks hidden.
      ends: float64 [L] each, answers with nothing hidden and with everything hidden.
    """
    whole, nothing = ends
    shares = np.concatenate([[0.0], masks @ sizes / sizes.sum(), [1.0]])
    return Curves(
        shares,
        np.concatenate([[whole], deleted, [nothing]]),
        np.concatenate([[nothing], inserted, [whole]]),
    )


def chance(gain: float, random_gains: np.ndarray) -> float:
    """How often an order dealt at random does as well: (1 + as good ones) / (1 + all of them).

    Args:
      gain: of the explanation.
      random_gains: float [R], of orders dealt at random. Each counts backwards too.
    """
    both = np.concatenate([random_gains, -random_gains])
    return (1 + int(np.sum(both >= gain))) / (1 + both.size)
