"""The Python face: what the commands do, on paths, pandas frames and numpy arrays.

Own data are a folder of images and labels with blanks, in a file or in a frame:

>>> import tempfile
>>> from pathlib import Path
>>> import pandas as pd
>>> import mlc_jax as mlc
>>> from mlc_jax.data.demo import draw_demo
>>> folder = Path(tempfile.mkdtemp())
>>> drawn = draw_demo(folder / "drawn", rows=40)
>>> labels = pd.read_csv(drawn.labels, index_col="filename")  # 0, 1 and NaN

Every key of the job's configuration may be given, with `__` for its dots. These make it quick, not
good. A run says on screen what it does and what it had to choose:

>>> quick = dict(backbone__name="mobilenet_v2", backbone__weights="random", head__name="linear",
...              data__image_size=(32, 32), features__views=0, folds=3)
>>> run = mlc.impute(
...     drawn.images, labels, folder / "imputed", impute__rounds=0, **quick
... )  # doctest: +ELLIPSIS
defaults for own data with the linear head: ...
>>> int(labels.isna().sum().sum()), int(run.labels.isna().sum().sum())
(15, 0)
>>> sorted(run.cells["source"].unique())
['imputed', 'observed']

`run.labels_file` hands the completed table on, together with what is known of every cell of it.

>>> model = mlc.fit(
...     drawn.images, run.labels_file, folder / "model", **quick
... )  # doctest: +ELLIPSIS
defaults for own data with the linear head: ...
>>> model.predict(drawn.images / "image_0.jpg").columns[:4].tolist()
['sleeves_probability', 'sleeves', 'collar_probability', 'collar']
>>> mlc.load(folder / "model").labels == model.labels  # doctest: +ELLIPSIS
WARNING: mobilenet_v2 has RANDOM weights, as when ... was trained
True

What a caller can cause is an `mlc_jax.errors.MlcError` of one line. The rest of this module's work
is done by the stages.
"""

import contextlib
import os
import runpy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from absl import logging
from ml_collections import ConfigDict

from mlc_jax.data.cells import read_cells
from mlc_jax.data.delimited import shown
from mlc_jax.data.frames import completed_frame, labels_frame, labels_text
from mlc_jax.data.given import NamedFiles, checked_pixels, pixel_batches
from mlc_jax.data.labels import Quarantined
from mlc_jax.data.stream import list_images, stream_images
from mlc_jax.errors import ConfigError, ImageError, WorkdirError
from mlc_jax.files.atomic import write_text
from mlc_jax.files.runs import open_run, read_record
from mlc_jax.journal import Journal
from mlc_jax.settings import local_path, with_local_paths
from mlc_jax.stages import convert as convert_stage
from mlc_jax.stages import impute as impute_stage
from mlc_jax.stages import multilabel as multilabel_stage
from mlc_jax.training.parallel import Devices
from mlc_jax.training.restore import TrainedRun, open_classifier, scorer

FilePath = str | os.PathLike[str]

# Beside the package in a checkout, inside it where a wheel was installed.
_CONFIGS = (Path(__file__).with_name("configs"), Path(__file__).parents[1] / "configs")
# What the arguments say already, `source` included: it is for runs without labels of their own.
_GIVEN = ("data.images", "data.labels", "data.demo", "source")
_COMMAND_ONLY = ("stage", "dry_run")
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Run:
    """A finished impute run.

    Attributes:
      workdir: where its files lie.
    """

    workdir: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: metrics per label, warnings, seconds, versions."""
        return read_record(
            self.workdir / "summary.json", f"workdir={str(self.workdir)!r}", ("impute",)
        )

    @property
    def labels_file(self) -> Path:
        """The completed table as a file, beside its history: what `fit` and `impute` take."""
        return self.workdir / "labels.csv"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.workdir / "report.html"

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The completed table: Int8 [N, L] of 0, 1 and NA, by `filename`.

        A frame has no room for where its values come from, so `fit` and `impute` refuse this one
        and want `labels_file`.
        """
        return completed_frame(self.labels_file)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The history of every cell, one row per image and label, as `read_cells` gives it."""
        return read_cells(self.workdir / "cells.csv")


@dataclass(frozen=True, eq=False)
class Model:
    """A finished multilabel run, ready to be asked about images.

    Attributes:
      trained: the run, its backbone and its classifier.
    """

    trained: TrainedRun

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it gives. Those with nothing to learn are not among them."""
        return self.trained.names

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: the figures of the test split, and the warnings."""
        return self.trained.run.summary

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.trained.run.workdir / "report.html"

    @cached_property
    def _scorer(self) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
        return scorer(self.trained, "best", Devices("jit"), 0)

    def predict(self, images: FilePath | Sequence[FilePath] | np.ndarray) -> pd.DataFrame:
        """Calibrated probabilities, and the labels they give, as the predict job does.

        Args:
          images: an image; a folder, walked with the folders in it; a .txt or .csv list, with paths
            relative to its folder; a sequence of images; or pixels, uint8 [H, W, 3] or
            [N, H, W, 3], RGB and upright, of any size.

        Returns:
          For every label NAME the columns NAME_probability, float64, and NAME, Int8, which is 1
          where the probability is above the label's threshold. One row per image: by `filename`,
          relative to the folder or list, as given in a sequence; by `number` from 0 for pixels.
          A row without values is an image that cannot be used, which is warned of.

        Raises:
          ConfigError: a path that is not there, or nothing in a folder or list.
          ImageError: no image can be used, or pixels of another shape or dtype.
        """
        with _as_commands_run():
            score, most = self._scorer
        size = self.trained.spec.image_size
        names: Sequence[Any] | None = None
        if isinstance(images, np.ndarray):
            pixels = checked_pixels(images)
            batches, names = pixel_batches(pixels, size, most), range(len(pixels))
        elif isinstance(images, str | os.PathLike):
            listing = list_images(local_path(os.fspath(images), "images"), "")
            batches = stream_images(listing, size, most)
        else:
            names = [os.fspath(path) for path in images]
            batches = stream_images(NamedFiles.of(names), size, most)

        rows: dict[int, tuple[str, np.ndarray]] = {}
        refused: list[Quarantined] = []
        nothing = np.full(len(self.labels), np.nan)
        for batch in batches:
            with _as_commands_run():
                scored = score(batch.images) if batch.filenames else ()
            for row, name, own in zip(batch.rows, batch.filenames, scored, strict=True):
                rows[row] = name, own
                if np.isnan(own).any():
                    refused.append(Quarantined(name, row, "not_finite"))
            rows |= {item.row: (item.filename, nothing) for item in batch.refused}
            refused += batch.refused
        if not rows:
            raise ConfigError(f"{images!r} holds no image; give one or more")
        in_order = [rows[row] for row in sorted(rows)]
        if names is None:
            names = [name for name, _ in in_order]
        else:
            refused = [replace(item, filename=Path(str(names[item.row])).name) for item in refused]
        _say_refused(refused, len(rows))
        kind = "number" if isinstance(images, np.ndarray) else "filename"
        return self._frame(np.stack([own for _, own in in_order]), pd.Index(names, name=kind))

    def _frame(self, probabilities: np.ndarray, index: pd.Index) -> pd.DataFrame:
        columns = []
        for place, name in enumerate(self.labels):
            own = pd.Series(probabilities[:, place], index)
            given = (own > self.trained.classifier.threshold[place]).astype("Int8")
            columns += [own.rename(f"{name}_probability"), given.mask(own.isna()).rename(name)]
        return pd.concat(columns, axis=1)


def impute(images: FilePath, labels: FilePath | Any, workdir: FilePath, **keys: Any) -> Run:
    """Fills the blanks of labels: the impute job.

    Args:
      images: the image folder.
      labels: a label file of any format; or a frame (pandas, polars, Arrow) of 0, 1 and NaN with
        one column per label and the images' names in a column `filename` or in pandas' index. A
        frame is kept as given/labels.csv.
      workdir: where the run keeps its files. The same call again goes on where it stopped, or finds
        the run finished.
      keys: of configs/impute.py, `__` for dots: `head__name="linear"`.

    Raises:
      MlcError: of the class that fits; the message is one line.
    """
    place = _workdir(workdir)
    config = _configured("impute", images, labels, place, keys)
    with _as_commands_run():
        impute_stage.run(config, place)
    return Run(place)


def fit(images: FilePath, labels: FilePath | Any, workdir: FilePath, **keys: Any) -> Model:
    """Trains a classifier and measures it on images that it never saw: the multilabel job.

    Args:
      images: the image folder.
      labels: as `impute` takes them, blanks included; the `labels_file` of a `Run`.
      workdir: as for `impute`.
      keys: of configs/multilabel.py, `__` for dots: `threshold__rule="youden"`.

    Raises:
      MlcError: of the class that fits; the message is one line.
    """
    place = _workdir(workdir)
    config = _configured("multilabel", images, labels, place, keys)
    with _as_commands_run():
        multilabel_stage.run(config, place)
    return load(place)


def read_labels(labels: FilePath, **keys: Any) -> pd.DataFrame:
    """The labels of a file of any format, as the jobs read them.

    Args:
      labels: the file, the folder of an export, or several files with commas between them.
      keys: of `config.data` about label files, without `data__`: `tags_column="tags"`; `images` to
        look the names up in a folder.

    Returns:
      Int8 [N, L] of 0, 1 and NA, by `filename`. `attrs["receipt"]` says what was read as what.

    Raises:
      MlcError: of the class that fits; the message is one line.
    """
    config = _job_config("convert")
    for name, value in keys.items():
        if name == "labels" or name not in config.data:
            raise ConfigError(f"{name}={value!r}: there is no such key; see config.data in KEYS.md")
        try:
            config.data[name] = os.fspath(value) if name == "images" else value
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}={value!r}: {error}") from error
    config.data.labels = os.fspath(labels)
    file = convert_stage.read(with_local_paths(config))
    return labels_frame(file)


def load(workdir: FilePath) -> Model:
    """Opens a finished multilabel run, by `fit` or by the command.

    Raises:
      CheckpointError: there is no such run, it is damaged, or its weights are not to be had.
    """
    with _as_commands_run():
        return Model(open_classifier(open_run(_workdir(workdir), key="workdir"), Journal()))


@contextlib.contextmanager
def _as_commands_run() -> Iterator[None]:
    """What the command line settles for its process: errors alone are logged, 32 bits computed."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with jax.enable_x64(False):
            yield
    finally:
        logging.set_verbosity(before)


def _workdir(workdir: FilePath) -> Path:
    return Path(local_path(os.fspath(workdir), "workdir"))


def _configured(
    stage: str,
    images: FilePath,
    labels: FilePath | Any,
    workdir: Path,
    keys: dict[str, Any],
) -> ConfigDict:
    config = _job_config(stage)
    for name, value in keys.items():
        key = name.replace("__", ".")
        if key in _GIVEN:
            raise ConfigError(f"{name}={value!r}: images and labels say this already; leave it out")
        if key in _COMMAND_ONLY or key not in _flat(config):
            raise ConfigError(
                f"{name}={value!r}: configs/{stage}.py has no key {key!r}; write `__` for the dots "
                "of one of configs/KEYS.md"
            )
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}={value!r}: {error}") from error
    config = with_local_paths(config)
    config.data.images = local_path(os.fspath(images), "images")
    if isinstance(labels, pd.DataFrame):
        config.data.labels = str(_write_given(labels, workdir, config.accept_changes))
    else:
        config.data.labels = local_path(os.fspath(labels), "labels")
    return config


def _job_config(stage: str) -> ConfigDict:
    file = next(folder / f"{stage}.py" for folder in _CONFIGS if folder.is_dir())
    config: ConfigDict = runpy.run_path(str(file))["get_config"]()
    return config


def _flat(config: ConfigDict, prefix: str = "") -> set[str]:
    """The full names of the keys that hold values."""
    names: set[str] = set()
    for name, value in config.items():
        inside = isinstance(value, ConfigDict)
        names |= _flat(value, f"{prefix}{name}.") if inside else {prefix + name}
    return names


def _write_given(frame: Any, workdir: Path, accept_changes: bool) -> Path:
    """Keeps a frame as a labels file, in a folder of its own: the run's cells.csv is not about it.

    Raises:
      LabelsError: see `labels_text`.
      WorkdirError: the workdir holds a run on other labels, and changes are not accepted; or it
        cannot be written.
    """
    text = labels_text(frame)
    file = workdir / "given" / "labels.csv"
    kept = not accept_changes and (workdir / "run.json").exists() and file.exists()
    if kept and file.read_bytes() != text.encode():
        raise WorkdirError(
            f"{workdir} holds a run on other labels; choose another workdir, or give "
            "accept_changes=True to begin it anew"
        )
    try:
        write_text(file, text)
    except OSError as error:
        raise WorkdirError(f"{file}: {error.strerror}; choose another workdir") from error
    return file


def _say_refused(refused: list[Quarantined], total: int) -> None:
    """Warns of images that cannot be used.

    Raises:
      ImageError: there is no other image.
    """
    if not refused:
        return
    first = ", ".join(f"{shown(item.filename)} ({item.reason})" for item in refused[:_SHOWN])
    more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    told = f"{len(refused)} of {total} images cannot be used: {first}{more}"
    if len(refused) == total:
        raise ImageError(refused[0].reason, f"{told}; mend or replace them")
    Journal().warn(f"{told}; their rows are empty")
