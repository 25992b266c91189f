"""Laws of the demo: counts, truth, determinism, and what happens to a draw that was interrupted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlc_jax.data import demo as demo_module
from mlc_jax.data.demo import ABSENT, NAMES, Demo, demo_blanks, demo_labels, draw_demo
from mlc_jax.data.garments import SIZES
from mlc_jax.errors import WorkdirError

PREVALENCE = (0.88, 0.81, 0.53, 0.08)  # of the original set


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return draw_demo(tmp_path_factory.mktemp("demo"))


def contents(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.name != ".lock"
    }


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, index_col="filename")


def test_the_counts_are_those_of_the_original_set(whole: Demo) -> None:
    labels = table(whole.labels)
    assert labels.columns.tolist() == ["sleeves", "collar", "stripes", "print"]
    assert len(labels) == 975
    assert labels.index.is_unique
    on_disk = {path.name for path in whole.images.iterdir()}
    absent = labels.index.difference(sorted(on_disk))
    assert sorted(absent) == ["image_489.jpg", "image_624.jpg", "image_875.jpg"]
    assert len(on_disk) == 972
    assert on_disk < set(labels.index)
    assert labels.loc[sorted(on_disk)].isna().sum().tolist() == [80, 91, 92, 92]
    assert not labels.loc[absent].isna().any().any()


def test_the_truth_of_every_blank_is_known(whole: Demo) -> None:
    labels, truth = table(whole.labels), table(whole.truth)
    assert truth.index.equals(labels.index)
    assert set(np.unique(truth)) == {0, 1}
    assert ((labels == truth) | labels.isna()).all(axis=None)
    assert labels.isna().to_numpy().sum() == 355


@pytest.mark.parametrize("seed", range(8))
def test_prevalence_for_any_seed_and_where_observed(seed: int) -> None:
    labels, blanks = demo_labels(seed, 975), demo_blanks(seed, 975)
    np.testing.assert_allclose(labels.mean(axis=0), PREVALENCE, atol=0.02)
    observed = [labels[~blanks[:, k], k].mean() for k in range(4)]
    np.testing.assert_allclose(observed, PREVALENCE, atol=0.02)


def test_blanks_are_no_likelier_where_a_label_is_positive() -> None:
    labels = np.concatenate([demo_labels(seed, 975) for seed in range(200)])
    blanks = np.concatenate([demo_blanks(seed, 975) for seed in range(200)])
    for k in range(4):
        share, blank_share = labels[:, k].mean(), labels[blanks[:, k], k].mean()
        error = np.sqrt(share * (1 - share) / blanks[:, k].sum())
        assert abs(share - blank_share) < 4 * error


def test_labels_are_independent_of_each_other() -> None:
    labels = np.concatenate([demo_labels(seed, 975) for seed in range(50)])
    off_diagonal = np.corrcoef(labels.T)[~np.eye(4, dtype=bool)]
    assert np.abs(off_diagonal).max() < 4 / np.sqrt(len(labels))


def test_images_are_rgb_in_several_sizes(whole: Demo) -> None:
    seen = set()
    for path in whole.images.iterdir():
        with Image.open(path) as image:
            assert image.mode == "RGB"
            seen.add((image.height, image.width))
    assert seen == set(SIZES)
    assert sum(path.stat().st_size for path in whole.images.iterdir()) < 15e6


def test_two_draws_are_equal_byte_for_byte_and_another_seed_is_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        draw_demo(tmp_path / name, seed=seed, rows=40)
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_a_row_does_not_depend_on_how_many_follow(whole: Demo, tmp_path: Path) -> None:
    few = draw_demo(tmp_path, rows=33)
    images = sorted(few.images.iterdir())
    assert len(images) == 33
    for image in images:
        assert image.read_bytes() == (whole.images / image.name).read_bytes()
    assert table(few.truth).equals(table(whole.truth).iloc[:33])


def test_each_label_can_be_seen_in_the_picture(whole: Demo) -> None:
    """A logistic regression on where the edges are, and nothing else, finds every label."""
    truth = table(whole.truth).drop([f"image_{row}.jpg" for row in ABSENT])
    edges = []
    for name in truth.index:
        with Image.open(whole.images / name) as image:
            small = np.asarray(image.resize((60, 60), Image.Resampling.BOX), np.float32)
        steps = [np.abs(np.diff(small, axis=axis, append=0)).sum(axis=2) for axis in (0, 1)]
        edges.append(np.stack([step.reshape(12, 5, 12, 5).mean(axis=(1, 3)) for step in steps]))
    features = np.log1p(np.stack(edges).reshape(len(truth), -1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    for name in NAMES:
        scores = cross_val_predict(model, features, truth[name], cv=5, method="decision_function")
        assert roc_auc_score(truth[name], scores) > 0.95, name


def test_a_finished_demo_is_not_touched(tmp_path: Path) -> None:
    drawn = draw_demo(tmp_path, rows=30)
    before = stamps(tmp_path)
    assert draw_demo(tmp_path, rows=30) == drawn
    assert stamps(tmp_path) == before


@pytest.mark.parametrize(
    "damage", ["image gone", "image cut", "labels edited", "stamp cut", "extra"]
)
def test_a_damaged_demo_is_drawn_again(tmp_path: Path, damage: str) -> None:
    drawn = draw_demo(tmp_path, rows=30)
    sound = contents(tmp_path)
    image = drawn.images / "image_7.jpg"
    if damage == "image gone":
        image.unlink()
    elif damage == "image cut":
        image.write_bytes(image.read_bytes()[:100])
    elif damage == "labels edited":
        drawn.labels.write_text(drawn.truth.read_text())
    elif damage == "stamp cut":
        (tmp_path / "demo.json").write_text('{"version": 1, "se')
    else:
        (drawn.images / "image_99.jpg").write_bytes(image.read_bytes())
    assert contents(tmp_path) != sound
    draw_demo(tmp_path, rows=30)
    assert contents(tmp_path) == sound


@pytest.mark.parametrize("change", ["rows", "seed", "version"])
def test_another_identity_is_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    draw_demo(tmp_path / "old", rows=30)
    if change == "version":
        monkeypatch.setattr(demo_module, "DEMO_VERSION", demo_module.DEMO_VERSION + 1)
    seed, rows = (1 if change == "seed" else 0), (28 if change == "rows" else 30)
    draw_demo(tmp_path / "old", seed=seed, rows=rows)
    draw_demo(tmp_path / "new", seed=seed, rows=rows)
    assert contents(tmp_path / "old") == contents(tmp_path / "new")


def test_a_draw_killed_half_way_is_drawn_again(whole: Demo, tmp_path: Path) -> None:
    code = "import sys, pathlib; from mlc_jax.data.demo import draw_demo; "
    code += "draw_demo(pathlib.Path(sys.argv[1]))"
    path = os.pathsep.join(sys.path)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "images" / "image_20.jpg").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    assert child.wait() != 0
    assert 20 <= len(list((tmp_path / "images").iterdir())) < 972
    assert draw_demo(tmp_path).images == tmp_path / "images"
    assert contents(tmp_path) == contents(whole.labels.parent)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "images" / "image_0.jpg"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(WorkdirError, match="choose another folder"):
        draw_demo(tmp_path, rows=30)
    assert mine.read_bytes() == b"mine"


def test_small_demos_keep_the_shares() -> None:
    assert demo_blanks(0, 100).sum(axis=0).tolist() == [8, 9, 9, 9]
    assert not demo_blanks(0, 975)[list(ABSENT)].any()
