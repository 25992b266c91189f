"""Laws of the loop: a stopped run ends like an undisturbed one, and nothing bad is saved."""

import copy
import gc
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mlc_jax.data.sampling import Plan
from mlc_jax.errors import NumericsError
from mlc_jax.files.digest import digest_file
from mlc_jax.interrupt import Interrupted, handled
from mlc_jax.models.tuning import Trained
from mlc_jax.training import loop
from mlc_jax.training.cached import CachedFeed
from mlc_jax.training.features import Cells, Feed
from mlc_jax.training.loop import EpochFigures
from mlc_jax.training.step import Frozen, Sums, TrainState
from tests.training.synthetic import drawn, fitted


class Stopped(Exception):
    """What stands for a kill."""


def stop_after(epoch: int) -> Callable[[EpochFigures], None]:
    def told(figures: EpochFigures) -> None:
        if figures.epoch == epoch:
            raise Stopped

    return told


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): digest_file(p) for p in folder.rglob("*") if p.is_file()}


# Epochs 0 to 7, saved after 2, 5 and 7: before a first save, at one, behind one, and several times.
@pytest.mark.parametrize(
    "stops",
    [
        (3,),
        (1, 4, 4, 6),
        pytest.param((0,), marks=pytest.mark.slow),
        pytest.param((2,), marks=pytest.mark.slow),
        pytest.param((7,), marks=pytest.mark.slow),
    ],
)
def test_stopped_and_continued_is_undisturbed(
    undisturbed: tuple[np.ndarray, bytes], tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for epoch in stops:
        with pytest.raises(Stopped):
            fitted(tmp_path, *drawn(), ratio=0.5, on_epoch=stop_after(epoch))
    result = fitted(tmp_path, *drawn(), ratio=0.5, warn=pytest.fail)
    assert result.logits.tobytes() == undisturbed[0].tobytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == undisturbed[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    result = fitted(folder, *drawn(), ratio=0.5)
    lines = (folder / "metrics.jsonl").read_bytes()
    assert lines.count(b"\n") == 8
    return result.logits, lines


def test_a_finished_course_is_not_trained_again(
    undisturbed: tuple[np.ndarray, bytes], tmp_path: Path
) -> None:
    told: list[int] = []
    for _ in range(2):
        result = fitted(tmp_path, *drawn(), ratio=0.5, on_epoch=lambda f: told.append(f.epoch))
    assert told == list(range(8))
    assert result.logits.tobytes() == undisturbed[0].tobytes()


# Orbax starts a task per array and drops the others when one fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_last_checkpoint_changes_nothing_but_a_warning(
    undisturbed: tuple[np.ndarray, bytes], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        fitted(tmp_path, *drawn(), ratio=0.5, on_epoch=stop_after(6))
    for file in (tmp_path / "checkpoints" / "6" / "state" / "d").iterdir():
        file.unlink()
    warnings: list[str] = []
    result = fitted(tmp_path, *drawn(), ratio=0.5, warn=warnings.append)
    gc.collect()
    assert len(warnings) == 1
    assert result.logits.tobytes() == undisturbed[0].tobytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == undisturbed[1]


@dataclass
class Watched:
    """A feed that keeps the parameters it is asked with."""

    inner: Feed
    params: list[Any] = field(default_factory=list)

    @property
    def frozen_backbone(self) -> dict[str, Any]:
        return self.inner.frozen_backbone

    def init(self, seed: int, heads: int) -> Trained:
        return self.inner.init(seed, heads)

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        return self.inner.train_epoch(state, frozen, cells, plan)

    def logits(self, params: Any, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        self.params.append(jax.device_get(params))
        return self.inner.logits(params, frozen, cells, plan)


def test_each_head_answers_with_its_best_epoch_and_stops_by_itself(tmp_path: Path) -> None:
    feeds: list[Watched] = []
    figures: list[EpochFigures] = []

    def watched(feed: Feed) -> Feed:
        feeds.append(Watched(feed))
        return feeds[-1]

    result = fitted(
        tmp_path,
        *drawn(),
        wrap=watched,
        on_epoch=figures.append,
        epochs=12,
        patience=2,
        optimizer__learning_rate=0.1,
    )
    # Asked once an epoch for the stop fold, and at the end once for each of two views.
    *by_epoch, answered, again = feeds[0].params
    assert len(by_epoch) == len(figures)
    jax.tree.map(np.testing.assert_array_equal, again, answered)
    heads = len(result.heads)
    assert 0 < figures[-1].active.sum() < heads, "some heads must stop, and some go on"
    assert len(set(result.best_epoch.tolist())) > 1, "all heads alike: nothing is shown"
    for head in range(heads):
        best, waited, stopped = 0, 0, None
        for epoch in range(1, len(figures)):
            now = (figures[epoch].stop_auc[head], -figures[epoch].stop_loss[head])
            then = (figures[best].stop_auc[head], -figures[best].stop_loss[head])
            if stopped is None and now > then:
                best, waited = epoch, 0
            elif stopped is None:
                waited += 1
                stopped = epoch if waited == 2 else None
        assert result.best_epoch[head] == best
        kernels = [params.head["dense"]["kernel"][head] for params in (*by_epoch, answered)]
        np.testing.assert_array_equal(kernels[-1], kernels[best])
        if stopped is not None:
            for epoch in range(stopped + 1, len(figures)):
                assert not figures[epoch].active[head]
                np.testing.assert_array_equal(kernels[epoch], kernels[stopped])
        moving = [epoch for epoch in range(len(figures)) if figures[epoch].active[head]]
        assert moving == list(range(len(moving)))


@pytest.mark.parametrize("cause", ["features", "rate"])
def test_what_is_not_finite_stops_the_run_and_touches_no_checkpoint(
    tmp_path: Path, cause: str
) -> None:
    features, labels = drawn()
    with pytest.raises(Stopped):
        fitted(tmp_path, features, labels, on_epoch=stop_after(3))
    before = digests(tmp_path / "checkpoints")
    assert before

    class Sick(Watched):
        def train_epoch(
            self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
        ) -> tuple[TrainState, Sums]:
            wrong = frozen._replace(std=frozen.std * (0.0 if cause == "rate" else np.nan))
            return self.inner.train_epoch(state, wrong, cells, plan)

    with pytest.raises(NumericsError, match="not finite in epoch 3"):
        fitted(tmp_path, features, labels, wrap=Sick)
    assert digests(tmp_path / "checkpoints") == before
    assert fitted(tmp_path, features, labels).logits.shape == labels.shape


@dataclass
class Spoilt(Watched):
    """A feed over features of which one image's are not finite from the given epoch on."""

    sound: Feed | None = None
    epoch: int = 2
    seen: list[Plan] = field(default_factory=list)

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        self.seen.append(plan)
        assert self.sound is not None
        feed = self.inner if len(self.seen) > self.epoch else self.sound
        return feed.train_epoch(state, frozen, cells, plan)

    def logits(self, params: Any, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        assert self.sound is not None
        return self.sound.logits(params, frozen, cells, plan)


def test_the_first_bad_step_is_found_and_its_images_are_named(tmp_path: Path) -> None:
    features, labels = drawn()
    feeds: list[Spoilt] = []

    def spoilt(feed: Feed) -> Feed:
        assert isinstance(feed, CachedFeed)
        wrong = copy.copy(feed)
        wrong._features = feed._features.at[77].set(np.nan)
        feeds.append(Spoilt(wrong, sound=feed))
        return feeds[-1]

    with pytest.raises(NumericsError) as caught:
        fitted(tmp_path, features, labels, wrap=spoilt)
    plan = feeds[0].seen[-1]
    bad = (plan.rows == 77) & plan.mask
    step, head = (int(place[0]) for place in np.nonzero(bad.any(axis=2)))
    assert f"in epoch 2, step {step}, head {head};" in str(caught.value)
    named = set(re.findall(r"'row (\d+)'", str(caught.value)))
    assert named == set(map(str, plan.rows[step, head].tolist()))
    assert not digests(tmp_path / "checkpoints")


def test_a_signal_saves_the_epoch_in_progress_and_the_rest_follows(
    undisturbed: tuple[np.ndarray, bytes], tmp_path: Path
) -> None:
    """Epochs are saved after 2, 5 and 7; the signal comes in epoch 3."""

    def signal_in(figures: EpochFigures) -> None:
        if figures.epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught, handled():
        fitted(tmp_path, *drawn(), ratio=0.5, on_epoch=signal_in)
    assert caught.value.status == 143
    assert (tmp_path / "checkpoints" / "4").is_dir()
    told: list[int] = []
    result = fitted(tmp_path, *drawn(), ratio=0.5, on_epoch=lambda f: told.append(f.epoch))
    assert told == [4, 5, 6, 7]
    assert result.logits.tobytes() == undisturbed[0].tobytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == undisturbed[1]


def test_long_epochs_are_all_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(Stopped):
        fitted(tmp_path, *drawn(), on_epoch=stop_after(2))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_features_that_are_not_finite_are_never_trained_on(tmp_path: Path) -> None:
    features, labels = drawn()
    features[5, 1, 0, 0, 3] = np.inf
    with pytest.raises(NumericsError):
        fitted(tmp_path, features, labels)
    assert not digests(tmp_path / "checkpoints")


def test_an_endless_rate_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(NumericsError, match=r"config\.optimizer\.learning_rate"):
        fitted(tmp_path, *drawn(), optimizer__name="sgd", optimizer__learning_rate=1e38)
