"""Occlusion and LIME, asked about classifiers whose every reason is known."""

from collections.abc import Callable

import numpy as np
import pytest

from mlc_jax.errors import NumericsError
from mlc_jax.models.perturbations import NOTHING, Probe, lime, occlusion, superpixels

SIZE = (40, 48)
WHITE = np.full((*SIZE, 3), 255, np.uint8)
QUARTERS = np.kron(np.arange(12).reshape(3, 4), np.ones((14, 12), int))[: SIZE[0]]


def shown(images: np.ndarray) -> np.ndarray:
    """Which pixels are shown, bool [b, H, W]; none of the image has the colour of nothing."""
    return (images != NOTHING).any(axis=-1)


def probe_of(score: Callable[[np.ndarray], np.ndarray], most: int = 7) -> Probe:
    return Probe(WHITE, QUARTERS, score, most, lambda _: None)


def log_linear(worth: np.ndarray, bias: float) -> Callable[[np.ndarray], np.ndarray]:
    """Log odds that are a sum over the superpixels that are shown; worth [L, S]."""

    def score(images: np.ndarray) -> np.ndarray:
        visible = shown(images).reshape(len(images), -1)
        firsts = [np.flatnonzero(QUARTERS.ravel() == piece)[0] for piece in range(12)]
        return 1 / (1 + np.exp(-(visible[:, firsts] @ worth.T + bias)))

    return score


def test_lime_finds_the_weights_of_a_classifier_that_is_linear() -> None:
    worth = np.random.default_rng(0).normal(size=(3, 12))
    made = lime(probe_of(log_linear(worth, -1.0)), 2000, np.random.default_rng(1))
    # The ridge's penalty of 1 pulls each weight towards 0 by about one in a hundred.
    np.testing.assert_allclose(made.weights, worth, atol=0.03)
    assert made.fidelity.min() > 0.999


def test_samples_near_the_image_count_more_and_those_kept_back_judge() -> None:
    """A classifier that no linear model follows: the paper's weighted least squares, by hand."""

    def score(images: np.ndarray) -> np.ndarray:
        share = shown(images).mean(axis=(1, 2))
        return (0.05 + 0.9 * (share > 0.6))[:, None]

    count = 60
    made = lime(probe_of(score), count, np.random.default_rng(3))
    pieces = np.random.default_rng(3).random((count, 12)) < 0.5
    pieces[0] = True
    share = pieces @ np.bincount(QUARTERS.ravel()) / QUARTERS.size
    p = 0.05 + 0.9 * (share > 0.6)
    target = np.log(p / (1 - p))
    weight = np.exp(-((1 - np.sqrt(pieces.mean(axis=1))) ** 2) / 0.25**2)

    def ridge(rows: slice) -> np.ndarray:
        """Weights and intercept: the penalty of 1 is on the weights alone."""
        design = np.column_stack([pieces[rows], np.ones(len(pieces[rows]))])
        gram = (design * weight[rows, None]).T @ design + np.diag([1.0] * 12 + [0.0])
        return np.linalg.solve(gram, (design * weight[rows, None]).T @ target[rows])

    np.testing.assert_allclose(made.weights[0], ridge(slice(None))[:12], atol=1e-8)
    kept_back = slice(48, None)
    fitted = ridge(slice(48))
    rest, own = target[kept_back], weight[kept_back]
    left = own @ (rest - pieces[kept_back] @ fitted[:12] - fitted[12]) ** 2
    spread = own @ (rest - np.average(rest, weights=own)) ** 2
    assert made.fidelity[0] == pytest.approx(1 - left / spread)


def test_lime_of_labels_together_is_lime_of_each() -> None:
    worth = np.random.default_rng(2).normal(size=(2, 12))
    together = lime(probe_of(log_linear(worth, 0.0)), 100, np.random.default_rng(3))
    for label in range(2):
        score = log_linear(worth[label : label + 1], 0.0)
        alone = lime(probe_of(score), 100, np.random.default_rng(3))
        np.testing.assert_allclose(alone.weights[0], together.weights[label], atol=1e-9)
        np.testing.assert_allclose(alone.fidelity[0], together.fidelity[label], atol=1e-9)


def test_lime_says_that_nothing_is_explained() -> None:
    worth = np.zeros((2, 12))
    worth[1, 4] = 1.0
    made = lime(probe_of(log_linear(worth, 0.3)), 60, np.random.default_rng(4))
    np.testing.assert_allclose(made.weights[0], 0, atol=1e-12)
    assert np.isnan(made.fidelity).tolist() == [True, False]


def test_lime_of_a_parity_has_no_fidelity() -> None:
    """Whether an odd number of superpixels is shown is as far from linear as can be."""

    def score(images: np.ndarray) -> np.ndarray:
        firsts = [np.flatnonzero(QUARTERS.ravel() == piece)[0] for piece in range(12)]
        odd = shown(images).reshape(len(images), -1)[:, firsts].sum(axis=1) % 2
        return np.where(odd, 0.8, 0.2)[:, None]

    assert lime(probe_of(score), 500, np.random.default_rng(5)).fidelity[0] < 0.1


@pytest.mark.parametrize("share", [0.1, 0.2, 0.33, 0.5])
def test_occlusion_loses_what_the_patches_hide(share: float) -> None:
    """Of a classifier that adds up pixels, a patch loses what lies under it and nothing more."""
    worth = np.zeros(SIZE)
    worth[10:14, 20:26] = 1 / 24

    def score(images: np.ndarray) -> np.ndarray:
        return np.stack([(shown(images) * worth).sum(axis=(1, 2)), np.full(len(images), 0.5)], 1)

    whole = np.array([1.0, 0.5])
    made = occlusion(probe_of(score), whole, share)
    assert made.shape == (2, *SIZE)
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made[1], 0, atol=1e-12)
    top, left = np.unravel_index(np.argmax(made[0]), SIZE)
    reach = share * np.array(SIZE) + 1
    assert 10 - reach[0] < top < 14 + reach[0]
    assert 20 - reach[1] < left < 26 + reach[1]
    rows, columns = np.nonzero(made[0] > 1e-12)
    assert rows.min() > 10 - reach[0]
    assert rows.max() < 14 + reach[0]
    assert columns.min() > 20 - reach[1]
    assert columns.max() < 26 + reach[1]
    assert made[0].max() <= 1


def test_hidden_pixels_become_nothing_and_the_others_stay() -> None:
    rng = np.random.default_rng(6)
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    hide = rng.random((10, 12)) < 0.5
    seen: list[np.ndarray] = []
    told: list[int] = []

    def score(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.zeros((len(images), 1))

    probe = Probe(image, QUARTERS, score, 4, told.append)
    assert probe.hiding_superpixels(hide).shape == (10, 1)
    assert told == [4, 4, 2] == [len(images) for images in seen]
    for one, row in zip(np.concatenate(seen), hide, strict=True):
        hidden = row[QUARTERS]
        assert (one[hidden] == NOTHING).all()
        assert (one[~hidden] == image[~hidden]).all()


def test_an_answer_that_is_not_finite_is_refused() -> None:
    probe = probe_of(lambda images: np.full((len(images), 1), np.nan))
    with pytest.raises(NumericsError, match=r"features\.dtype=float32"):
        probe.hiding_superpixels(np.ones((1, 12), bool))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (224, 224)])
def test_superpixels_are_numbered_without_gaps(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8)
    for image in (noise, np.zeros((*size, 3), np.uint8)):
        segments = superpixels(image, 50)
        assert segments.shape == size
        numbers = np.unique(segments)
        np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
        assert 25 <= len(numbers) <= 75
