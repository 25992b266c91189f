"""Early stopping against a loop over one head at a time."""

import numpy as np
import pytest

from mlc_jax.training.early_stopping import EarlyStopping


def one_head(
    auc: list[float], loss: list[float], patience: int
) -> tuple[list[bool], list[bool], int]:
    """(improved, active afterwards) per epoch, and the best epoch, of a head by itself."""
    improved, active = [], []
    best = -1
    waited, over = 0, False
    for epoch in range(len(auc)):
        better = best < 0
        if best >= 0 and auc[epoch] != auc[epoch]:
            better = loss[epoch] < loss[best]
        elif best >= 0:
            better = auc[epoch] > auc[best] or (
                auc[epoch] == auc[best] and loss[epoch] < loss[best]
            )
        better = better and not over
        if better:
            best, waited = epoch, 0
        elif not over:
            waited += 1
            over = waited == patience
        improved.append(better)
        active.append(not over)
    return improved, active, best


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_every_head_is_judged_as_if_it_were_alone(patience: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    heads, epochs = 12, 20
    # Few different values, so that ties are common; some heads have no AUC at all.
    auc = rng.integers(0, 4, (epochs, heads)) / 4
    loss = rng.integers(1, 6, (epochs, heads)) / 5
    auc[:, :3] = np.nan
    stopping = EarlyStopping.start(patience, heads)
    improved, active = [], []
    for epoch in range(epochs):
        improved.append(stopping.update(epoch, auc[epoch], loss[epoch]))
        active.append(stopping.active)
    for head in range(heads):
        better, going, best = one_head(auc[:, head].tolist(), loss[:, head].tolist(), patience)
        assert np.array(improved)[:, head].tolist() == better
        assert np.array(active)[:, head].tolist() == going
        assert stopping.epoch[head] == best
        assert stopping.loss[head] == loss[best, head]
        np.testing.assert_equal(stopping.auc[head], auc[best, head])


def test_before_the_first_epoch_all_are_active_and_none_has_a_best() -> None:
    stopping = EarlyStopping.start(3, 4)
    assert stopping.active.all()
    assert (stopping.epoch == -1).all()
