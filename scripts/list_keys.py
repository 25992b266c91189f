"""Lists every key of every job with its default and its meaning, as one Markdown table.

  python scripts/list_keys.py            prints the table
  python scripts/list_keys.py --write    writes it to configs/KEYS.md

Keys and defaults are those that `configs/*.py` make. A meaning is the comment beside the key, above
it and at the end of its line, where the key is set: in `configs/*.py`, `mlc_jax/settings.py`,
`mlc_jax/label_settings.py` or `mlc_jax/loss_settings.py`.
"""

import argparse
import ast
import io
import runpy
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mlc_jax.files.atomic import write_text
from mlc_jax.settings import resolve

ROOT = Path(__file__).resolve().parents[1]
JOBS = sorted((ROOT / "configs").glob("*.py"))
SHARED = tuple(
    ROOT / "mlc_jax" / f"{name}.py" for name in ("settings", "label_settings", "loss_settings")
)
TABLE = ROOT / "configs" / "KEYS.md"
INTRODUCTION = """# Every key

Written by `python scripts/list_keys.py --write`; do not edit. On the command line a key is
`--config.KEY=VALUE`, with commas inside a value that has parts; in Python `KEY=value` with `__` for
the dots. A default that depends on other keys is shown for own data with the conv head, and what
differs for the linear head and for the demo.

"""


def main(arguments: list[str] | None = None) -> int:
    """Prints or writes the table; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    if parser.parse_args(arguments).write:
        write_text(TABLE, page())
        print(TABLE)
    else:
        print(page(), end="")
    return 0


def page() -> str:
    """The content of configs/KEYS.md."""
    lines = ["| key | jobs | default | meaning |", "|---|---|---|---|"]
    for (key, default, meaning), jobs in rows().items():
        shown = "all" if len(jobs) == len(JOBS) else ", ".join(jobs)
        lines.append(f"| `{key}` | {shown} | {default} | {meaning.replace('|', chr(92) + '|')} |")
    return INTRODUCTION + "\n".join(lines) + "\n"


def rows() -> dict[tuple[str, str, str], list[str]]:
    """The jobs that have a key with this default and this meaning; (key, default, meaning)."""
    functions = shared_functions()
    meanings = {}
    for file in JOBS:
        parsed = parse_functions(file)
        meanings[file.stem] = dict(comments("get_config", "", functions | parsed))
    found: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for file in JOBS:
        config = runpy.run_path(str(file))["get_config"]()
        for key, default in defaults(config).items():
            said = meanings[file.stem][key]
            # A job that only changes a default leaves the meaning to the job that explains the key.
            others = (own[key] for own in meanings.values() if own.get(key))
            meaning = said or next(others, "")
            found.setdefault(key, {}).setdefault((key, default, meaning), []).append(file.stem)
    return {row: jobs for key in sorted(found) for row, jobs in found[key].items()}


Function = tuple[ast.FunctionDef, dict[int, str], list[str]]


def shared_functions() -> dict[str, Function]:
    """The functions that make the keys of several jobs, by name."""
    return {name: found for file in SHARED for name, found in parse_functions(file).items()}


def parse_functions(file: Path) -> dict[str, Function]:
    """The functions of a file by name: tree, comments by line, and the lines of the file."""
    text = file.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    by_line = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    return {
        node.name: (node, by_line, text.splitlines())
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    }


def comments(name: str, prefix: str, functions: dict[str, Function]) -> Iterator[tuple[str, str]]:
    """Every key that a function sets, with the comment beside it; a later one counts.

    Args:
      name: of the function, which sets attributes of `config`.
      prefix: of the keys, where the function makes a part of a configuration.
      functions: those it may call, and itself.
    """
    function, by_line, lines = functions[name]
    known: dict[str, str] = {}
    for node in function.body:
        if not isinstance(node, ast.Assign):
            continue
        target = ast.unparse(node.targets[0])
        if target != "config" and not target.startswith("config."):
            continue
        key = prefix + target.removeprefix("config").removeprefix(".")
        made = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
        if made in functions:
            inner = f"{key}." if key else ""
            known |= dict(comments(made, inner, functions))
            continue
        above: list[str] = []
        line = node.lineno - 1
        while lines[line - 1].lstrip().startswith("#"):
            above.insert(0, by_line[line])
            line -= 1
        beside = by_line.get(node.end_lineno or node.lineno, "")
        known[key] = " ".join([*above, beside]).strip() or known.get(key, "")
    yield from known.items()


def defaults(config: ConfigDict) -> dict[str, str]:
    """Every key that holds a value, with its default in words."""
    given = dict(flat(config))
    if None not in given.values():
        return {key: shown(value) for key, value in given.items()}
    # What is left open is filled in by the rules themselves.
    demo = dict(flat(resolve(config, lambda _: None)))
    config.data.labels = config.data.images = "own"
    own = dict(flat(resolve(config, lambda _: None)))
    config.head.name = "linear"
    linear = dict(flat(resolve(config, lambda _: None)))
    words = {}
    for key, value in given.items():
        default = own[key] if value is None else value
        words[key] = "unused" if default is None else shown(default)
        if value is None and linear[key] != own[key] and key != "head.name":
            unused = linear[key] is None  # by heads that are solved exactly
            words[key] += (
                "; linear head: unused" if unused else f"; linear head {shown(linear[key])}"
            )
        if value is None and demo[key] != own[key]:
            words[key] += f"; demo {shown(demo[key])}"
    return words


def flat(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full names and values of the keys that hold values, but for `stage`, which is the job."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f"{prefix}{name}.")
        elif name != "stage":
            yield prefix + name, value


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, tuple):
        text = ",".join(map(str, value))
    else:
        text = str(value)
    return f"`{text}`" if text else "empty"


if __name__ == "__main__":
    raise SystemExit(main())
