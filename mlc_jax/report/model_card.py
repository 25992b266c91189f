"""The model card of an export: what the classifier is, how to use it, how far to trust it."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlc_jax.report import numbers

WHOLE = {
    "map": "mAP",
    "macro_roc_auc": "macro ROC AUC",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "hamming_score": "Hamming score",
    "subset_accuracy": "subset accuracy",
}
_WORDS = {"last_block": "the last block", "all": "all"}


def model_card(card: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The card as Markdown; names and messages in it are escaped.

    Args:
      card: what the export knows: names, kind, image_size, head, trainable, licence, digest,
        platforms, checked, versions, rules, files.
      summary: summary.json of the multilabel run.
    """
    # Markdown, not HTML: `md` escapes what comes from people.
    environment = Environment(
        loader=PackageLoader("mlc_jax.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "md": escaped,
        "figure": _figure,
        "count": numbers.count,
        "metric": _metric,
        "words": _WORDS.__getitem__,
    }
    return environment.get_template("model_card.md").render(
        **card,
        whole={key: title for key, title in WHOLE.items() if key in summary["test"]},
        trained_on_demo=summary["data"]["demo"],
        data=summary["data"],
        data_digest=summary["digests"]["data"],
        backbone=summary["backbone"],
        labels=summary["labels"],
        test=summary["test"],
        loss=_loss(summary["config"]["loss"]["imputed_weight"]),
        limits=_limits(summary),
    )


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&])", r"\\\1", " ".join(text.split()))


def _figure(value: float | None) -> str:
    return numbers.DASH if value is None else numbers.figure(value)


def _metric(label: Mapping[str, Any], name: str) -> str:
    value = label.get("metrics", {}).get(name)
    if value is None:
        return numbers.DASH
    return numbers.count(value) if name == "count" else numbers.figure(value)


def _loss(imputed_weight: float) -> str:
    if imputed_weight > 0:
        return (
            f"Cells that an earlier run filled entered the loss, weighing {imputed_weight:g} times "
            "their probability of being right. No figure below looks at one."
        )
    return "The loss saw human labels only."


def _limits(summary: Mapping[str, Any]) -> list[str]:
    """What must be known before the classifier is relied on."""
    labels = summary["labels"]
    unlearned = [
        name for name, label in labels.items() if label["fitted"] and not label["learnable"]
    ]
    unfitted = [name for name, label in labels.items() if not label["fitted"]]
    limits = []
    if summary["backbone"]["random"]:
        limits.append("The backbone's weights are RANDOM: nothing in it was ever learned.")
    if unlearned:
        limits.append(
            "Not learnable by the verdict of the training, so not to be relied on: "
            f"{numbers.listed(unlearned)}."
        )
    if unfitted:
        limits.append(f"Left out, as there was too little to learn: {numbers.listed(unfitted)}.")
    limits += [f"Said by the training: {warning}" for warning in summary["warnings"]]
    limits += [
        "The figures hold for images like those it was trained on. On others, judge it anew: "
        "mlc_jax's evaluate takes a labels file of yours.",
        "Calibration and thresholds hold for the prevalence of the labels in that data.",
        "It gives every image probabilities, one that shows none of the labels' subjects too.",
        "Nothing was measured about groups of people, or about images made to mislead it.",
    ]
    return limits
