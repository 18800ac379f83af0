"""What the report knows of each metric: its name, how its values are written, and which way is better."""

from dataclasses import dataclass
from typing import Literal

from lightpaff.report import formats

Unit = Literal["points", "plain"]


@dataclass(frozen=True)
class ShownMetric:
    """A metric as the reader sees it."""

    name: str
    """As in a sentence: the student's ..."""
    unit: Unit = "points"
    """points: a fraction or correlation, written times 100. plain: written as it is."""
    is_higher_better: bool = True

    @property
    def scale(self) -> float:
        """What a value is multiplied by to be written."""
        return 100.0 if self.unit == "points" else 1.0

    @property
    def label(self) -> str:
        """The name with its unit, for an axis."""
        return f"{self.name} (points)" if self.unit == "points" else self.name

    @property
    def directed_name(self) -> str:
        """The name, with which way is better where that is not a matter of course."""
        return self.name if self.is_higher_better else f"{self.name} (lower is better)"

    def write(self, value: float, spread: float | None = None) -> str:
        """0.925 -> 92.5 in points, 38.014 -> 38.01 plain; with the standard deviation over seeds: 92.5 ± 0.3."""
        if self.unit == "points":
            value_text, spread_text = formats.points(value), formats.points(spread or 0)
        else:
            value_text, spread_text = formats.plain(value), formats.plain(spread or 0, like=value)
        return value_text if spread is None else f"{value_text} \N{PLUS-MINUS SIGN} {spread_text}"

    def write_interval(self, low: float, high: float) -> str:
        """[90.9, 94.1]"""
        if self.unit == "points":
            return formats.interval(low, high)
        return f"[{formats.plain(low, like=high)}, {formats.plain(high)}]"

    def write_difference(self, difference: float) -> str:
        """+0.1 in points, −3.20 plain."""
        return formats.signed_points(difference) if self.unit == "points" else formats.signed_plain(difference)

    def write_signed_interval(self, low: float, high: float) -> str:
        """[−0.9, +1.1]"""
        if self.unit == "points":
            return formats.signed_interval(low, high)
        largest = max(abs(low), abs(high))
        return f"[{formats.signed_plain(low, like=largest)}, {formats.signed_plain(high, like=largest)}]"

    def tell_difference(self, difference: float, low: float, high: float) -> str:
        """+1.5 points [+0.6, +2.4], or −3.20 [−4.10, −2.20] in perplexity per word (lower is better)."""
        value, ends = self.write_difference(difference), self.write_signed_interval(low, high)
        return f"{value} points {ends}" if self.unit == "points" else f"{value} {ends} in {self.directed_name}"

    def write_share(self, share: float) -> str:
        """A model's score over its teacher's: 98.3 % of it; for what is better lower, how much higher: +8.4 %."""
        return formats.percent(share) if self.is_higher_better else f"{formats.signed_points(share - 1)} %"

    def as_gain(self, low: float, high: float) -> tuple[float, float]:
        """The interval of a difference, turned so that more than 0 is better."""
        return (low, high) if self.is_higher_better else (-high, -low)


METRICS: dict[str, ShownMetric] = {
    "accuracy": ShownMetric("accuracy"),
    "f1": ShownMetric("F1"),
    "entity_f1": ShownMetric("entity F1"),
    "answer_f1": ShownMetric("answer F1"),
    "exact_match": ShownMetric("exact match"),
    "matthews": ShownMetric("Matthews correlation"),
    "pearson": ShownMetric("Pearson correlation"),
    "spearman": ShownMetric("Spearman correlation"),
    "bleu": ShownMetric("BLEU"),
    "chrf": ShownMetric("chrF"),
    "rouge1": ShownMetric("ROUGE-1"),
    "rouge2": ShownMetric("ROUGE-2"),
    "rougeL": ShownMetric("ROUGE-L"),
    "word_perplexity": ShownMetric("perplexity per word", "plain", is_higher_better=False),
    "perplexity": ShownMetric("perplexity per token", "plain", is_higher_better=False),
    "nll": ShownMetric("loss (nats)", "plain", is_higher_better=False),
    "mse": ShownMetric("loss (mean squared error)", "plain", is_higher_better=False),
}
"""By the recipe's word for it. The losses occur in validation points, and under noise, only."""
