"""Weight files made to harm: refused, with nothing executed and nothing read outside."""

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.models.test_weights import (
    NAME,
    chunks,
    claimed_size,
    external_link,
    external_storage,
    keras_file,
    layer,
    objects,
    put_names,
    references,
    soft_link,
    virtual_data_set,
)
from tests.torture.conftest import Table
from tests.torture.runs import ROOT, environment

assert keras_file  # a fixture
PLANTS: list[Callable[[h5py.File, str, Path], None]] = [
    external_link,
    soft_link,
    virtual_data_set,
    external_storage,
    objects,
    references,
    chunks,
    claimed_size,
]


class Payload:
    """Runs a function of the standard library when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def pickles(folder: Path, witness: Path) -> list[Path]:
    """The same payloads under every suffix, bare, in a zip as torch writes it, and in an npz."""
    made = []
    payloads = {
        "mkdir": Payload(os.mkdir, str(witness)),
        "system": Payload(os.system, f"mkdir {witness}"),
        "exec": Payload(exec, f"import os; os.mkdir({str(witness)!r})"),
    }
    for name, payload in payloads.items():
        data = pickle.dumps({"features.0.weight": payload})
        for suffix in (".h5", ".hdf5", ".pth", ".pt", ".safetensors", ".npz", ".pkl"):
            made.append(folder / f"{name}{suffix}")
            made[-1].write_bytes(data)
        made.append(folder / f"{name}-zip.pth")
        with zipfile.ZipFile(made[-1], "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3")
        made.append(folder / f"{name}-array.npz")
        np.savez(made[-1], weight=np.array([payload], object), allow_pickle=True)
    return made


def headers(folder: Path) -> list[Path]:
    """Safetensors whose headers claim what is not there."""

    def file(name: str, header: bytes, size: int | None = None, data: bytes = b"") -> Path:
        path = folder / f"{name}.safetensors"
        path.write_bytes(struct.pack("<Q", len(header) if size is None else size) + header + data)
        return path

    def described(shape: list[int], offsets: list[int]) -> bytes:
        entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        return json.dumps({"features.0.weight": entry, "b": entry}).encode()

    return [
        file("endless", b"{}", 2**63 - 1),
        file("huge", b"{}", 2**40),
        file("longer", b"{}", 1000),
        file("no-json", b"{" * 5000),
        file("deep", b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
        file("far", described([1], [2**40, 2**40 + 4])),
        file("vast", described([2**31, 2**31], [0, 4]), data=bytes(4)),
        file("overlapping", described([1], [0, 4]), data=bytes(4)),
        file("backwards", described([1], [4, 0]), data=bytes(4)),
        file("negative", described([-1], [0, 4]), data=bytes(4)),
        file("nothing", b""),
    ]


def planted(folder: Path, sound: Path, outside: Path) -> list[Path]:
    """Keras files with a data set that leads out of them, is no plain array, or claims a size."""
    made = []
    for plant in PLANTS:
        for listed in (True, False):
            path = folder / f"{plant.__name__}-{listed}.h5"
            shutil.copy(sound, path)
            name = layer(path, "Conv1") if listed else "aside"
            with h5py.File(path, "a") as file:
                if listed:
                    del file[name]
                plant(file, name, outside)
            made.append(path)
    oversized = folder / "oversized.h5"
    shutil.copy(sound, oversized)
    with h5py.File(oversized, "a") as file:
        del file.attrs["layer_names"]
        put_names(file, "layer_names0", ["x"] * 12_000)
    return [*made, oversized]


def test_t17_malicious_weights(table: Table, tmp_path: Path, keras_file: Path) -> None:
    folder, outside, witness = (tmp_path / name for name in ("files", "outside", "witness"))
    folder.mkdir()
    outside.mkdir()
    with h5py.File(outside / "secret.h5", "w") as secret:
        secret["values"] = np.ones((3, 3, 3, 32), np.float32)
    (outside / "secret.raw").write_bytes(bytes(4 * 3 * 3 * 3 * 32))
    files = [
        *pickles(folder, witness),
        *headers(folder),
        *planted(folder, keras_file, outside),
    ]
    for path in outside.iterdir():
        os.utime(path, (0, 0))  # a read would set the time of access anew
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.weights_opener", NAME, *map(str, files)],
        cwd=ROOT,
        env=environment(tmp_path / "cache"),
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in io.StringIO(done.stdout)]
    with table.row("T17") as row:
        for number, path in enumerate(files):
            with row.trial(path.name):
                assert number < len(told), done.stderr[-2000:]
                assert told[number]["error"] == "WeightsError", told[number]
                assert told[number]["events"] == []
                assert told[number]["kib"] < 64 * 1024, "memory by the word of a header"
                assert not witness.exists()
        with row.trial("what lies outside was not looked at"):
            assert [path.stat().st_atime for path in outside.iterdir()] == [0, 0]
