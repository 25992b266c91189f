"""An export stands alone: it runs without this package, and says what predict says."""

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from jax import export as jax_export
from ml_collections import ConfigDict
from PIL import Image

from configs import predict as predict_config
from configs.export import get_config
from mlc_jax.data.images import decode_image
from mlc_jax.data.pixels import resize_image
from mlc_jax.errors import CheckpointError, ConfigError, WorkdirError
from mlc_jax.files.digest import digest_file
from mlc_jax.files.runs import open_run
from mlc_jax.journal import Journal
from mlc_jax.models import backbones
from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained as TrainedParams
from mlc_jax.report.model_card import escaped, model_card
from mlc_jax.stages import export, predict
from mlc_jax.training.parallel import Devices
from mlc_jax.training.program import export_program
from mlc_jax.training.restore import open_classifier, scorer
from tests.small_networks import Small
from tests.stages.conftest import Trained


def configured(trained: Trained, **changes: str) -> ConfigDict:
    config = get_config()
    config.update({"checkpoint": str(trained.workdir), **changes})
    return config


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "folder"
    export.run(configured(trained), folder)
    return folder


def test_the_model_cards_example_says_what_predict_says(
    trained: Trained, exported: Path, tmp_path: Path
) -> None:
    """In a fresh interpreter, in which nothing of this package is imported."""
    (example,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    ours = "{'mlc_jax', 'flax', 'optax', 'orbax', 'safetensors', 'ml_collections'}"
    last = f"assert not {ours} & {{name.split('.')[0] for name in sys.modules}}\n"
    (exported / "run.py").write_text(example + last)
    image = sorted(trained.images.iterdir())[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(exported / "run.py"), str(image)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    (exported / "run.py").unlink()
    assert done.returncode == 0, done.stderr
    config = predict_config.get_config()
    config.checkpoint, config.data.images = str(trained.workdir), str(image)
    predict.run(config, tmp_path / "predict")
    (theirs,) = pd.read_csv(tmp_path / "predict" / "predictions.csv").to_dict("records")
    said = [line.split("\t") for line in done.stdout.splitlines()]
    assert [name for name, _, _ in said] == json.loads((exported / "labels.json").read_text())
    for name, probability, given in said:
        assert float(probability) == pytest.approx(theirs[f"{name}_probability"], abs=1e-5)
        assert int(given) == theirs[name]


def test_the_example_sees_every_kind_of_image_as_predict_does(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, x = np.mgrid[0:40, 0:56]
    colour = np.dstack([4 * x, 5 * y, 0 * x, np.where(x > 20, 255, 0)]).astype(np.uint8)
    grey16 = Image.fromarray((x * 1170).astype(np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = Image.fromarray(colour[..., :3]).quantize(16)
    cases: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("transparent.png", Image.fromarray(colour), {}),
        ("transparent.webp", Image.fromarray(colour), {"lossless": True}),
        ("grey_alpha.png", Image.fromarray(colour).convert("LA"), {}),
        ("grey16.png", grey16, {}),
        ("grey16.tif", grey16, {}),
        ("grey12.png", Image.fromarray((x * 70).astype(np.uint16)), {}),
        ("float.tif", Image.fromarray((x / 56).astype(np.float32)), {}),
        ("int32.tif", Image.fromarray((x * 10**6 - 10**7).astype(np.int32)), {}),
        ("palette.png", palette, {"transparency": 3}),
        ("palette.gif", palette, {}),
        ("bits.png", palette.convert("1"), {}),
        ("turned.jpg", Image.fromarray(colour[..., :3]), {"exif": turned.tobytes()}),
        ("cmyk.jpg", Image.fromarray(colour[..., :3]).convert("CMYK"), {}),
        ("plain.avif", Image.fromarray(colour[..., :3]), {}),
    ]
    example = (exported / "README.md").read_text().split("```python\n")[1].split("```")[0]
    start, _, rest = example.partition("with Image")
    reading = compile("with Image" + rest.split("# uint8")[0], "README.md", "exec")
    assert "from pixels import orientation, resize_image, to_rgb\n" in start
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("pixels", exported / "pixels.py")
    assert spec is not None
    assert spec.loader is not None
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    for name, image, options in cases:
        image.save(tmp_path / name, **options)
        names = vars(own) | {"sys": sys, "HEIGHT": 24, "WIDTH": 32}
        monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / name)])
        exec(reading, names)
        expected = resize_image(decode_image(tmp_path / name), (24, 32))
        np.testing.assert_array_equal(names["pixels"], expected, err_msg=name)


def test_a_run_with_a_label_that_was_left_out_is_exported(trained: Trained) -> None:
    """Such a label has no threshold and no metrics; see `label_records`."""
    run = open_classifier(open_run(trained.workdir), Journal())
    summary = json.loads((trained.workdir / "summary.json").read_text())
    summary["labels"]["always"] = {"learnable": False, "verdict": "ones only", "fitted": False}
    card = model_card(export.describe_card(run, "best", {}, 0.0), summary)
    assert "| always | – | – | – | – | – | – | – | – | not fitted |" in card


def test_every_file_is_listed_with_its_digest_and_readable(
    trained: Trained, exported: Path
) -> None:
    lines = (exported / "SHA256SUMS").read_text().splitlines()
    digests = dict(reversed(line.split("  ")) for line in lines)
    others = {"SHA256SUMS", "summary.json", ".lock"}
    assert set(digests) == {file.name for file in exported.iterdir()} - others
    for name, digest in digests.items():
        assert digest_file(exported / name) == digest
        assert (exported / name).stat().st_mode & stat.S_IRGRP
        content = (exported / name).read_bytes()
        assert str(trained.workdir).encode() not in content, name
        assert str(trained.images).encode() not in content, name


def test_the_weights_come_back(trained: Trained, exported: Path) -> None:
    run = open_classifier(open_run(trained.workdir), Journal())
    backbone = load_backbone("mobilenet_v2", exported / "backbone.safetensors")
    for one, other in zip(
        jax.tree.leaves(backbone.params), jax.tree.leaves(run.backbone.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    head = safetensors.numpy.load_file(exported / "head.safetensors")
    np.testing.assert_array_equal(head["dense/kernel"], run.classifier.best.head["dense"]["kernel"])
    np.testing.assert_array_equal(head["threshold"], run.classifier.threshold)
    assert set(head) == {
        *("dense/kernel", "dense/bias", "mean", "std"),
        *("shift", "slope", "intercept", "threshold"),
    }


def test_several_backbones_come_back_one_file_each(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was exported is a source of weights again, and gives the same features."""
    monkeypatch.setitem(backbones.NETWORKS, "fine", lambda: Small("tf", 5, 6))
    monkeypatch.setitem(backbones.NETWORKS, "coarse", lambda: Small("torch", 8, 3))
    run = open_classifier(open_run(trained.workdir), Journal())
    both = load_backbone("fine,coarse", "random")
    stack = HeadStack("linear", (1, 1, 9), len(run.names))
    head = jax.tree.map(lambda leaf: leaf[0], stack.init(0, 1))
    config = run.config.copy_and_resolve_references()
    config.backbone.name = both.name
    monkeypatch.setattr(
        export,
        "open_classifier",
        lambda *_: replace(
            run,
            config=config,
            backbone=both,
            stack=stack,
            classifier=replace(
                run.classifier,
                best=TrainedParams(head, {}),
                mean=np.zeros(9, np.float32),
                std=np.ones(9, np.float32),
            ),
        ),
    )
    folder = tmp_path / "folder"
    export.run(configured(trained), folder)
    files = [f"backbone-{name}.safetensors" for name in ("fine", "coarse")]
    assert not (folder / "backbone.safetensors").exists()
    again = load_backbone("fine,coarse", ",".join(str(folder / file) for file in files))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(
        again.apply(again.params, images), both.apply(both.params, images)
    )
    listed = (folder / "SHA256SUMS").read_text()
    card = (folder / "README.md").read_text()
    assert all(file in listed and file in card for file in files)


def test_a_conv_head_a_shift_and_any_number_of_images(trained: Trained) -> None:
    run = open_classifier(open_run(trained.workdir), Journal())
    rng = np.random.default_rng(0)
    labels = len(run.names)
    stack = HeadStack("conv", run.backbone.feature_shape(run.spec.image_size), labels)
    shapes = jax.eval_shape(lambda: stack.init(0, 1))
    head = jax.tree.map(lambda leaf: rng.normal(0, 0.05, leaf.shape[1:]).astype(np.float32), shapes)
    classifier = replace(
        run.classifier,
        best=TrainedParams(head, {}),
        shift=rng.normal(size=labels),
        slope=rng.uniform(0.5, 2, labels),
        intercept=rng.normal(size=labels),
        threshold=np.full(labels, 0.5),
    )
    spec = replace(run.spec, pooled=False)
    run = replace(run, classifier=classifier, stack=stack, spec=spec)
    program = jax_export.deserialize(export_program(run, "best").serialize())
    score, _ = scorer(run, "best", Devices("jit"), 5)
    images = rng.integers(0, 256, (5, *run.spec.image_size, 3), dtype=np.uint8)
    expected = score(images)
    assert np.ptp(expected, axis=0).min() > 1e-4
    for count in (1, 5):
        probabilities, given = program.call(images[:count])
        np.testing.assert_allclose(probabilities, expected[:count], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(given, expected[:count] > 0.5)


def test_the_card_says_what_must_be_known(trained: Trained, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "RANDOM" in card
    summary = json.loads((trained.workdir / "summary.json").read_text())
    for name, label in summary["labels"].items():
        (row,) = (line for line in card.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {label['metrics']['roc_auc']:.3f} |" in row
        assert row.endswith("| yes |" if label["learnable"] else "| NO |")
    area = summary["test"]["macro_roc_auc"]
    assert f"{area['value']:.3f} | {area['low']:.3f} to {area['high']:.3f}" in card
    assert "none needed, they are random" in card


def test_names_in_the_card_are_inert(trained: Trained) -> None:
    hostile = "<b>a|b</b>\n# `x` [y](z)"
    assert escaped(hostile) == r"\<b\>a\|b\</b\> \# \`x\` \[y\]\(z\)"
    summary = json.loads((trained.workdir / "summary.json").read_text())
    summary["labels"] = {hostile: summary["labels"]["collar"]}
    run = open_classifier(open_run(trained.workdir), Journal())
    card = export.describe_card(run, "best", {}, 0.0)
    text = model_card(card, summary)
    assert rf"| {escaped(hostile)} |" in text
    assert "<b>" not in text


def test_what_cannot_be_exported_is_refused(
    trained: Trained, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"holds no summary\.json"):
        export.run(configured(trained, checkpoint=str(tmp_path)), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"config\.checkpoint_kind='worst': choose best or last"):
        export.run(configured(trained, checkpoint_kind="worst"), tmp_path / "out")
    with pytest.raises(WorkdirError, match="choose another --workdir"):
        export.run(configured(trained), trained.workdir)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(WorkdirError, match=r"holds README\.md; choose another"):
        export.run(configured(trained), tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
