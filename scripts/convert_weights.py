"""Looks at weight files and converts them.

  python scripts/convert_weights.py --list
  python scripts/convert_weights.py --backbone vgg19 --verify FILE
  python scripts/convert_weights.py --backbone vgg19 --to safetensors FILE OUT

FILE is Keras's .h5, or a .safetensors or .pth in torchvision's names. OUT is read by
`--config.backbone.weights=OUT`, needs no torch, and remembers how images must be prepared.
Exit status 2 and one line where a file cannot be used.
"""

import argparse
import sys
from pathlib import Path

import jax

from mlc_jax.errors import MlcError, WeightsError
from mlc_jax.models.backbones import NETWORKS, Backbone, load_backbone
from mlc_jax.models.download import cache_state, cached_path
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.layers import layer_specs
from mlc_jax.models.published import PUBLISHED
from mlc_jax.models.weights import write_weights


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command = parser.add_mutually_exclusive_group(required=True)
    command.add_argument("--list", action="store_true", help="published files and the cache")
    command.add_argument("--verify", type=Path, metavar="FILE", help="load FILE and report")
    command.add_argument("--to", choices=["safetensors"], help="convert FILE to OUT")
    parser.add_argument("--backbone", choices=list(NETWORKS))
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE OUT")
    options = parser.parse_args(arguments)
    if len(options.files) != (2 if options.to else 0):
        parser.error("--to takes FILE and OUT, the others no further argument")
    if options.backbone is None and not options.list:
        parser.error("--backbone is needed")
    try:
        if options.list:
            list_published()
        elif options.verify:
            report(options.verify, load_backbone(options.backbone, options.verify, fold=False))
        else:
            convert(options.backbone, *options.files)
    except MlcError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def list_published() -> None:
    """Prints the published weights and what the cache holds of them."""
    for name in NETWORKS:
        published = PUBLISHED.get(name) or HUB_FILES[name]
        digest = published.digest or "no digest published"
        size = "size not known here" if published.size is None else f"{published.size:,} bytes"
        print(f"{name}: {cache_state(name)} in the cache")
        print(f"  {digest}, {size}, {published.licence}")
        print(f"  from {published.url}")
        print(f"  to   {cached_path(name)}")


def convert(name: str, source: Path, target: Path) -> None:
    """Writes the weights in `source` as safetensors to `target`, and reads them back."""
    if target.suffix != ".safetensors":
        raise WeightsError(f"{target}: the name of the new file must end in .safetensors")
    backbone = load_backbone(name, source, fold=False)
    write_weights(target, name, backbone.params, backbone.preprocess)
    report(target, load_backbone(name, target, fold=False))


def report(path: Path, backbone: Backbone) -> None:
    """Prints what a loaded file holds."""
    layers = len(layer_specs(NETWORKS[backbone.name]()))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(backbone.params))
    print(f"{path}: {backbone.name}, {layers} layers, {parameters:,} parameters")
    print(f"preprocess {backbone.preprocess}, sha256 {backbone.digest}")


if __name__ == "__main__":
    sys.exit(main())
