"""Multi-label image classification in JAX, where labels are missing and imbalanced.

From Python: `impute`, `fit`, `load` and `read_labels`, as `mlc_jax.api` describes them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlc_jax.api import Model, Run, fit, impute, load, read_labels

__version__ = "0.1.0"
__all__ = ["Model", "Run", "__version__", "fit", "impute", "load", "read_labels"]


def __getattr__(name: str) -> Any:
    # Only when asked for: the command line's --help and the report start without JAX.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlc_jax import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
