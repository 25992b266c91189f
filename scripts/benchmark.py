"""Times ours and its peers side by side, prints one table, writes JSON.

  pip install -e '.[bench]'
  python scripts/benchmark.py --quick --json scripts/benchmarks/cpu.json     # under ten minutes
  python scripts/benchmark.py --gpu --json scripts/benchmarks/gpu.json       # where there is a GPU
  python scripts/benchmark.py --tiny                                         # that it runs, no more

Every contestant does the same work in a process of its own, and they take turns (A B C A B C), so
what else the machine does meets them all alike; the first run of a turn is not counted. Seconds are
wall time; CPU seconds of all threads stand beside them, since they move less when others use the
machine. Medians and the spread from the
fastest to the slowest turn are given. What is extrapolated is called so. The job of both stages, as
users run it, is timed once, and only where there is a GPU (or tiny): on a CPU it takes hours.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contest import PER_BATCH, Settings
from contestants import contestants
from input_contestants import photographs

ROOT = Path(__file__).resolve().parents[1]
TURNS = 3
WORKER = "--worker"
# Contestant, and what its environment needs besides.
FORWARD = [
    ("forward_ours", ""),
    ("forward_bfloat16_ours", ""),
    ("forward_lax", ""),
    ("forward_torch", ""),
    ("forward_torch_bfloat16", ""),
    ("forward_torch_compile", ""),
    ("forward_torch_compile_bfloat16", ""),
]
FORWARD_GPU = [
    ("matmul_bfloat16", ""),
    ("forward_bfloat16_ours", ""),
    ("forward_lax", ""),
    ("forward_torch", ""),
    ("forward_torch_bfloat16", ""),
    ("forward_torch_compile_bfloat16", ""),
]
RECIPE = [("recipe_keras", "KERAS_BACKEND=jax"), ("recipe_keras", "KERAS_BACKEND=torch")]
INPUT = [("input_ours", ""), ("input_torch", ""), ("input_keras", "KERAS_BACKEND=jax")]

# The original's passes per epoch: `data/tops`, four labels balanced to 50:50 and 4,848 copies of
# label sets, 80 % of them trained on and 20 % looked at.
TRAINED_PER_EPOCH = round(0.8 * (1572 + 1420 + 928 + 1624 + 4848))
WATCHED_PER_EPOCH = round(0.2 * (1572 + 1420 + 928 + 1624 + 4848))
EPOCHS, IMAGES, VIEWS = 40, 972, 9
LINEAR = "400 / 20 heads, linear"  # the verdict that has a limit


def main(arguments: list[str] | None = None) -> int:
    """Runs the groups that were asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer turns and images")
    size.add_argument("--tiny", action="store_true", help="64x64 images: figures mean nothing")
    parser.add_argument("--gpu", action="store_true", help="the rows of a GPU")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--only", default="", help="groups, of forward,input,recipe,heads,job")
    parser.add_argument(WORKER, nargs=2, metavar=("NAME", "SETTINGS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker[0], Settings(**json.loads(options.worker[1])))
        return 0
    if options.gpu and backend() in ("", "cpu"):
        parser.error("--gpu: jax finds no GPU here; install .[cuda13] where there is one")
    # As many batches for every worker of a loader.
    share = PER_BATCH * (os.cpu_count() or 1)
    settings = Settings(
        height=64 if options.tiny else 450,
        width=64 if options.tiny else 350,
        batch=2 if options.tiny else (128 if options.gpu else 4),
        train_batch=2 if options.tiny else (32 if options.gpu else 4 if options.quick else 8),
        heads=20,
        photographs=-(-(4 if options.tiny else 64 if options.quick else 128) // share) * share,
        views=VIEWS - 1,
    )
    turns = 2 if options.tiny else TURNS if options.quick else 2 * TURNS
    started, load, where = time.perf_counter(), os.getloadavg(), machine()
    timings = [
        partial(race, *group, turns=turns, gpu=options.gpu) for group in groups(options, settings)
    ]
    if (options.gpu or options.tiny) and "job" in (options.only or "job").split(","):
        timings.append(partial(job, tiny=options.tiny))
    rows: list[dict[str, Any]] = []
    for timing in timings:
        rows += timing()
        if options.json:  # after every group, so that a run which is stopped has measured something
            record = {
                "command": f"python scripts/benchmark.py {' '.join(sys.argv[1:])}",
                "machine": where | {"load_before": load, "load_after": os.getloadavg()},
                "settings": settings._asdict(),
                "turns": turns,
                "seconds": round(time.perf_counter() - started),
                "rows": [*rows, *whole_job(rows), *verdicts(rows)],
            }
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(record, indent=2) + "\n")
    show([*rows, *whole_job(rows), *verdicts(rows)])
    return 0


def groups(
    options: argparse.Namespace, settings: Settings
) -> Iterator[tuple[str, str, list[tuple[str, str]], Settings]]:
    """The groups that were asked for: name, unit, contestants with their environment, settings."""
    wanted = set(filter(None, options.only.split(","))) or {"forward", "recipe", "heads", "input"}
    if "forward" in wanted:
        yield "forward, VGG19", "images", FORWARD_GPU if options.gpu else FORWARD, settings
    if "input" in wanted:
        yield "files to augmented batches", "views", INPUT, settings
    if "recipe" in wanted:
        # The original's head needs a map of 7x7.
        own = settings._replace(height=224, width=224) if options.tiny else settings
        yield "training step of the original", "images", RECIPE, own
    if "heads" in wanted:
        for heads in (4, 20, 400) if options.gpu else (4, 20):
            names = [("heads_conv", ""), ("heads_linear", "")]
            own = settings._replace(heads=heads)
            yield f"{heads} heads, batch 32", "head-images", names, own


def work(name: str, settings: Settings) -> None:
    """A worker: prepares a contestant, then runs it once for every line that comes in."""
    from mlc_jax.runtime import prepare
    from mlc_jax.settings import cache_folder

    prepare(cache_folder())  # as the command line does, for every contestant alike
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between
    try:
        units, run = dict(contestants())[name](settings)
        result = run()
    except ModuleNotFoundError as error:
        print(json.dumps({"failed": f"{error.name} is not installed"}), file=out)
        return
    import jax

    ready = {"units": units, "result": result, "backend": jax.default_backend()}
    print(json.dumps(ready), file=out)
    for _ in sys.stdin:
        cpu, wall = _cpu_seconds(), time.perf_counter()
        run()
        seconds = {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu}
        print(json.dumps(seconds), file=out)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(own.ru_utime + own.ru_stime for own in used)


def race(
    group: str,
    unit: str,
    names: Sequence[tuple[str, str]],
    settings: Settings,
    *,
    turns: int,
    gpu: bool,
) -> list[dict[str, Any]]:
    """Times the contestants of a group in turn; one that fails is a row that says why."""
    rows = []
    with ExitStack() as stack:
        running = []
        for name, environment in names:
            shown = f"{name} {environment.partition('=')[2]}".strip()
            row: dict[str, Any] = {"group": group, "contestant": shown, "unit": f"{unit}/s"}
            rows.append(row)
            print(f"{group}: preparing {shown}", file=sys.stderr)
            process = stack.enter_context(worker(name, environment, settings))
            ready = _answer(process)
            row |= ready or {"failed": "could not run; its own message stands above"}
            if gpu and row.get("backend") == "cpu":
                row["failed"] = "its jax ran on the CPU"
            if "failed" not in row:
                row |= {"wall": [], "cpu": []}
                running.append((row, process))
        for _ in range(turns):
            for row, process in running:
                # Once for nothing: what lay idle meanwhile may have left the memory.
                again = "failed" not in row and _run_again(process) is not None
                seconds = _run_again(process) if again else None
                if seconds is None:
                    row.setdefault("failed", "stopped in the middle; its own message stands above")
                else:
                    row["wall"].append(seconds["wall"])
                    row["cpu"].append(seconds["cpu"])
    say_agreement(rows)
    for row in rows:
        if "failed" not in row:
            rates = sorted(row["units"] / seconds for seconds in row["wall"])
            row["median"] = statistics.median(rates)
            row["low"], row["high"] = rates[0], rates[-1]
            # The workers of a data loader live on, and their seconds are not told.
            if row["contestant"] != "input_torch":
                row["per_cpu_second"] = row["units"] / max(statistics.median(row["cpu"]), 1e-9)
    return rows


@contextmanager
def worker(name: str, environment: str, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A contestant's process, ended behind the block."""
    key, _, value = environment.partition("=")
    extra = {key: value} if key else {}
    process = subprocess.Popen(
        [sys.executable, __file__, WORKER, name, json.dumps(settings._asdict())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | extra,
    )
    try:
        yield process
    finally:
        process.communicate()  # ends its input, and waits


def _run_again(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """The seconds of one more run; None where the worker has died."""
    assert process.stdin
    try:
        process.stdin.write("run\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    assert process.stdout
    line = process.stdout.readline()
    return json.loads(line) if line else None


def say_agreement(rows: list[dict[str, Any]]) -> None:
    """Marks forward passes whose result is not that of `lax.conv`, bfloat16 aside."""
    results = {row["contestant"]: row.get("result") for row in rows}
    reference = results.get("forward_lax")
    for row in rows:
        if reference and row.get("result") and "matmul" not in row["contestant"]:
            row["off_by"] = abs(row["result"] / reference - 1)


def job(*, tiny: bool) -> list[dict[str, Any]]:
    """Times both stages as users run them, once: wall clock, compiling and start included.

    The original's number of photographs and of passes, its labels' shares of ones and of blanks,
    its rows of both stages; no head stops early, and nothing lies in any cache.
    """
    count, views, epochs = (60, 1, 2) if tiny else (IMAGES, VIEWS - 1, EPOCHS)
    size = "64,64" if tiny else "450,350"
    row: dict[str, Any] = {"group": "whole job, run", "contestant": "job", "unit": "seconds"}
    with tempfile.TemporaryDirectory(prefix="mlc-jax-bench-") as name:
        folder = Path(name)
        write_labels(folder / "labels.csv", photographs(folder / "images", count))
        own = {
            "impute": [
                f"--config.data.labels={folder / 'labels.csv'}",
                f"--config.data.images={folder / 'images'}",
                f"--config.data.image_size={size}",
                "--config.backbone.name=vgg19",
                "--config.backbone.weights=random",
                "--config.head.name=conv",
                f"--config.features.views={views}",
            ],
            # The rest is taken from the impute run.
            "multilabel": [f"--config.source={folder / 'impute'}", "--config.oversample=labelset"],
        }
        row["stages"] = {}
        for stage, arguments in own.items():
            print(f"{row['group']}: {stage}", file=sys.stderr)
            command = [sys.executable, "-m", "mlc_jax.main", f"--config=configs/{stage}.py"]
            command += [f"--workdir={folder / stage}", *arguments]
            command += [f"--config.epochs={epochs}", f"--config.patience={epochs}"]
            fresh = {"MLC_JAX_CACHE": folder / "cache", "JAX_COMPILATION_CACHE_DIR": folder / "xla"}
            environment = os.environ | {key: str(path) for key, path in fresh.items()}
            started = time.perf_counter()
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=2, check=False)
            row["stages"][stage] = time.perf_counter() - started
            if done.returncode:
                row["failed"] = f"{stage} ended with status {done.returncode}; see above"
                return [row]
        heads = [
            heads_trained(json.loads((folder / stage / "summary.json").read_text()))
            for stage in own
        ]
    row["median"] = sum(row["stages"].values())
    row["note"] = (
        f"once; {count} photographs at {size.replace(',', 'x')}, 1 + {views} views, vgg19, "
        f"{epochs} epochs, {' and '.join(heads)}"
    )
    return [row]


def write_labels(path: Path, names: Sequence[str]) -> None:
    """A labels file of the demo's four labels, which have the original's shares of ones, blanks."""
    from mlc_jax.data.demo import NAMES, demo_blanks, demo_labels

    ones, blanks = demo_labels(0, len(names)), demo_blanks(0, len(names))
    lines = [",".join(["filename", *NAMES])]
    for name, own, blank in zip(names, ones, blanks, strict=True):
        lines.append(",".join([name, *np.where(blank, "", own.astype(int).astype(str))]))
    path.write_text("\n".join(lines) + "\n")


def heads_trained(summary: dict[str, Any]) -> str:
    """How many heads a stage trained, by its summary."""
    folds, kind = summary["config"]["folds"], summary["config"]["head"]["name"]
    labels = sum(record["fitted"] for record in summary["labels"].values())
    if summary["stage"] == "impute":
        return f"impute {folds} folds x {labels} labels = {folds * labels} {kind} heads"
    return f"multilabel 1 + {folds} {kind} heads of {labels} labels"


def whole_job(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Extrapolated hours of both stages at the original's settings, from the rates measured above.

    Ours: every view of every image once, in bfloat16 on a GPU as features are extracted there, and
    40 epochs of 4 + 1 conv heads over as many rows as the original trains on and looks at. Keras: a
    training step for each row of each epoch, and a forward pass, taken to be as fast as PyTorch's
    of float32, for each row that it looks at.
    """
    rate = rates(rows)
    ours = rate.get(
        ("forward, VGG19", "forward_ours"), rate.get(("forward, VGG19", "forward_bfloat16_ours"))
    )
    looked = rate.get(("forward, VGG19", "forward_torch"))
    heads = rate.get(("4 heads, batch 32", "heads_conv"))
    if not (ours and looked and heads):
        return
    seconds = IMAGES * VIEWS / ours + (TRAINED_PER_EPOCH + WATCHED_PER_EPOCH) * EPOCHS / heads
    group = "whole job, extrapolated"
    yield {"group": group, "contestant": "ours", "unit": "hours", "median": seconds / 3600}
    for backend in ("jax", "torch"):
        step = rate.get(("training step of the original", f"recipe_keras {backend}"))
        if step:
            theirs = EPOCHS * (TRAINED_PER_EPOCH / step + WATCHED_PER_EPOCH / looked)
            yield {
                "group": group,
                "contestant": f"keras {backend}",
                "unit": "hours",
                "median": theirs / 3600,
                "times_ours": theirs / seconds,
                "note": f"{theirs / seconds:.0f} x ours",
            }


def verdicts(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What was aimed at, each a quotient of two rates; none where one of them was not measured."""
    rate = rates(rows)
    forward, few, many = "forward, VGG19", "20 heads, batch 32", "400 heads, batch 32"
    ours = (forward, "forward_bfloat16_ours")
    compiled = (forward, "forward_torch_compile_bfloat16")
    half = (forward, "forward_torch_bfloat16")
    # A rate counts every head: that of few over that of many is the seconds a head of many takes.
    linear, conv = (
        ((few, f"heads_{kind}"), (many, f"heads_{kind}")) for kind in ("linear", "conv")
    )
    exact = (forward, "forward_ours")
    images = "files to augmented batches"
    for name, unit, above, below, factor in (
        ("ours / torch, float32", "times its rate", exact, (forward, "forward_torch"), 1.0),
        ("ours float32 / torch bfloat16", "times its rate", exact, half, 1.0),
        ("ours / matmul, bfloat16", "of its rate", ours, (forward, "matmul_bfloat16"), 1.0),
        ("ours / torch.compile, bfloat16", "times its rate", ours, compiled, 1.0),
        (
            "ours / DataLoader, Pillow",
            "times",
            (images, "input_ours"),
            (images, "input_torch"),
            1.0,
        ),
        (LINEAR, "times the seconds", *linear, 400 / 20),
        ("400 / 20 heads, conv, a head", "times the seconds", *conv, 1.0),
    ):
        if above in rate and below in rate:
            value = factor * rate[above] / rate[below]
            row = {"group": "verdict", "contestant": name, "unit": unit, "median": value}
            if name == LINEAR:
                row["holds"] = value < 4
                row["note"] = f"which {'is' if row['holds'] else 'IS NOT'} below 4, as it must be"
            yield row


def rates(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """The measured rates by group and contestant."""
    return {
        (row["group"], row["contestant"]): row["median"]
        for row in rows
        if row["unit"].endswith("/s") and "median" in row
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table."""
    print(f"{'':30} {'':30} {'median':>10} {'low':>9} {'high':>9} {'per CPU s':>10}")
    for row in rows:
        text = f"{row['group']:30} {row['contestant']:30} "
        if "failed" in row:
            text += row["failed"]
        elif not row["unit"].endswith("/s"):
            text += f"{row['median']:10.2f} {row['unit']}"
            text += f", {row['note']}" if "note" in row else ""
        else:
            text += f"{row['median']:10.2f} {row['low']:9.2f} {row['high']:9.2f} "
            text += f"{row.get('per_cpu_second', float('nan')):10.2f} {row['unit']}"
            text += f", result off by {row['off_by']:.0e}" if "off_by" in row else ""
        print(text)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    asked = "--query-gpu=name,driver_version,memory.total"
    gpu = _said("nvidia-smi", asked, "--format=csv,noheader").split(", ")
    described = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    commit = _said("git", "-C", str(ROOT), *described)
    versions = {}
    for package in ("jax", "jaxlib", "flax", "torch", "keras", "pillow", "grain", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": sorted(names) or [platform.processor()],
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        **dict(zip(("gpu", "gpu_driver", "gpu_memory"), gpu if gpu[0] else ["none"], strict=False)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit or "unknown",
    }


def backend() -> str:
    """Where jax computes, asked in a process of its own, so that this one holds no GPU."""
    return _said(sys.executable, "-c", "import jax; print(jax.default_backend())")


def _said(*command: str) -> str:
    """The first line that a program prints; empty where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.partition("\n")[0].strip()


if __name__ == "__main__":
    sys.exit(main())
