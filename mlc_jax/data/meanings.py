"""What the texts of cells mean: 1, 0 or missing, and which are refused with the way to say it."""

import re
from collections.abc import Iterable, Mapping

from mlc_jax.data.delimited import shown
from mlc_jax.data.table import MISSING
from mlc_jax.errors import ConfigError
from mlc_jax.label_settings import ReadOptions, flag

MISSING_WORDS = frozenset(("", "?", "na", "nan", "n/a", "#n/a", "<na>", "null", "none"))
# What people write where they do not know: no message proposes to read these as 0 or 1.
UNKNOWN_WORDS = frozenset(
    [
        "-1",
        "-",
        "--",
        ".",
        "unknown",
        "uncertain",
        "unsure",
        "undefined",
        "unclear",
        "maybe",
        "unlabeled",
        "unlabelled",
        "missing",
        "tbd",
        "not_sure",
    ]
)
_DOUBT = frozenset(("-1", "uncertain", "unsure", "unclear", "maybe", "not_sure"))
# Known where a column holds nothing else.
_PAIRS = ({"yes": 1, "no": 0}, {"true": 1, "false": 0})
# Proposed, never assumed.
_LIKELY = {
    "true_values": (
        "true",
        "yes",
        "present",
        "positive",
        "pos",
        "y",
        "t",
        "on",
        "ja",
        "oui",
        "si",
        "x",
        "✓",
        "+",
    ),
    "false_values": ("false", "no", "absent", "negative", "neg", "n", "f", "off", "nein", "non"),
}
_WORTH = {"true": 1, "false": 0, "missing": MISSING}
_INTEGER = re.compile(r"([+-]?\d{1,9})(?:\.0*|,0{1,2})?", re.ASCII)
_SHARE = re.compile(r"(?:0|1)?[.,]\d+(?:e-?\d+)?|[01]|\d[.,]?\d*e-\d+", re.ASCII)
_PERCENTAGE = re.compile(r"(\d{1,3}(?:[.,]\d+)?)\s*(%?)", re.ASCII)
READ_AS = {1: "1", 0: "0", MISSING: "missing"}


def canonical(text: str) -> str:
    """Texts that mean the same have the same: in lower case, whole numbers in their short form."""
    word = text.strip().casefold().replace("−", "-")
    found = _INTEGER.fullmatch(word)
    return str(int(found[1])) if found else word


def _number(word: str, most: int) -> float | None:
    """The number between 0 and `most`, 1 or 100, that a text is; 93% is 0.93 or 93."""
    found = _PERCENTAGE.fullmatch(word)
    if found is None:
        return float(word.replace(",", ".")) if _SHARE.fullmatch(word) else None
    number = float(found[1].replace(",", ".")) / (100 / most if found[2] else 1)
    return number if number <= most else None


def _apart(word: str, lists: Mapping[str, tuple[tuple[str, ...], int]]) -> str:
    """Lists that share a word as flags without that: it stays in one, or none if it is known."""
    keys = [key for key, (texts, _) in lists.items() if word in map(canonical, map(str, texts))]
    known = {"0", "1"} | MISSING_WORDS
    ways = []
    for kept in ("",) if word in known else keys:
        flags = []
        for key, (texts, _) in lists.items():
            own = [str(t) for t in texts if canonical(str(t)) != word or key == kept]
            flags += [flag(key, *own)] if own else []
        ways.append(" ".join(flags))
    return " or ".join(filter(None, ways)) or "give neither"


class Meanings:
    """What texts mean under the options.

    Raises:
      ConfigError: a text is in two of true_values, false_values and missing_values.
    """

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._values: dict[str, int] = {"0": 0, "1": 1} | dict.fromkeys(MISSING_WORDS, MISSING)
        if options.blank:
            self._values[""] = _WORTH[options.blank]
        if options.uncertain:
            self._values |= dict.fromkeys(_DOUBT, _WORTH[options.uncertain])
        self.claimed: dict[str, str] = {}
        lists = {
            "true_values": (options.true_values, 1),
            "false_values": (options.false_values, 0),
            "missing_values": (options.missing_values, MISSING),
        }
        for key, (texts, value) in lists.items():
            for text in texts:
                word = canonical(str(text))
                if self.claimed.setdefault(word, key) != key:
                    raise ConfigError(
                        f"config.data.{key} holds {text!r}, and so does config.data."
                        f"{self.claimed[word]}, and its meaning is one of them: "
                        f"{_apart(word, lists)} (0, 1, and numbers such as 1,0 and 0.00 are known "
                        "without)"
                    )
                self._values[word] = value

    def get(self, text: str) -> int | None:
        """The meaning of a text wherever it stands; None where it has none."""
        word = canonical(text)
        value = self._values.get(word)
        if not self._options.soft or word in self.claimed:
            return value
        low, high = self._options.soft
        most = 1 if high <= 1 else 100
        number = _number(word, most) if value is None or most > 1 else None
        if number is None or number > most:
            return value
        return MISSING if low < number < high or number == low == high else int(number >= high)

    def is_label(self, text: str) -> bool:
        """Whether a text could stand in a column of labels, as far as its look goes."""
        word = canonical(text)
        return (
            self._values.get(word) is not None
            or word in UNKNOWN_WORDS
            or any(word in pair for pair in _PAIRS)
            or _SHARE.fullmatch(word) is not None
            or (word.endswith("%") and _number(word, 1) is not None)
            or self.get(text) is not None
        )

    def is_missing(self, text: str) -> bool:
        """Whether a text means missing, the empty cell included."""
        return self._values.get(canonical(text)) == MISSING

    def of_column(self, texts: Iterable[str]) -> dict[str, int | None]:
        """The meanings of all the texts of one column; None for those without one."""
        found = {text: self.get(text) for text in texts}
        words = {canonical(text) for text, value in found.items() if value != MISSING}
        for pair in _PAIRS:
            if words and words <= pair.keys():
                found |= {
                    text: pair[canonical(text)] for text, value in found.items() if value is None
                }
        return found

    def remedy(self, counts: Mapping[str, int]) -> str:
        """How to say what texts without a meaning mean.

        Args:
          counts: all the texts of the label cells with their numbers.
        """
        strange = {text.strip(): n for text, n in counts.items() if self.get(text) is None}
        words = {text: canonical(text) for text in strange}
        unknown = [text for text, word in words.items() if word in UNKNOWN_WORDS]
        others = [text for text in strange if text not in unknown]
        if "-1" in words.values():
            text = next(text for text, word in words.items() if word == "-1")
            if not any(self.get(other) == 0 for other in counts):
                return (
                    f"where {text} means not known: {flag('missing_values', *unknown)}; where it "
                    f"means no: {flag('false_values', text)}"
                )
            return (
                f"where {text} means not known: {flag('missing_values', *unknown)}; "
                "where it means no, and 0 not known: --config.data.uncertain=false "
                "--config.data.missing_values=0"
            )
        if unknown:
            return f"where it stands for what is not known: {flag('missing_values', *unknown)}"
        if soft := self._soft(counts, [words[text] for text in others]):
            return soft
        flags = []
        for key, likely in _LIKELY.items():
            if own := [text for text in others if words[text] in likely]:
                flags.append(flag(key, *own))
                others = [text for text in others if text not in own]
        known = {self.get(text) for text in counts} - {None}
        if flags and known <= {MISSING} and not any("false_values" in flag for flag in flags):
            flags.append("--config.data.blank=false (if an empty cell means no)")
        if flags and not others:
            return f"if so it is meant: {' '.join(flags)}"
        return (
            "name what each word means, in --config.data.true_values, --config.data.false_values "
            f"or --config.data.missing_values, as in {flag('missing_values', *others[:3])}"
        )

    def _soft(self, counts: Mapping[str, int], words: list[str]) -> str:
        """How to read numbers without a meaning as soft labels; empty where they are none."""
        ways = ((1, "0.5", "0.3,0.7"), (100, "50", "30,70"))
        for most, middle, apart in ways:
            own = [_number(word, most) for word in words]
            # Of few and small numbers, such as 2 beside 0 and 1, each is a state or a class.
            if not own or None in own or (most > 1 and max(filter(None, own), default=0) <= 10):
                continue
            cells = [(_number(canonical(text), most), n) for text, n in counts.items()]
            low = sum(n for number, n in cells if number is not None and number < float(middle))
            high = sum(n for number, n in cells if number is not None and number > float(middle))
            return (
                f"numbers between 0 and {most} may be soft labels: --config.data.soft={middle},"
                f"{middle} reads {low} cells below {middle} as 0 and {high} above as 1; "
                f"--config.data.soft={apart} leaves blank what lies between"
            )
        return ""

    def unstated_zero(self, counts: Mapping[str, int]) -> str | None:
        """What is wrong where -1 is read as 0 and cells of 0, not spoken of, stand beside it.

        Files with -1, 0 and 1 mean by 0 either no or not known.
        """
        words = {canonical(text) for text in counts}
        if self.claimed.get("-1") == "false_values" and "0" in words - self.claimed.keys():
            return (
                "holds 0 beside -1, which config.data.false_values reads as 0. If -1 means not "
                "known, give --config.data.missing_values=-1 instead; if 0 does, add "
                "--config.data.missing_values=0; if both mean no, name both: "
                "--config.data.false_values=-1,0"
            )
        return None

    def unused(self, counts: Mapping[str, int]) -> list[str]:
        """Texts of true_values, false_values and missing_values that no label cell holds."""
        words = {canonical(text) for text in counts}
        return [
            f"config.data.{key} names {shown(word)}, which no label cell holds"
            for word, key in self.claimed.items()
            if word not in words
        ]
