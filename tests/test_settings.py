"""Laws of the configuration: what is not given is filled in, what cannot be used is refused."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from ml_collections import ConfigDict

from mlc_jax.assess.thresholds import Rule
from mlc_jax.errors import ConfigError
from mlc_jax.models.features import DTYPES
from mlc_jax.models.heads import HEADS
from mlc_jax.settings import (
    CHOICES,
    THRESHOLDS,
    TRAINED_ONLY,
    cache_folder,
    is_demo,
    resolve,
)
from mlc_jax.training.optimizers import OPTIMIZERS, SCHEDULES
from mlc_jax.training.parallel import Devices

ROOT = Path(__file__).parents[1]
OWN = {"data.labels": "labels.csv", "data.images": "images"}
LINEAR, NOTEBOOK = {"head.name": "linear"}, {"impute.method": "notebook"}
NAN, INF = float("nan"), float("inf")


def configuration(changes: dict[str, Any], job: str = "impute") -> ConfigDict:
    config: ConfigDict = importlib.import_module(f"configs.{job}").get_config()
    config.update_from_flattened_dict(changes)
    return config


def resolved(changes: dict[str, Any], job: str = "impute") -> tuple[ConfigDict, list[str]]:
    notes: list[str] = []
    return resolve(configuration(changes, job), notes.append), notes


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# The defaults of the design, and those for a quick demo.
DEFAULTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (OWN, {"data.image_size": (450, 350), "features.views": 8, "epochs": 40, "patience": 5}),
    (OWN, {"optimizer.learning_rate": 1e-5, "schedule.name": "plateau", "loss.name": "bce"}),
    (OWN, {"backbone.name": "vgg19", "backbone.weights": "imagenet", "head.name": "conv"}),
    (OWN, {"oversample": "label", "optimizer.name": "adam", "folds": 5, "parallel": "jit"}),
    (OWN, {"impute.threshold": "matched", "seed": 0}),
    (OWN, {"impute.method": "crossfit", "impute.max_error": 1.0, "impute.rounds": 0}),
    (OWN | LINEAR, {"impute.rounds": 1, "impute.threshold": "matched", "impute.deals": 1}),
    (OWN | LINEAR | NOTEBOOK, {"impute.rounds": 0, "impute.threshold": "fixed"}),
    ({}, {"data.image_size": (64, 64), "features.views": 1, "epochs": 15}),
]


@pytest.mark.parametrize(("given", "expected"), DEFAULTS)
def test_defaults(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = dict(leaves(resolved(given)[0]))
    assert {key: found[key] for key in expected} == expected


def test_a_linear_head_that_is_trained_has_a_higher_rate() -> None:
    rates = [
        resolved({**OWN, "head.name": head, "loss.name": "focal"})[0].optimizer.learning_rate
        for head in ("conv", "linear")
    ]
    assert rates[1] > 10 * rates[0]


def test_keys_of_training_mean_nothing_to_heads_that_are_solved() -> None:
    config, notes = resolved({**OWN, "head.name": "linear", "epochs": 3, "patience": 2})
    assert all(dict(leaves(config))[key] is None for key in TRAINED_ONLY)
    assert any("config.epochs, config.patience: without effect" in note for note in notes)
    assert config.oversample == "none"
    assert config.features.mirror
    # Where heads are trained step by step nothing of the kind is noted.
    for own in ({"head.name": "conv"}, {"head.name": "linear", "loss.name": "hill"}):
        config, notes = resolved({**OWN, **own, "epochs": 3})
        assert config.epochs == 3
        assert not any("without effect" in note for note in notes)


@pytest.mark.parametrize("head", [{}, {"head.name": "linear"}])
@pytest.mark.parametrize("data", [{}, OWN])
def test_nothing_is_left_open_and_every_choice_is_said(
    data: dict[str, Any], head: dict[str, Any]
) -> None:
    given = data | head
    before = dict(leaves(configuration(given)))
    config, (note,) = resolved(given)
    after = dict(leaves(config))
    solved = "head.name" in head
    assert {key for key, value in after.items() if value is None} == (
        set(TRAINED_ONLY) if solved else set()
    )
    for key, value in after.items():
        if solved and key in TRAINED_ONLY:
            continue
        if before[key] is not None:
            assert value == before[key]
        elif key != "data.demo":
            assert f"{key}={value}" in note


def test_what_is_given_stays() -> None:
    given = {
        "data.image_size": (96, 80),
        "features.views": 3,
        "epochs": 2,
        "patience": 1,
        "optimizer.learning_rate": 0.5,
        "schedule.name": "constant",
    }
    found = dict(leaves(resolved(given)[0]))
    assert {key: found[key] for key in given} == given


def test_fine_tuning_keeps_no_features_and_rounds_none() -> None:
    config, notes = resolved({"backbone.trainable": "last_block"})
    assert not config.features.cache
    assert config.features.dtype == "float32"
    assert any("features.cache=false" in note for note in notes)
    with pytest.raises(ConfigError, match="float32 while the backbone is fine-tuned"):
        resolved({"backbone.trainable": "all", "features.dtype": "float16"})
    tuned = {"backbone.trainable": "last_block", "backbone.layer": "block4_pool"}
    with pytest.raises(ConfigError, match=r"config.backbone.layer='block4_pool' cannot be used"):
        resolved(tuned)
    assert resolved(tuned | {"backbone.trainable": "all"})[0].backbone.layer == "block4_pool"


def test_the_given_configuration_is_not_changed() -> None:
    config = configuration({})
    before = config.to_json()
    resolve(config, lambda _: None)
    assert config.to_json() == before


def test_resolving_again_changes_nothing() -> None:
    config, _ = resolved(OWN)
    again = resolve(config, pytest.fail)
    assert again.to_json() == config.to_json()


def test_the_demo_is_what_runs_without_data() -> None:
    assert is_demo(configuration({}))
    assert not is_demo(configuration(OWN))


@pytest.mark.parametrize("key", ["data.labels", "data.images"])
def test_labels_and_images_go_together(key: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.data\.labels and config\.data\.images"):
        resolved({key: "somewhere"})


BAD: list[tuple[str, list[Any]]] = [
    ("seed", [-1, 2**31]),
    ("data.image_size", [(64,), (64, 64, 3), (31, 64), (64, 31), (64.0, 64), ("a", "b"), ()]),
    ("data.max_bad_fraction", [-0.1, 1.1, NAN]),
    ("backbone.trainable", ["", "first"]),
    ("features.compute", ["", "float16"]),
    ("backbone.learning_rate", [0.0, -1.0, NAN, INF]),
    ("features.views", [-1, 1001]),
    ("features.dtype", ["float64", "int8", ""]),
    ("features.batch_size", [-1]),
    ("features.memory", [-0.1, 1.1, NAN]),
    ("augment.rotation", [-1.0, 181.0, NAN, INF]),
    ("augment.shear", [-0.1, 90.0, NAN]),
    ("augment.zoom", [-0.1, 1.0, NAN]),
    ("augment.shift", [-0.1, 1.0, NAN]),
    (
        "augment.brightness",
        [(), (1.0,), (1.0, 0.5), (-1.0, 1.0), (0.0, 1.0, 2.0), ("a", "b"), (0.0, INF), (NAN, 1.0)],
    ),
    ("oversample", ["labels", "power", ""]),
    ("oversample_ratio", [0.0, 0.51, NAN]),
    ("head.name", ["dense", ""]),
    ("features.scales", [(), (0.0,), (9.0,), ("a",), (1.0, 1.43), (NAN,)]),
    ("features.mirror", [True]),
    ("loss.name", ["hinge", ""]),
    ("optimizer.name", ["adamax", ""]),
    ("optimizer.learning_rate", [0.0, -1e-3, NAN, INF]),
    ("optimizer.l2", [-0.1, NAN, INF]),
    ("schedule.name", ["step", ""]),
    ("schedule.factor", [0.0, 1.0, NAN]),
    ("schedule.rtol", [-0.1, 1.0, NAN]),
    ("schedule.warmup", [-0.1, 1.0, NAN]),
    ("schedule.rate", [0.0, 1.1, NAN]),
    ("schedule.boundaries", [(0.0,), (1.0,), ("a",), (0.5, NAN)]),
    ("epochs", [0, -1]),
    ("patience", [0]),
    ("batch_size", [0]),
    ("folds", [2, 0, -5]),
    ("save_every", [0]),
    ("parallel", ["mesh", ""]),
    ("near_copies", [0.5, -1.0, NAN]),
    ("data.blank", ["true", "no"]),
    ("data.absent", ["true", "0"]),
    ("data.uncertain", ["0", "nan"]),
    ("data.soft", [(0.5,), (0.7, 0.3), (-0.1, 0.5), (0.5, 100.1), ("a", "b"), (0.1, NAN)]),
    ("data.annotators", ["", "mean"]),
    ("data.match", ["suffix"]),
    ("impute.method", ["notebooks", ""]),
    ("impute.threshold", ["1.5", "-0.1", "nan", "best", ""]),
    ("impute.max_error", [0.0, -0.1, 1.1, NAN]),
    ("impute.max_error_of", ["", "cell", "labels"]),
    ("impute.unlearnable", ["", "minority", "none"]),
    ("impute.rounds", [-1, 21]),
    ("impute.deals", [0, 51]),
]


@pytest.mark.parametrize(("key", "values"), BAD, ids=[key for key, _ in BAD])
def test_a_bad_value_is_one_line_that_names_key_and_value(key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError) as caught:
            resolved({key: value})
        message = str(caught.value)
        assert "\n" not in message
        assert f"config.{key}={value!r}" in message, message


@pytest.mark.parametrize("strength", [-1.0, NAN, INF])
def test_a_strength_is_a_positive_number_or_chosen(strength: float) -> None:
    with pytest.raises(ConfigError, match=r"config\.head\.strength=.* cannot be used"):
        resolved({**OWN, "head.name": "linear", "head.strength": strength})
    assert resolved({**OWN, "head.name": "linear", "head.strength": 7.0})[0].head.strength == 7.0


def test_every_number_and_name_is_checked() -> None:
    """A key that is new in the configuration needs its bad values above."""
    unchecked = {
        "stage",  # by the command line
        "head.strength",  # of a linear head: see above
        "data.demo",
        "data.labels",
        "data.images",
        "data.true_values",  # when the labels are read
        "data.false_values",
        "data.missing_values",
        "data.format",
        "data.encoding",
        "data.file_column",
        "data.label_columns",
        "data.ignore_columns",
        "data.tags_column",
        "data.tags_separator",
        "data.annotator_column",
        "data.names",
        "data.suffix",
        "data.prefix",
        "data.follow_links",
        "data.groups",
        "data.split",
        "backbone.name",  # when the backbone is loaded, before anything long
        "backbone.weights",
        "backbone.layer",
        "backbone.fold_batch_norm",  # booleans have no bad value
        "features.cache",
        "features.file",  # when the file is read, before anything else
        "features.measure",
        "accept_changes",
        "dry_run",
        "augment.horizontal_flip",
        "augment.vertical_flip",
    }
    keys = {key for key, _ in leaves(configuration({})) if not key.startswith("loss.")}
    assert keys - {key for key, _ in BAD} <= unchecked


def test_the_choices_are_those_of_the_modules() -> None:
    """`settings` lies below the modules that know these names, so it lists them once more."""
    assert CHOICES["features.dtype"] == DTYPES
    assert CHOICES["head.name"] == tuple(HEADS)
    assert CHOICES["optimizer.name"] == tuple(OPTIMIZERS)
    assert CHOICES["schedule.name"] == SCHEDULES
    assert set(THRESHOLDS) == set(get_args(Rule))
    for kind in CHOICES["parallel"]:
        assert Devices(kind).kind == kind


@pytest.mark.parametrize("threshold", [*THRESHOLDS, "0", "1", "0.35", "1e-3"])
def test_rules_and_shares_are_thresholds(threshold: str) -> None:
    assert resolved({"impute.threshold": threshold})[0].impute.threshold == threshold


@pytest.mark.parametrize("job", ["impute", "multilabel"])
def test_the_configurations_of_training_resolve(job: str) -> None:
    assert resolved({}, job)[0].stage == job


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLC_JAX_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("MLC_JAX_CACHE", "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/mlc_jax")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLC_JAX_CACHE", "here")
    assert cache_folder() == tmp_path / "here"
