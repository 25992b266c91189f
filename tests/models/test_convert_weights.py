"""The script that looks at weight files and converts them, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from keras_files import keras_model, save_legacy, save_torchvision

from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.published import PUBLISHED

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLC_JAX_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "scripts" / "convert_weights.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_file_in_torchvision_s_names_becomes_ours(tmp_path: Path) -> None:
    model = keras_model("vgg19", (32, 32))
    source = save_torchvision(model, tmp_path / "vgg19.safetensors")
    target = tmp_path / "new" / "ours.safetensors"
    done = run("--backbone", "vgg19", "--to", "safetensors", source, target, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "16 layers, 20,024,384 parameters\npreprocess torch" in done.stdout  # Keras's count
    expected, found = load_backbone("vgg19", source), load_backbone("vgg19", target)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    assert found.preprocess == expected.preprocess
    assert found.digest in done.stdout


def test_verify_reports_or_refuses_in_one_line(tmp_path: Path) -> None:
    file = save_legacy(keras_model("mobilenet_v2", (32, 32)), tmp_path / "mobilenet.h5")
    good = run("--backbone", "mobilenet_v2", "--verify", file, cache=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "104 layers, 2,257,984 parameters" in good.stdout  # Keras's count
    bad = run("--backbone", "vgg19", "--verify", file, cache=tmp_path)
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1
    assert str(file) in bad.stderr


def test_list_says_what_is_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / PUBLISHED["vgg19"].file).write_bytes(b"half a file")
    done = run("--list", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "vgg19: damaged in the cache\n" in done.stdout
    assert "mobilenet_v2: absent in the cache\n  no digest published" in done.stdout
