"""Stage 1 on a collection: features, groups of copies, folds and fits, with checkpoints."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.collection import Collection
from mlc_jax.data.groups import Groups, find_groups, given_split, say_torn
from mlc_jax.data.table import MISSING
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.settings import cache_folder, solves_exactly
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.completion import Completion, MetricsOf, complete, deal_out
from mlc_jax.training.crossfit import left_out_warnings
from mlc_jax.training.features import Features
from mlc_jax.training.feeds import feature_shape_of, open_features
from mlc_jax.training.parallel import Devices, leaders
from mlc_jax.training.provenance import run_inputs
from mlc_jax.training.strengths import MOST_STEPS
from mlc_jax.training.writer import MetricsWriter


@dataclass(frozen=True)
class Imputation:
    """What stage 1 made of a collection.

    Attributes:
      completion: the judged fits.
      groups: which images had to share a fold.
      features: of all images.
    """

    completion: Completion
    groups: Groups
    features: Features


def impute_collection(
    config: ConfigDict, workdir: Path, collection: Collection, backbone: Backbone, journal: Journal
) -> Imputation:
    """Runs stage 1, going on with the checkpoints in the workdir.

    Args:
      config: the run's configuration.
      workdir: holds the checkpoints of each round and metrics.jsonl. From the checkpoints of a
        finished run nothing is trained: its heads are asked again.
      collection, backbone: what is learned.
      journal: told of every phase, of what cannot be fitted and of each round.

    Raises:
      LabelsError: no label can be fitted.
    """
    table = collection.table
    values = np.where(table.human, table.values, np.int8(MISSING))
    devices = Devices(config.parallel)
    features = open_features(config, collection.images, backbone, devices, cache_folder(), journal)
    # Before anything is oversampled, augmented or fitted.
    # The features of the leader, so that all processes find the same copies.
    groups = find_groups(collection, leaders(features.pooled), config.near_copies, journal)
    deal = deal_out(config, values, groups.of_image, given_split(collection))
    say_torn(groups.of_image, deal.fold_of, collection.images.filenames, journal)
    guessed = {column: deal.unfit[column] for column in deal.unjudged}
    others = {column: why for column, why in deal.unfit.items() if column not in guessed}
    for warning in left_out_warnings(table.names, others):
        journal.warn(f"{warning}; blanks stay")
    for warning in left_out_warnings(table.names, guessed):
        journal.warn(
            f"{warning}; blanks get a probability that nothing has judged, and what "
            f"config.impute.unlearnable={config.impute.unlearnable} fills in is a guess"
        )
    fitted = len(table.names) - len(deal.unfit)
    journal.note(
        f"{fitted * len(deal.splits)} {config.head.name} heads ({fitted} labels x "
        f"{len(deal.splits)} folds) on {devices.count} {devices.platform} device(s) under "
        f"{config.parallel}"
    )
    inputs = run_inputs(config, collection, backbone)
    writer = MetricsWriter(workdir, journal.warn)
    exact = solves_exactly(config)
    most = MOST_STEPS if exact else config.epochs * (config.impute.rounds + 1)
    try:
        with journal.phase("train heads", most, "strengths" if exact else "epochs") as advance:

            def on_epoch(number: int, epoch: int, metrics: MetricsOf) -> None:
                line = {"round": number} | metrics(table.names)
                writer.write(number * (config.epochs or 0) + epoch, line)
                advance(1)

            completion = complete(
                config,
                values,
                groups.of_image,
                deal,
                features,
                feature_shape_of(config, backbone),
                devices,
                lambda name: Checkpoints(workdir / "checkpoints" / name, inputs),
                on_epoch,
                journal.warn,
            )
    finally:
        writer.close()
    for number, gained in enumerate(completion.rounds, 1):
        told = ", ".join(
            f"{table.names[label]} {gain.mean:+.4f} ± {gain.error:.4f} "
            f"{'kept' if gain.accepted else 'not kept'}"
            for label, gain in gained.items()
        )
        journal.note(f"self-training round {number}, fall of the log loss: {told}")
    return Imputation(completion, groups, features)
