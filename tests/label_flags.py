"""Flags that messages propose, taken out of them and read as the command line reads them."""

import re
import shlex
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import convert
from mlc_jax import main

ROOT = Path(__file__).parents[1]
_FLAG = re.compile(r"'--config\.data\.[^']*'|--config\.data\.\w+=\S*")


def flags_of(message: str) -> list[str]:
    """The flags that stand in a message, as a shell takes them, without what ends their clause."""
    found = _FLAG.findall(message)
    return [shlex.split(text if text[0] == "'" else text.rstrip(";:,)"))[0] for text in found]


def config_of(*words: str) -> ConfigDict:
    """The configuration of a conversion with these flags, as the command line makes it."""
    command = main._with_lists(["main", f"--config={ROOT / 'configs' / 'convert.py'}", *words])
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_dict(
        "config", convert.get_config(), flag_values=values, sys_argv=[command[0], *command[2:]]
    )
    values([command[0], *command[2:]])
    config: ConfigDict = holder.value
    return config
