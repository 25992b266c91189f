"""Plants faults one at a time and reports which of them no test notices.

    python scripts/planted_faults.py                       # all of scripts/planted_faults.toml
    python scripts/planted_faults.py --only acceptance     # those whose name holds a text
    python scripts/planted_faults.py --jobs 2 --state faults.json   # goes on where it ended

Each entry of the list is a replacement in one file and the tests that are expected to fail for it.
They run in a copy of the tree, so nothing here is touched. Before the first fault they run without
any, and must pass. Exits 1 where a fault goes unnoticed, 2 where the list is wrong: an old text
that does not occur exactly once, a fault that keeps tests from being collected, tests that fail
anyway.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".toml")
COPIED = ("mlc_jax", "configs", "scripts", "tests", "pyproject.toml", "README.md")
SECONDS = 600
"""Of one fault's tests: a fault that makes them hang is noticed."""

PASSED, FAILED = 0, 1
"""Exit statuses of pytest; others say that it could not do its work."""


@dataclass(frozen=True)
class Fault:
    """One entry of the list.

    Attributes:
      name: in words, unique.
      file: that it is planted in, relative to the root.
      old, new: the text that is replaced, which occurs there once, and what stands in its place.
      tests: files or tests, as pytest takes them; at least one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def read_faults(path: Path = LIST) -> list[Fault]:
    """The list, in its order."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    return [Fault(**(entry | {"tests": tuple(entry["tests"])})) for entry in entries]


def mistakes(faults: list[Fault], root: Path = ROOT) -> list[str]:
    """What is wrong with the list, one line each; empty where it can be planted."""
    found = []
    names = [fault.name for fault in faults]
    found += [f"{name}: stands there twice" for name in {n for n in names if names.count(n) > 1}]
    for fault in faults:
        file = root / fault.file
        times = file.read_text(encoding="utf-8").count(fault.old) if file.is_file() else 0
        if times != 1:
            found.append(f"{fault.name}: its old text occurs {times} times in {fault.file}")
        if fault.old == fault.new:
            found.append(f"{fault.name}: old and new text are the same")
        for test in fault.tests:
            name, _, function = test.partition("::")
            text = (root / name).read_text(encoding="utf-8") if (root / name).is_file() else ""
            if f"def {function.partition('[')[0]}" not in text:
                found.append(f"{fault.name}: there is no {test}")
    return found


def make_copy(root: Path, folder: Path) -> Path:
    """Copies what tests need into a new folder."""
    folder.mkdir()
    for name in COPIED:
        source, target = root / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def run_tests(tree: Path, tests: tuple[str, ...], compiled: Path) -> tuple[int, str]:
    """Runs tests in a copy of the tree until one fails: pytest's exit status, and its output."""
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        # A file that is changed twice in a second would else be taken from its old bytecode.
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FAILED, f"no end after {SECONDS} seconds"
    return done.returncode, done.stdout[-4000:] + done.stderr[-2000:]


def plant(tree: Path, fault: Fault, compiled: Path) -> tuple[int, str]:
    """Plants a fault in a copy, runs its tests, and takes it out again."""
    file = tree / fault.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
    try:
        return run_tests(tree, fault.tests, compiled)
    finally:
        file.write_text(whole, encoding="utf-8")


def digest(fault: Fault) -> str:
    """Of a fault, and of the files that it and its tests stand in."""
    files = sorted({fault.file, *(test.partition("::")[0] for test in fault.tests)})
    parts = [json.dumps(asdict(fault)), *((ROOT / file).read_text() for file in files)]
    return sha256("\0".join(parts).encode()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Plants what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="plant faults whose name holds this text")
    parser.add_argument("--state", type=Path, help="a file of results; what it holds is not redone")
    parser.add_argument("--jobs", type=int, default=1, help="how many are planted at once")
    asked = parser.parse_args(arguments)
    faults = [fault for fault in read_faults() if asked.only in fault.name]
    if not faults:
        print(f"no fault's name holds {asked.only!r}", file=sys.stderr)
        return 2
    if wrong := mistakes(faults):
        print("\n".join(wrong), file=sys.stderr)
        return 2
    known: dict[str, str] = {}
    if asked.state is not None and asked.state.exists():
        known = json.loads(asked.state.read_text())
    digests = {fault.name: digest(fault) for fault in faults}
    waiting = [fault for fault in faults if digests[fault.name] not in known]

    def remember(fault: Fault, result: str) -> None:
        known[digests[fault.name]] = result
        if asked.state is not None:
            asked.state.write_text(json.dumps(known, indent=1))

    with tempfile.TemporaryDirectory(prefix="planted-faults-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(asked.jobs):
            trees.put(make_copy(ROOT, Path(folder) / str(number)))
        compiled = Path(folder) / "compiled"
        compiled.mkdir()
        files = tuple(dict.fromkeys(test for fault in waiting for test in fault.tests))
        if files:
            tree = trees.get()
            status, output = run_tests(tree, files, compiled)
            trees.put(tree)
            if status != PASSED:
                print(f"the tests fail without a fault:\n{output}", file=sys.stderr)
                return 2

        def one(fault: Fault) -> tuple[Fault, str, str]:
            tree = trees.get()
            try:
                status, output = plant(tree, fault, compiled)
            finally:
                trees.put(tree)
            return fault, {PASSED: "unnoticed", FAILED: "noticed"}.get(status, "broken"), output

        with ThreadPoolExecutor(asked.jobs) as pool:
            for done in as_completed([pool.submit(one, fault) for fault in waiting]):
                fault, result, output = done.result()
                print(f"{result:9} {fault.name}", flush=True)
                if result == "broken":
                    print(output, file=sys.stderr)
                remember(fault, result)
    results = {name: known[own] for name, own in digests.items()}
    count = Counter(results.values())
    print(f"{count['noticed']} of {len(faults)} faults are noticed")
    for name, result in results.items():
        if result != "noticed":
            print(f"{result}: {name}")
    return 2 if count["broken"] else int(count["unnoticed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
