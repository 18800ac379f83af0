"""How fast the leak check goes through a corpus, against a plain search, on this machine.

    python benchmarks/leaks.py [--json] [--examples 200 2000] [--repetitions 3]

Texts of 100 words and evaluation examples of 20 words are drawn from a Zipf distribution over 5,000 words, as words
are in text, and one text in twenty holds an example. The plain search looks for every example in every text, as a
substring; both must find the same texts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lightpaff.data.leaks import LeakIndex

VOCABULARY, TEXT_WORDS, EXAMPLE_WORDS = 5000, 100, 20
ZIPF_EXPONENT = 1.3
TEXTS_WITH_A_LEAK = 20
"""One text in so many."""


@dataclass(frozen=True)
class Row:
    """One case's figures; `speedup` is plain / index, so above 1 the index is better."""

    examples: int
    texts: int
    leaks: int
    index_words_a_second: float
    plain_words_a_second: float
    speedup: float
    repetitions: int


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    parser.add_argument("--examples", type=int, nargs="+", default=[200, 2000], help="evaluation examples")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"{arguments.texts} texts of {TEXT_WORDS} words, median of {arguments.repetitions}")
        print(f"{'examples':>8} {'leaks':>6} {'index words/s':>14} {'plain words/s':>14} {'speed-up':>9}")
    for examples in arguments.examples:
        row = measure(examples, arguments.texts, arguments.repetitions)
        print(json.dumps(asdict(row)) if arguments.json else readable(row), flush=True)


def measure(number_of_examples: int, number_of_texts: int, repetitions: int) -> Row:
    """Time both in turns; the time to build the index is not counted."""
    random = np.random.default_rng(0)
    examples = [draw_text(random, EXAMPLE_WORDS) for _ in range(number_of_examples)]
    texts = [draw_text(random, TEXT_WORDS) for _ in range(number_of_texts)]
    for place in range(0, number_of_texts, TEXTS_WITH_A_LEAK):
        texts[place] += " " + examples[place % number_of_examples]
    words = sum(len(text.split()) for text in texts)
    index = LeakIndex(examples)
    seconds: dict[str, list[float]] = {"index": [], "plain": []}
    for _ in range(repetitions):
        found, duration = find_leaks(texts, lambda text: index.find(text) is not None)
        seconds["index"].append(duration)
        found_plainly, duration = find_leaks(texts, lambda text: is_leak(text, examples))
        seconds["plain"].append(duration)
        assert found == found_plainly
    index_seconds, plain_seconds = (statistics.median(seconds[name]) for name in ("index", "plain"))
    return Row(
        examples=number_of_examples,
        texts=number_of_texts,
        leaks=sum(found),
        index_words_a_second=words / index_seconds,
        plain_words_a_second=words / plain_seconds,
        speedup=plain_seconds / index_seconds,
        repetitions=repetitions,
    )


def draw_text(random: np.random.Generator, words: int) -> str:
    return " ".join(f"w{number}" for number in random.zipf(ZIPF_EXPONENT, words) % VOCABULARY)


def find_leaks(texts: Sequence[str], find: Callable[[str], bool]) -> tuple[list[bool], float]:
    start = time.perf_counter()
    found = [find(text) for text in texts]
    return found, time.perf_counter() - start


def is_leak(text: str, examples: Sequence[str]) -> bool:
    """The plain search: the drawn words are lower-case already, and every example is long enough to be looked for."""
    spaced = f" {text} "
    return any(f" {example} " in spaced for example in examples)


def readable(row: Row) -> str:
    return (
        f"{row.examples:>8} {row.leaks:>6} {row.index_words_a_second:>14,.0f} {row.plain_words_a_second:>14,.0f} "
        f"{row.speedup:>8.1f}x"
    )


if __name__ == "__main__":
    main()
