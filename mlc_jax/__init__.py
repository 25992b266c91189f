"""Multi-label image classification in JAX, where labels are missing and imbalanced."""

__version__ = "0.1.0"
