"""Figures and lists as people read them."""

DASH = "–"

_NAMED = 5


def count(value: float) -> str:
    """A whole number: 12,345."""
    return f"{round(value):,}"


def figure(value: float) -> str:
    """A metric to three places, with a true minus sign: −0.012."""
    return f"{value:.3f}".replace("-", "−")


def percent(share: float) -> str:
    """A share: 88.1 %, with a narrow space that does not break."""
    return f"{100 * share:.1f}\u202f%"


def p_value(value: float) -> str:
    """Two significant figures: 0.00034."""
    return f"{value:.2g}"


def span(low: float, high: float) -> str:
    """An interval: 0.951–0.972."""
    return f"{figure(low)}{DASH}{figure(high)}"


def duration(seconds: float) -> str:
    """12.3 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def rate(per_second: float, unit: str) -> str:
    """1,234 images/s, 1.2 images/s, 0.034 images/s."""
    places = ",.0f" if per_second >= 100 else ".1f" if per_second >= 1 else ".2g"
    return f"{per_second:{places}} {unit}/s"


def listed(names: list[str]) -> str:
    """“a”, “b” and “c”; of many names the first and the number of the others."""
    quoted = [f"“{name}”" for name in names]
    if len(names) > _NAMED:
        return f"{', '.join(quoted[:_NAMED])} and {len(names) - _NAMED} more labels"
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def shortened(items: list[str]) -> str:
    """a; b; c; of many the first and the number of the others."""
    more = f"; and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return "; ".join(items[:_NAMED]) + more
