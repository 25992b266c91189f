"""Export: the classifier of a finished multilabel run, as a folder that stands alone.

What is written is checked before it is called finished: the program is read back from its file and
asked about images, beside the classifier itself.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from ml_collections import ConfigDict

from mlc_jax import __version__
from mlc_jax.data import pixels
from mlc_jax.errors import ConfigError, NumericsError
from mlc_jax.files.atomic import write_bytes, write_json, write_text
from mlc_jax.files.digest import digest_file
from mlc_jax.files.outputs import Results
from mlc_jax.files.runs import open_run
from mlc_jax.files.workdir import owned
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.download import licence_of_published
from mlc_jax.models.tuning import tuned_backbone
from mlc_jax.models.weights import write_weights
from mlc_jax.report.model_card import model_card
from mlc_jax.training.classifier import trained_params
from mlc_jax.training.feeds import load_configured
from mlc_jax.training.parallel import Devices
from mlc_jax.training.program import PLATFORMS, export_program, write_head
from mlc_jax.training.provenance import without_paths
from mlc_jax.training.restore import TrainedRun, open_classifier, scorer

PROGRAM = "program.jaxexport"
PROGRAM_IS = "the whole classifier as StableHLO, in the container of jax.export"
BACKBONE_IS = "weights of {}, as `config.backbone.weights` reads them"
OTHERS = {
    "head.safetensors": "head, feature standardisation, calibration, thresholds",
    "labels.json": "the names of the outputs, in order",
    "thresholds.json": "per label the threshold, the rule that chose it, its spread over folds",
    "config.json": "the configuration that it was trained with, without paths",
    "pixels.py": "from an image file to the pixels that the program takes",
    "README.md": "this card",
}
DIGESTS = "SHA256SUMS"
CHECKED_IMAGES = 3
TOLERANCE = 1e-3  # of a probability; float32 differs from one program to the next by 1e-6


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Exports, and writes over an earlier export in the same workdir.

    Args:
      config: of configs/export.py, as the command line left it.
      workdir: the folder.

    Returns:
      What summary.json holds.

    Raises:
      CheckpointError: there is no finished multilabel run to export.
      NumericsError: the program does not say what the classifier says.
    """
    journal = Journal()
    which = config.checkpoint_kind
    run_read = open_run(Path(config.checkpoint))
    with owned(workdir):
        trained = open_classifier(run_read, journal, config.backbone.weights)
        if trained.backbone.given:
            raise ConfigError(
                f"config.checkpoint={config.checkpoint!r} was trained on own features: "
                "there is no network to hand on"
            )
        params = trained_params(trained.classifier, which)
        files = files_of(trained.backbone)
        results = Results(workdir, config.stage, run_read, (*files, DIGESTS))
        results.replace(journal.note)
        with journal.phase("export", 0, "files"):
            write_backbones(workdir, tuned_backbone(_as_published(trained), params))
            write_head(workdir / "head.safetensors", trained, which)
            program = export_program(trained, which).serialize()
            write_bytes(workdir / PROGRAM, bytes(program))
        with journal.phase("check the program", CHECKED_IMAGES, "images") as advance:
            difference = check_program(workdir / PROGRAM, trained, which)
            advance(CHECKED_IMAGES)
        thresholds = json.loads((run_read.workdir / "thresholds.json").read_text())
        write_json(workdir / "thresholds.json", thresholds)
        write_json(workdir / "labels.json", list(trained.names))
        write_json(workdir / "config.json", without_paths(trained.config))
        write_text(workdir / "pixels.py", Path(pixels.__file__).read_text(encoding="utf-8"))
        card = describe_card(trained, which, thresholds, difference)
        write_text(workdir / "README.md", model_card(card, run_read.summary))
        digests = {name: digest_file(workdir / name) for name in sorted(files)}
        lines = [f"{digest}  {name}\n" for name, digest in digests.items()]
        write_text(workdir / DIGESTS, "".join(lines))
        # Meant to be handed on, so it names no path of this machine.
        summary = {
            "demo": run_read.demo,
            "checkpoint": {"kind": which, "digest": trained.digest},
            "labels": list(trained.names),
            "image_size": list(trained.spec.image_size),
            "platforms": list(PLATFORMS),
            "largest_difference": difference,
            "warnings": journal.warnings,
            "seconds": journal.seconds,
            "versions": {"mlc_jax": __version__, "jax": importlib.metadata.version("jax")},
            "digests": digests,
        }
        summary = results.finish(summary)
        for name in files:
            size = (workdir / name).stat().st_size
            journal.line(f"{digests[name][:12]}…  {size:>12,} bytes  {workdir / name}")
        journal.line(f"digests {workdir / DIGESTS}, how to use it {workdir / 'README.md'}")
        return summary


def backbone_files(backbone: Backbone) -> dict[str, str]:
    """Name to file: the weights of each network, since a weight file holds one network's."""
    parts = backbone.parts
    return (
        {part.name: f"backbone-{part.name}.safetensors" for part in parts}
        if parts
        else {backbone.name: "backbone.safetensors"}
    )


def files_of(backbone: Backbone) -> dict[str, str]:
    """The files of an export over this backbone, the digests aside, and what each is."""
    weights = {file: BACKBONE_IS.format(name) for name, file in backbone_files(backbone).items()}
    return {PROGRAM: PROGRAM_IS} | weights | OTHERS


def write_backbones(workdir: Path, backbone: Backbone) -> None:
    """Writes the weights, each network's in a file of its own.

    Args:
      workdir: of the export.
      backbone: with the parameters to write, batch norms not folded.
    """
    files = backbone_files(backbone)
    for part in backbone.parts or (backbone,):
        params = backbone.params[part.name] if backbone.parts else backbone.params
        write_weights(workdir / files[part.name], part.name, params, part.preprocess)


def _as_published(trained: TrainedRun) -> Backbone:
    """The backbone with its batch norms where weight files have them, not folded."""
    if not trained.backbone.folded:
        return trained.backbone
    config = trained.config.copy_and_resolve_references()
    config.backbone.fold_batch_norm = False
    given = config.backbone.weights
    every = trained.backbone.random and "," not in given
    return load_configured(config, "random" if every else given)


def check_program(path: Path, trained: TrainedRun, which: str) -> float:
    """The largest difference between the file's probabilities and the classifier's, on noise.

    Raises:
      NumericsError: it is larger than rounding explains.
    """
    shape = (CHECKED_IMAGES, *trained.spec.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    score, most = scorer(trained, which, Devices("jit"), CHECKED_IMAGES)
    assert most == CHECKED_IMAGES
    program = export.deserialize(bytearray(path.read_bytes()))
    probabilities, _ = program.call(images)
    difference = float(np.abs(np.asarray(probabilities) - score(images)).max())
    if not difference <= TOLERANCE:
        raise NumericsError(
            f"{path} gives probabilities that are {difference:.2g} away from the classifier's; "
            "export it with another version of jax, and report this"
        )
    return difference


def describe_card(
    trained: TrainedRun, which: str, thresholds: dict[str, Any], difference: float
) -> dict[str, Any]:
    """What the model card says beside the run's summary."""
    return {
        "names": trained.names,
        "kind": which,
        "image_size": trained.spec.image_size,
        "head": trained.config.head.name,
        "trainable": trained.config.backbone.trainable,
        "licence": licence_of(trained),
        "digest": trained.digest,
        "platforms": PLATFORMS,
        "checked": {
            "platform": jax.default_backend(),
            "images": CHECKED_IMAGES,
            "largest_difference": difference,
        },
        "versions": {"jax": importlib.metadata.version("jax")},
        "rules": sorted({record["rule"] for record in thresholds.values()}),
        "files": files_of(trained.backbone),
    }


def licence_of(trained: TrainedRun) -> str:
    """The licences of the backbone's weights, as far as they are known."""
    parts = trained.backbone.parts or (trained.backbone,)
    given = trained.config.backbone.weights
    sources = [given] * len(parts) if given in ("imagenet", "random") else given.split(",")
    said = [_licence(part, source.strip()) for part, source in zip(parts, sources, strict=True)]
    if len(set(said)) == 1:
        return said[0]
    return "; ".join(f"{part.name}: {text}" for part, text in zip(parts, said, strict=True))


def _licence(backbone: Backbone, source: str) -> str:
    if backbone.random:
        return "none needed, they are random"
    if source == "imagenet":
        return licence_of_published(backbone.name)
    return (
        f"not known here. They came from the file {Path(source).name}; whoever hands this on has "
        "to find out"
    )
