"""What makes a score of a split say less than it seems to, in sentences for console and report."""

from collections.abc import Hashable, Iterable, Mapping, Sequence


def warn_of_repeated(train: Iterable[Hashable], evaluated: Mapping[str, Sequence[Hashable]]) -> list[str]:
    """Evaluation rows that are training rows, or rows of an evaluated split before theirs: what was learnt by heart, or
    chose the checkpoint, is no evidence."""
    # Of the training rows, which may be very many, only those that are found again.
    known: dict[str, set[Hashable]] = {"training": set().union(*evaluated.values()).intersection(train)}
    warnings = []
    for split, rows in evaluated.items():
        for name, earlier in known.items():
            if repeated := sum(row in earlier for row in rows):
                warnings.append(
                    f"{repeated:,} of {len(rows):,} {split} rows ({repeated / len(rows):.0%}) are {name} rows too: "
                    f"expect worse on new text than the {split} set shows"
                )
        known[split] = set(rows)
    return warnings


def warn_of_one_class(split: str, counts: dict[str, int]) -> list[str]:
    """A split whose rows are all of one class, easily made by `limit` on a sorted file; `counts` are by class."""
    found = [name for name, count in counts.items() if count]
    if len(found) != 1:
        return []
    return [
        f"every {split} row is of the class '{found[0]}': the scores there say nothing about telling classes apart "
        "(limit keeps the first rows: shuffle a sorted file)"
    ]
