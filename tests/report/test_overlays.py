"""Overlays: grey where the map says nothing, orange for a label and blue against it."""

import numpy as np

from mlc_jax.report.overlays import overlay

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_a_map_of_nothing_leaves_a_grey_picture() -> None:
    made = overlay(PICTURE, np.zeros((3, 4)), smooth=True)
    assert made.shape == PICTURE.shape
    assert (made == made[..., :1]).all()
    assert np.abs(made[..., 0] - PICTURE @ [0.299, 0.587, 0.114]).max() <= 0.5


def test_for_is_orange_and_against_is_blue_each_to_the_strongest() -> None:
    heat = np.array([[1.0, -1.0], [0.5, 0.0]])
    for scale in (1e-12, 1.0, 1e6):
        made = overlay(PICTURE, scale * heat, smooth=False).astype(int)
        red_over_blue = (made[..., 0] - made[..., 2]).reshape(2, 15, 2, 20)
        means = red_over_blue.mean(axis=(1, 3))
        assert means[0, 0] > means[1, 0] > means[1, 1] == 0 > means[0, 1]
        assert (made[:15, :20] - made[:15, :20].mean(axis=(0, 1))).std() < 15  # nearly one colour


def test_superpixels_keep_their_edges_and_maps_are_interpolated() -> None:
    heat = np.array([[0.0, 1.0]])
    flat = np.full((10, 40, 3), 128, np.uint8)
    assert len(np.unique(overlay(flat, heat, smooth=False)[0, :, 0])) == 2
    assert len(np.unique(overlay(flat, heat, smooth=True)[0, :, 0])) > 5
