"""Data nobody vouches for: bad images of each kind, ten times as many of them, and fuzzed files."""

import contextlib
import importlib
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from configs import impute
from mlc_jax import main
from mlc_jax.data.collection import open_collection
from mlc_jax.data.demo import draw_demo
from mlc_jax.data.images import decode_image
from mlc_jax.data.labels import read_labels
from mlc_jax.errors import ImageError, LabelsError, MlcError
from mlc_jax.journal import Journal
from mlc_jax.settings import resolve
from tests.memory import many_links
from tests.torture.conftest import Table, count, full_round
from tests.torture.driver import forget_flags
from tests.torture.runs import completed, start, tiny


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def leaving(path: Path) -> None:
    outside = path.parent.parent / "outside.jpg"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


KINDS: dict[str, Callable[[Path], object]] = {
    "truncated": truncated,
    "empty": lambda path: path.write_bytes(b""),
    "HTML": lambda path: path.write_bytes(b"<html><script>alert(1)</script></html>"),
    "EPS": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "PDF": lambda path: path.write_bytes(b"%PDF-1.7\n"),
    "SVG": lambda path: path.write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "bomb": bomb,
    "pipe": pipe,
    "folder": folder,
    "link out of the root": leaving,
    "loop of links": loop,
    "absent": lambda path: path.unlink(),
}


def configuration(data: Path) -> ConfigDict:
    config = impute.get_config()
    config.data.labels, config.data.images = str(data / "labels.csv"), str(data / "images")
    config.data.image_size = (32, 32)
    return resolve(config, lambda _: None)


def test_t8_bad_images_are_named_and_counted(table: Table, tmp_path: Path) -> None:
    draw_demo(tmp_path / "set", rows=200)
    rng = random.Random(0)
    kinds = dict(list(KINDS.items())[: max(2, count(len(KINDS)))])
    with table.row("T8") as row:
        for kind, spoil in kinds.items():
            for share, bad in ((0.01, 2), (0.05, 10)):
                data = shutil.copytree(tmp_path / "set", tmp_path / f"{kind} {bad}")
                names = sorted(path.name for path in (data / "images").iterdir())
                victims = rng.sample(names, bad)
                for name in victims:
                    spoil(data / "images" / name)
                with row.trial(f"{share:.0%} {kind}"):
                    journal = Journal()
                    if share > 0.01:
                        with pytest.raises(LabelsError, match=r"10 of 200 rows.*max_bad_fraction"):
                            open_collection(configuration(data), tmp_path / "cache", journal)
                    else:
                        made = open_collection(configuration(data), tmp_path / "cache", journal)
                        assert sorted(q.filename for q in made.quarantine) == sorted(victims)
                        assert len(made.table.filenames) == 198
                        assert all(any(v in note for note in journal.notes) for v in victims)
                shutil.rmtree(data)


@full_round
def test_t8_a_run_with_bad_images_finishes_and_names_them(table: Table, tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=200).labels.parent
    truncated(data / "images" / "image_7.jpg")
    pipe(data / "images" / "image_70.jpg")
    with table.row("T8") as row, row.trial("a whole run"):
        completed(tmp_path / "cache", tiny(data, "impute", tmp_path / "impute"))
        listed = (tmp_path / "impute" / "quarantine.csv").read_text()
        assert listed == (
            "filename,row,reason\nimage_7.jpg,9,truncated\nimage_70.jpg,72,not_a_file\n"
        )


def peak(cache: Path, arguments: list[str]) -> int:
    """KiB that a run holds at most."""
    process = start(cache, arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (out[-500:], err[-2000:])
    return usage.ru_maxrss


@full_round
def test_t12_ten_times_the_data_in_the_same_memory(table: Table, tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    cache, trained = tmp_path / "cache", tmp_path / "multilabel"
    # Pictures so large that to hold them all would show: 133 MB for the larger set.
    large = [w.replace("=32,32", "=128,128") for w in tiny(data, "multilabel", trained)]
    completed(cache, large)
    other = draw_demo(tmp_path / "other", rows=10, seed=9).images
    Image.fromarray(decode_image(other / "image_3.jpg")).save(tmp_path / "one.png")
    held: dict[str, list[int]] = {"evaluate": [], "predict": []}
    for number in (300, 3000):
        images = many_links(tmp_path / "one.png", tmp_path / f"images{number}", number)
        lines = [f"{path.name},{n % 2},{n % 3 % 2},1,0" for n, path in enumerate(images.iterdir())]
        labels = tmp_path / f"labels{number}.csv"
        labels.write_text("\n".join(["filename,sleeves,collar,stripes,print", *lines]))
        for job in held:
            named = [f"--config.data.labels={labels}"] if job == "evaluate" else []
            command = [
                f"--config=configs/{job}.py",
                f"--workdir={tmp_path / f'{job}{number}'}",
                f"--config.checkpoint={trained}",
                f"--config.data.images={images}",
                *named,
            ]
            held[job].append(peak(cache, command))
    with table.row("T12") as row:
        for job, (less, more) in held.items():
            with row.trial(f"{job}: {less} and {more} KiB"):
                assert more < 1.05 * less


MUTATED = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)
TEXTS = st.sampled_from(
    ["a.jpg", "b c.png", "../x", "", "NA", "nan", "?", "0", "1", "1.0", "2", "-1", "yes", '"', "\0"]
) | st.text(max_size=6)
SEPARATORS = st.sampled_from([",", ";", "\t", " ", "  ", "|"])
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", ""])
CODECS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])


@st.composite
def labels_files(draw: st.DrawFn) -> bytes:
    """Bytes that look like a labels file to some degree."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200))
    separator, end = draw(SEPARATORS), draw(ENDS)
    rows = draw(st.lists(st.lists(TEXTS, min_size=1, max_size=5), min_size=0, max_size=6))
    content = end.join(separator.join(row) for row in rows).encode(draw(CODECS), "replace")
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def test_t16_fuzzed_labels_files(table: Table, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    with table.row("T16") as row:

        @settings(MUTATED, max_examples=count(10_000))
        @given(labels_files())
        def fuzz(content: bytes) -> None:
            row.trials += 1
            file.write_bytes(content)
            with contextlib.suppress(MlcError):
                read_labels(file)

        fuzz()


def pictures() -> list[bytes]:
    """A small picture in every format that is read, and in some of its kinds."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (17, 23, 3), np.uint8))
    made = []
    for image, form, options in [
        (colour, "JPEG", {}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "PNG", {}),
        (colour.convert("P"), "PNG", {}),
        (Image.fromarray(rng.integers(0, 2**16, (9, 9), np.uint16)), "PNG", {}),
        (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(90)]}),
        (colour, "WEBP", {}),
        (colour, "WEBP", {"lossless": True}),
        (colour, "BMP", {}),
        (colour, "TIFF", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "PPM", {}),
    ]:
        buffer = BytesIO()
        image.save(buffer, form, **options)
        made.append(buffer.getvalue())
    return made


def test_t16_fuzzed_images(table: Table) -> None:
    sound = pictures()
    with table.row("T16") as row:

        @settings(MUTATED, max_examples=count(2_000))
        @given(st.data())
        def fuzz(data: st.DataObject) -> None:
            row.trials += 1
            content = bytearray(data.draw(st.sampled_from(sound)))
            for _ in range(data.draw(st.integers(1, 4))):
                place = data.draw(st.integers(0, len(content) - 1))
                kind = data.draw(st.sampled_from(["byte", "cut", "insert", "swap"]))
                if kind == "byte":
                    content[place] = data.draw(st.integers(0, 255))
                elif kind == "cut":
                    del content[place + 1 :]
                elif kind == "insert":
                    content[place:place] = data.draw(st.binary(max_size=20))
                else:
                    content[place:] = data.draw(st.sampled_from(sound))[place:]
            with contextlib.suppress(ImageError):
                image = decode_image(bytes(content))
                assert image.dtype == np.uint8
                assert image.ndim == 3

        fuzz()


def keys_of(config: ConfigDict, prefix: str = "") -> list[str]:
    found = []
    for name, value in config.items(preserve_field_references=True):
        found.append(prefix + name)
        if isinstance(value, ConfigDict):
            found += keys_of(value, f"{prefix}{name}.")
    return found


WORDS = (
    *("0", "1", "-1", "1e9", "nan", "inf", "true", "false", "None", "[]", "()", "{}", "([],)"),
    *("32,32", "(32,32)", "0.5", "a,b", "''", '"', "../x", "conv", "jit", ""),
)
VALUES = st.sampled_from(WORDS) | st.text(max_size=8)
KEYS = {job: keys_of(importlib.import_module(f"configs.{job}").get_config()) for job in main.JOBS}


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Runs a job up to the moment at which it would read its data; gives what it says.

    Nothing if it would go on; else one line with status 2.
    """
    stages = {job: importlib.import_module(f"mlc_jax.stages.{job}") for job in main.JOBS}

    def checked(config: ConfigDict, workdir: Path) -> None:
        del workdir
        if config.stage in ("impute", "multilabel", "compare"):
            resolve(config, lambda _: None)
        elif config.stage in ("explain", "review"):
            stages[config.stage].check(config)  # the other jobs begin with their data

    for stage in stages.values():
        monkeypatch.setattr(stage, "run", checked)

    def run(job: str, *overrides: str) -> str:
        argv = ["main", f"--config=configs/{job}.py", *overrides]
        forget_flags()
        monkeypatch.setattr(sys, "argv", argv)
        status = main.main(argv)
        said = capsys.readouterr().err
        assert status in (0, 2), argv
        if status == 0:
            return ""
        assert said.startswith("error: "), said
        assert said.count("\n") == 1, said
        return said

    yield run
    monkeypatch.undo()
    forget_flags()


def test_t16_fuzzed_overrides(table: Table, command: Callable[..., str]) -> None:
    with table.row("T16") as row:

        @settings(MUTATED, max_examples=count(500))
        @given(st.data())
        def fuzz(data: st.DataObject) -> None:
            row.trials += 1
            job = data.draw(st.sampled_from(main.JOBS))
            overrides = []
            for _ in range(data.draw(st.integers(1, 3))):
                key = data.draw(st.sampled_from(KEYS[job]))
                if data.draw(st.integers(0, 3)) == 0:
                    place = data.draw(st.integers(0, len(key)))
                    key = key[:place] + data.draw(st.text(max_size=2)) + key[place + 1 :]
                form = data.draw(st.sampled_from(["--config.{}={}", "--config.{}", "config.{}={}"]))
                overrides.append(form.format(key, data.draw(VALUES)))
            command(job, *overrides)

        fuzz()


def test_t16_a_key_with_a_letter_missing_is_told_as_it_should_be(
    table: Table, command: Callable[..., str]
) -> None:
    rng = random.Random(0)
    with table.row("T16") as row:
        for _ in range(count(100)):
            job = rng.choice(main.JOBS)
            key = rng.choice(KEYS[job])
            place = rng.choice([n for n, letter in enumerate(key) if letter != "."])
            typo = key[:place] + key[place + 1 :]
            with row.trial(f"{job}, {typo} for {key}"):
                assert f"; did you mean --config.{key}?" in command(job, f"--config.{typo}=1")
