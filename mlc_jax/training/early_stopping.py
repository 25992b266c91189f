"""Early stopping, one decision per head."""

from dataclasses import dataclass

import numpy as np


@dataclass
class EarlyStopping:
    """Remembers each head's best epoch and stops heads that no longer improve.

    An epoch is better when its AUC is higher, or equal with a lower loss. Where the stop fold holds
    one class only the AUC is undefined and the loss alone decides.

    Attributes:
      patience: epochs without improvement after which a head stops.
      auc, loss: float64 [heads], of the best epoch; NaN AUC where undefined.
      epoch: int64 [heads], the best epoch, counted from 0; -1 before the first.
      waited: int64 [heads], epochs since the best one.
    """

    patience: int
    auc: np.ndarray
    loss: np.ndarray
    epoch: np.ndarray
    waited: np.ndarray

    @classmethod
    def start(cls, patience: int, heads: int) -> "EarlyStopping":
        """Before the first epoch."""
        return cls(
            patience,
            np.full(heads, -np.inf),
            np.full(heads, np.inf),
            np.full(heads, -1, np.int64),
            np.zeros(heads, np.int64),
        )

    @property
    def active(self) -> np.ndarray:
        """bool [heads], which heads go on."""
        return self.waited < self.patience

    def update(self, epoch: int, auc: np.ndarray, loss: np.ndarray) -> np.ndarray:
        """Takes in one epoch's figures on the stop fold; heads that have stopped keep theirs.

        Args:
          epoch: its number.
          auc, loss: float [heads].

        Returns:
          bool [heads], whether this epoch is the best so far.
        """
        higher, equal = auc > self.auc, (auc == self.auc) | np.isnan(auc)
        improved = self.active & (higher | (equal & (loss < self.loss)))
        self.waited = np.where(self.active, np.where(improved, 0, self.waited + 1), self.waited)
        self.auc = np.where(improved, auc, self.auc)
        self.loss = np.where(improved, loss, self.loss)
        self.epoch = np.where(improved, epoch, self.epoch)
        return improved
