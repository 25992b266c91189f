"""The shape of the package, read from its sources: who imports whom, and what lies where."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mlc_jax"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "configs").glob("*.py")])

# Which rooms a room may import, itself aside. Single files at the top are rooms of their own.
GROUND = {"errors", "files", "interrupt", "journal", "label_settings", "loss_settings"}
GROUND |= {"processes", "settings"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "interrupt": set(),
    "journal": set(),
    "label_settings": {"errors"},
    "loss_settings": {"errors"},
    "processes": {"errors", "interrupt"},
    "settings": {"errors", "label_settings", "loss_settings"},
    "runtime": {"errors", "files"},
    "data": GROUND,
    "assess": {"errors", "files"},
    "models": GROUND | {"data"},
    "training": GROUND | {"models", "data", "assess"},
    "report": GROUND
    | {
        "assess",
        "data.annotators",
        "data.labels",
        "data.cells",
        "data.table",
        "data.images",
        "data.pixels",
        "data.decisions",
    },
    "stages": GROUND | {"data", "assess", "models", "training", "report"},
    "main": GROUND | {"stages", "runtime"},
    "doctor": GROUND | {"models", "runtime", "training"},
    "api": GROUND | {"data", "assess", "models", "training", "report", "stages"},
    "__init__": {"api"},  # when a name of it is asked for
}

# Libraries that one file alone, or one room, speaks to.
ONLY_IN = {
    "orbax": "training/checkpoint.py",
    "grain": "data/pipeline.py",
    "tensorflow_datasets": "data/dataset.py",
    "tensorboardX": "training/writer.py",
    "matplotlib": "report/",
    "jinja2": "report/",
    "skimage": "models/perturbations.py",
}


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides an arrow"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    """report/page.py as mlc_jax.report.page."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def own(path: Path) -> set[str]:
    """The modules of ours that a file imports, without the package's name."""
    return {
        name.removeprefix("mlc_jax.")
        for name in imports(path)
        if name.split(".")[0] == "mlc_jax" and name != "mlc_jax.__version__"
    }


def test_every_room_is_known() -> None:
    assert {room_of(path) for path in SOURCES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_the_table(path: Path) -> None:
    room = room_of(path)
    allowed = MAY_IMPORT[room] | ({room} if room != "stages" else set())
    for name in own(path):
        good = any(name == other or name.startswith(f"{other}.") for other in allowed)
        assert good, f"{path.relative_to(ROOT)} imports mlc_jax.{name}"


def test_stages_never_import_each_other() -> None:
    """Covered by the table as well; this says that it is meant, and that there are stages."""
    stages = [path for path in SOURCES if room_of(path) == "stages" and path.stem != "__init__"]
    assert stages
    for path in stages:
        assert not any(name.startswith("stages") for name in own(path)), path


def test_assess_knows_numpy_and_scipy_only() -> None:
    for path in (path for path in SOURCES if room_of(path) == "assess"):
        foreign = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        assert foreign <= {"numpy", "scipy", "mlc_jax"}, (path, foreign)


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_spoken_to_in_one_place(library: str) -> None:
    users = [
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if any(name.split(".")[0] == library for name in imports(path))
    ]
    assert users, f"nothing imports {library}"
    assert all(user.startswith(ONLY_IN[library]) for user in users), users


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    """Jax's own plugins and what a library needs without saying so aside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    peers = {re.split(r"[>=]", line)[0] for line in optional["bench"] + optional["heif"]}
    peers = {name.replace("-", "_") for name in peers}
    declared = {re.split(r"[\[<>=~!; ]", line)[0] for line in project["dependencies"]}
    called = {
        "absl-py": "absl",
        "grain": "grain",
        "opencv-python-headless": "cv2",
        "orbax-checkpoint": "orbax",
        "pillow": "PIL",
        "python-calamine": "python_calamine",
        "scikit-image": "skimage",
        "scikit-learn": "sklearn",
        "tensorflow-datasets": "tensorflow_datasets",
    }
    # For others: TFDS imports the first undeclared, and writes the second's format; jax.export
    # imports the third.
    for_others = {"importlib_resources", "array_record", "flatbuffers"}
    used = {
        name.split(".")[0]
        for path in [*SOURCES, *SCRIPTS]
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names
    } - {"mlc_jax", *peers, *(path.stem for path in SCRIPTS)}
    assert used == {called.get(name, name) for name in declared} - for_others


def run_python(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_module_imports_without_a_warning() -> None:
    names = [name_of(path) for path in [*SOURCES, *SCRIPTS] if path.parent != ROOT / "scripts"]
    run_python(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")


@pytest.mark.parametrize(
    "module", ["mlc_jax", "mlc_jax.report.page", "mlc_jax.main", "mlc_jax.settings"]
)
def test_the_report_and_the_command_line_start_without_jax(module: str) -> None:
    run_python(
        f"import sys, {module}\n"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'tensorflow_datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_assess_and_data_read_without_jax() -> None:
    run_python(
        "import sys, mlc_jax.data.labels, mlc_jax.data.cells, mlc_jax.assess.out_of_fold\n"
        "assert 'jax' not in sys.modules"
    )


def test_files_are_named_for_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
    everywhere = [*SOURCES, *SCRIPTS, *(ROOT / "tests").rglob("*.py")]
    assert not [path for path in everywhere if path.stem in vague]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            yield (function.id if isinstance(function, ast.Name) else ast.unparse(function)), node


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: path.stem)
def test_nothing_unpickles_evaluates_or_prints(path: Path) -> None:
    unsafe = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not unsafe & {name.split(".")[0] for name in imports(path)}
    for name, call in calls(path):
        assert name not in {"eval", "exec", "__import__"}, (path, call.lineno)
        if path.name != "main.py" and path.parent.name != "scripts":
            assert name != "print", (path, call.lineno)
        for keyword in call.keywords:
            if keyword.arg == "allow_pickle":
                assert isinstance(keyword.value, ast.Constant), (path, call.lineno)
                assert keyword.value.value is False, (path, call.lineno)
        if name in {"np.load", "numpy.load"}:
            assert "allow_pickle" in {keyword.arg for keyword in call.keywords}, (path, call.lineno)


def test_every_public_thing_says_what_it_is() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if path.stem != "__init__":
            assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), (path, node.name)
