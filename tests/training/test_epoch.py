"""An epoch is one compiled program: nothing is compiled after the first, nothing copied inside."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mlc_jax.data.sampling import Plan
from mlc_jax.models.tuning import Trained
from mlc_jax.training.features import Cells, Feed
from mlc_jax.training.step import Frozen, Sums, TrainState
from tests.training.synthetic import drawn, fitted

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Grows with every program that is compiled."""
    programs: list[str] = []

    def listen(event: str, _: float, **__: Any) -> None:
        if event == COMPILED:
            programs.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield programs
    jax.monitoring.unregister_event_duration_listener(listen)


@dataclass
class Guarded:
    """A feed whose epochs run under jax's guard against copies; the plan is handed over before."""

    inner: Feed
    hand_over: Callable[[Plan], Plan]
    epochs: int = 0

    @property
    def frozen_backbone(self) -> dict[str, Any]:
        return self.inner.frozen_backbone

    def init(self, seed: int, heads: int) -> Trained:
        return self.inner.init(seed, heads)

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        plan = self.hand_over(plan)
        self.epochs += 1
        with jax.transfer_guard("disallow"):
            return jax.block_until_ready(self.inner.train_epoch(state, frozen, cells, plan))

    def logits(self, params: Trained, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        return self.inner.logits(params, frozen, cells, plan)


def test_nothing_is_compiled_after_the_first_epoch(tmp_path: Path, compiled: list[str]) -> None:
    counts: list[int] = []
    fitted(tmp_path / "run", *drawn(), on_epoch=lambda _: counts.append(len(compiled)), epochs=5)
    assert counts[0] > 0
    assert counts == [counts[0]] * 5


def test_nothing_is_copied_between_host_and_device_inside_an_epoch(tmp_path: Path) -> None:
    feeds: list[Guarded] = []

    def guard(feed: Feed) -> Guarded:
        feeds.append(Guarded(feed, jax.device_put))
        return feeds[-1]

    fitted(tmp_path / "run", *drawn(), wrap=guard, epochs=3)
    assert feeds[0].epochs == 3


def test_the_guard_would_see_a_copy(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        fitted(tmp_path / "run", *drawn(), wrap=lambda feed: Guarded(feed, lambda p: p), epochs=2)
