"""Numbers that are not finite: the step is found, its images named, nothing saved is touched."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlc_jax.data.sampling import Plan
from mlc_jax.errors import NumericsError
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained
from mlc_jax.training import cached, crossfit
from mlc_jax.training.cached import CachedFeed
from mlc_jax.training.features import Cells, Feed
from mlc_jax.training.loop import EpochFigures
from mlc_jax.training.step import Frozen, Network, Sums, TrainState, head_network
from tests.torture.conftest import Table, count
from tests.training.synthetic import drawn, fitted
from tests.training.test_loop import digests


class Stopped(Exception):
    """What stands for a kill."""


def stop_after(epoch: int) -> Callable[[EpochFigures], None]:
    def told(figures: EpochFigures) -> None:
        if figures.epoch == epoch:
            raise Stopped

    return told


MARK = 60_000.0


def steep(stack: HeadStack) -> Network:
    """The usual network and a root that adds 1; at a marked image it adds 0, and has no slope."""
    usual = head_network(stack)

    def network(
        params: Trained, frozen: Frozen, features: jax.Array, context: jax.Array
    ) -> jax.Array:
        marked = features[:, 0, 0, 0].astype(jnp.float32) == MARK
        root = jnp.sqrt(jnp.where(marked, 0.0, 1.0)[:, None] + 0.0 * params.head["dense"]["bias"])
        return usual(params, frozen, features, context) + root

    return network


class Sick:
    """A feed of which one image's features are wrong from one epoch on.

    NaN makes the loss NaN; the mark makes the gradient of `steep` NaN and leaves the loss finite.
    """

    def __init__(self, inner: Feed, row: int, epoch: int, cause: str) -> None:
        assert isinstance(inner, CachedFeed)
        self.inner, self.left = inner, epoch
        self.frozen_backbone = inner.frozen_backbone
        self.ill = copy.copy(inner)
        self.ill._features = inner._features.at[row].set(np.nan if cause == "loss" else MARK)
        self.plan: Plan | None = None

    def init(self, seed: int, heads: int) -> Any:
        return self.inner.init(seed, heads)

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        self.plan = plan
        self.left -= 1
        feed = self.inner if self.left >= 0 else self.ill
        return feed.train_epoch(state, frozen, cells, plan)

    def logits(self, params: Any, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        return self.inner.logits(params, frozen, cells, plan)


def test_t11_what_is_not_finite(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = drawn()
    rng = np.random.default_rng(0)
    with table.row("T11") as row:
        for trial in range(count(10)):
            cause = ("loss", "gradient")[trial % 2]
            folder, victim = tmp_path / str(trial), int(rng.integers(len(labels)))
            feeds: list[Sick] = []

            def sick(
                feed: Feed, victim: int = victim, cause: str = cause, made: list[Sick] = feeds
            ) -> Any:
                made.append(Sick(feed, victim, 1, cause))
                return made[-1]

            with row.trial(f"{cause} of image {victim}"), monkeypatch.context() as patch:
                if cause == "gradient":
                    patch.setattr(cached, "head_network", steep)
                with pytest.raises(Stopped):
                    fitted(folder, features, labels, on_epoch=stop_after(4))
                before = digests(folder / "checkpoints")
                assert before
                with pytest.raises(NumericsError) as caught:
                    fitted(folder, features, labels, wrap=sick)
                plan = feeds[0].plan
                assert plan is not None
                step, head = (
                    int(place[0])
                    for place in np.nonzero(((plan.rows == victim) & plan.mask).any(axis=2))
                )
                assert f"step {step}, head {head};" in str(caught.value)
                named = set(re.findall(r"'row (\d+)'", str(caught.value)))
                assert named == {str(number) for number in plan.rows[step, head].tolist()}
                assert digests(folder / "checkpoints") == before
        with row.trial("a metric"):
            folder = tmp_path / "metric"
            with pytest.raises(Stopped):
                fitted(folder, features, labels, on_epoch=stop_after(4))
            before = digests(folder / "checkpoints")
            inner = crossfit._stop_figures

            def wrong(*given: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                loss, accuracy, auc = inner(*given)
                return loss * np.nan, accuracy, auc

            monkeypatch.setattr(crossfit, "_stop_figures", wrong)
            with pytest.raises(NumericsError, match="stop folds is not finite") as caught:
                fitted(folder, features, labels)
            monkeypatch.undo()
            named = {int(number) for number in re.findall(r"'row (\d+)'", str(caught.value))}
            assert named
            assert named < set(range(len(labels)))
            assert digests(folder / "checkpoints") == before
        with (
            row.trial("an endless rate"),
            pytest.raises(NumericsError, match=r"config\.optimizer\.learning_rate"),
        ):
            fitted(
                tmp_path / "rate",
                features,
                labels,
                optimizer__name="sgd",
                optimizer__learning_rate=1e38,
            )
