"""How numbers look in the report: one place, so that tables, sentences and plots say the same."""

_MINUS = "\N{MINUS SIGN}"
_COUNT_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
_FLOP_UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))

_ARM_NAMES = {"teacher": "Teacher", "student": "Student", "control": "Control", "tfidf": "TF-IDF"}


def arm_name(arm: str) -> str:
    """As tables and plots call it: those that the recipe names, as it does."""
    return _ARM_NAMES.get(arm, arm)


def points(value: float) -> str:
    """A fraction or correlation in points: 0.925 -> 92.5."""
    return f"{_rounded(value):.1f}".replace("-", _MINUS)


def signed_points(value: float) -> str:
    """A difference in points, with its sign: 0.001 -> +0.1."""
    return f"{_rounded(value):+.1f}".replace("-", _MINUS)


def interval(low: float, high: float) -> str:
    """[90.9, 94.1]"""
    return f"[{points(low)}, {points(high)}]"


def signed_interval(low: float, high: float) -> str:
    """[-0.9, +1.1]"""
    return f"[{signed_points(low)}, {signed_points(high)}]"


def plain(value: float, like: float | None = None) -> str:
    """A perplexity: 38.01, 412.3, 1,234, 8.8e+49; with the decimals of `like` where the two are shown together."""
    return _plain(value, like, sign="")


def signed_plain(value: float, like: float | None = None) -> str:
    """A difference of such, with its sign: -3.2 -> −3.20."""
    return _plain(value, like, sign="+")


def percent(share: float) -> str:
    """0.983 -> 98.3 %"""
    return f"{points(share)} %"


def ratio(value: float) -> str:
    """How many times: 6.24 -> 6.2, 120.4 -> 120."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def times(value: float) -> str:
    """6.24 -> 6.2×"""
    return f"{ratio(value)}\N{MULTIPLICATION SIGN}"


def ratio_interval(low: float, high: float) -> str:
    """[5.9, 6.4]"""
    return f"[{ratio(low)}, {ratio(high)}]"


def hundredths(value: float) -> str:
    """What is in points or per cent already: 0.537 -> 0.54."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", _MINUS)


def price(value: float) -> str:
    """Three digits that count, in no currency: 1234.5 -> 1,234; 0.0456 -> 0.0456."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: int) -> str:
    """109482240 -> 109.5M"""
    return _with_unit(value, _COUNT_UNITS, str(value))


def flops(value: float) -> str:
    """1.3e15 -> 1.3 PFLOP"""
    return _with_unit(value, tuple((size, f" {unit}") for size, unit in _FLOP_UNITS), f"{value:.0f} FLOP")


def megabytes(number_of_bytes: int) -> str:
    """Decimal megabytes: 437958648 -> 438 MB."""
    value = number_of_bytes / 1e6
    return f"{value:.0f} MB" if value >= 100 else f"{value:.1f} MB" if value >= 1 else f"{value:.2f} MB"


def milliseconds(value: float) -> str:
    """47.93 -> 47.9 ms; three digits that count."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def per_second(value: float) -> str:
    """1234.5 -> 1,234"""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def tokens(mean: float) -> str:
    """A mean number of them: 23.456 -> 23.5"""
    return f"{mean:,.1f}"


def duration(seconds: float) -> str:
    """3.2 s, 4 min 12 s, 1 h 05 min"""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rough_duration(seconds: float) -> str:
    """Of an estimate: 45 s, 12 min, 2.5 h"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def threads(count: int) -> str:
    """1 thread, 2 threads"""
    return f"{count} {'thread' if count == 1 else 'threads'}"


def fact(value: str | int | float) -> str:
    """A fact of a data card."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def comparison_name(first_arm: str, second_arm: str) -> str:
    """Student - control"""
    second = arm_name(second_arm)
    return f"{arm_name(first_arm)} {_MINUS} {second if second.isupper() else second.lower()}"


def joined(parts: list[str]) -> str:
    """a, b and c"""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _plain(value: float, like: float | None, sign: str) -> str:
    decimals = _decimals(value if like is None else like)
    written = f"{value:{sign}.2g}" if abs(value) >= 1e9 else f"{round(value, decimals) + 0.0:{sign},.{decimals}f}"
    return written.replace("-", _MINUS)


def _decimals(value: float) -> int:
    return 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0


def _rounded(value: float) -> float:
    return round(100 * value, 1) + 0.0  # Adding 0.0 turns -0.0 into 0.0.


def _with_unit(value: float, units: tuple[tuple[float, str], ...], small: str) -> str:
    for size, unit in units:
        if value >= size:
            digits = 4 if value >= 100 * size else 3
            return f"{value / size:.{digits}g}{unit}"
    return small


def moment(iso: str) -> str:
    """2026-11-22T18:30:05+00:00 -> 2026-11-22 18:30 UTC"""
    return f"{iso[:10]} {iso[11:16]} UTC"
