"""Which task a file is of, and which columns mean what; every decision comes with its reason."""

from dataclasses import dataclass, field
from typing import Any, Literal

from lightpaff.errors import UserError
from lightpaff.recipe_families import Family
from lightpaff.start.columns import Column, Table

Objective = Literal["classify", "regress", "tag", "answer", "clm", "translate"]
FAMILY_OF: dict[Objective, Family] = {
    "classify": "encoder",
    "regress": "encoder",
    "tag": "encoder",
    "answer": "encoder",
    "clm": "decoder",
    "translate": "encoder-decoder",
}
_LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "intent", "sentiment", "polarity", "gold", "tag", "topic", "type",
    "is_duplicate", "entailment", "answer", "y", "output",
)  # fmt: skip
_SCORE_NAMES = ("score", "rating", "stars", "similarity", "relevance", "grade", "value")
_GROUP_NAMES = (
    "group",
    "document",
    "doc",
    "film",
    "movie",
    "product",
    "customer",
    "user",
    "author",
    "session",
    "source",
)
_SOURCE_NAMES = ("source", "src", "document", "article", "dialogue", "input", "body", "text", "prompt")
_TARGET_NAMES = ("target", "tgt", "summary", "highlights", "output", "response", "subject", "title", "completion")
_PAIR_NAMES = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("query", "document"))
_LONGEST_LANGUAGE = 3
_LANGUAGES = {
    "arabic": "ar", "chinese": "zh", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi",
    "french": "fr", "german": "de", "greek": "el", "hindi": "hi", "hungarian": "hu", "italian": "it", "japanese": "ja",
    "korean": "ko", "norwegian": "no", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru",
    "spanish": "es", "swedish": "sv", "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi",
}  # fmt: skip
_GROUP_SHARE = (0.002, 0.5)


@dataclass(frozen=True)
class Guess:
    """What a file is for.

    Attributes:
        columns: of the task, as a recipe has them.
        labels: of classify, where the file's own order would not do.
        languages: of translate, where the columns are named after them.
        group: the column of rows that belong together.
        why: one line a decision.
    """

    objective: Objective
    columns: dict[str, str]
    labels: list[str] = field(default_factory=list)
    languages: dict[str, str] | None = None
    group: str | None = None
    why: list[str] = field(default_factory=list)


def guess(table: Table, given: dict[str, str] | None = None) -> Guess:
    """What the file is for.

    Args:
        table: what its columns hold.
        given: columns that the user names: text, text_pair, label, source, target, group.

    Raises:
        UserError: nothing fits; says what the columns hold.
    """
    given = given or {}
    for name in given.values():
        if table.column(name) is None:
            known = ", ".join(column.name for column in table.columns)
            raise UserError(f"{table.path}: has no column '{name}'; it has {known}")
    for find in (_tagged, _questions, _translated, _labelled, _plain):
        if (found := find(table, given)) is not None:
            return found
    told = "; ".join(f"{column.name}: {column.kind}, {column.distinct} values" for column in table.columns)
    raise UserError(
        f"{table.path}: no task fits its columns ({told}); name them with --column, such as --column text=NAME"
    )


def _tagged(table: Table, given: dict[str, str]) -> Guess | None:
    if table.format == "conll":
        return Guess("tag", {}, why=["tag: a CoNLL file has a tag for every word"])
    lists = [column for column in table.columns if column.kind == "list"]
    if len(lists) < 2 or given:
        return None
    # There are fewer tags than words.
    tags = min(lists, key=lambda column: column.items)
    words = max(lists, key=lambda column: column.items)
    columns = {"text": words.name, "label": tags.name}
    return Guess("tag", columns, why=[f"tag: '{words.name}' holds lists of words, and '{tags.name}' a tag for each"])


def _questions(table: Table, given: dict[str, str]) -> Guess | None:
    if table.format == "squad":
        return Guess("answer", {}, why=["answer: a file in SQuAD's layout"])
    answers = next((column for column in table.columns if column.kind == "mapping" and "answer" in column.name), None)
    if answers is None or table.column("question") is None or table.column("context") is None or given:
        return None
    columns = {"text": "question", "text_pair": "context", "label": answers.name}
    return Guess("answer", columns, why=["answer: questions, contexts, and answers as SQuAD has them"])


def _translated(table: Table, given: dict[str, str]) -> Guess | None:
    if "label" in given or "text" in given:
        return None
    texts = [column for column in table.columns if column.could_be_text]
    if "source" in given and "target" in given:
        pair = given["source"], given["target"]
        return Guess("translate", {"source": pair[0], "target": pair[1]}, why=["translate: as you named the columns"])
    if len(texts) < 2 or any(_is_label(column) for column in table.columns):
        return None
    languages = {column.name: code for column in texts if (code := _language(column.name))}
    if len(languages) >= 2:
        source, target, *others = languages
        more = f"; {', '.join(others)} left aside (--column source=NAME, target=NAME)" if others else ""
        return Guess(
            "translate",
            {"source": source, "target": target},
            languages={"source": languages[source], "target": languages[target]},
            why=[f"translate: '{source}' and '{target}' are named like languages{more}"],
        )
    source_column = min(texts, key=lambda column: (_place(column.name, _SOURCE_NAMES), -column.words))
    rest = [column for column in texts if column != source_column]
    target_column = min(rest, key=lambda column: (_place(column.name, _TARGET_NAMES), column.words))
    if _place(target_column.name, _TARGET_NAMES) == len(_TARGET_NAMES):
        return None
    columns = {"source": source_column.name, "target": target_column.name}
    references = next((c.name for c in table.columns if c.kind == "list" and c.name == "references"), None)
    columns |= {"references": references} if references else {}
    told = (
        f"translate: '{source_column.name}' is read ({source_column.words:.0f} words), '{target_column.name}' written"
    )
    return Guess("translate", columns, why=[f"{told} ({target_column.words:.0f} words)"])


def _labelled(table: Table, given: dict[str, str]) -> Guess | None:
    label = table.column(given["label"]) if "label" in given else _find_label(table)
    if label is None:
        return None
    texts = _texts(table, given, label)
    if not texts:
        return None
    columns = {"text": texts[0].name, "label": label.name}
    pair = f" with '{texts[1].name}'" if len(texts) > 1 else ""
    columns |= {"text_pair": texts[1].name} if len(texts) > 1 else {}
    group = _find_group(table, given, [label, *texts])
    is_score = label.could_be_score and (not label.could_be_label or not label.are_whole)
    if is_score:
        why = f"regress: '{label.name}' holds {label.distinct} different numbers"
        return Guess("regress", columns, group=group, why=[f"{why}; the text is '{texts[0].name}'{pair}"])
    values = sorted(label.values, key=lambda value: (len(value), value) if label.kind == "number" else (0, value))
    why = (
        f"classify: '{label.name}' has {label.distinct} values ({_shown(values)}); the text is '{texts[0].name}'{pair}"
    )
    return Guess("classify", columns, labels=values, group=group, why=[why])


def _plain(table: Table, given: dict[str, str]) -> Guess | None:
    if "text" in given:
        name = given["text"]
    else:
        texts = sorted((column for column in table.columns if column.could_be_text), key=lambda c: -c.words)
        if not texts:
            return None
        name = texts[0].name
    others = [f"'{column.name}'" for column in table.columns if column.could_be_text and column.name != name]
    unused = f"; {', '.join(others)} left aside (--column source=NAME, target=NAME where one is to be written)"
    why = f"clm: '{name}' holds text, and nothing else looks like a label{unused if others else ''}"
    return Guess("clm", {"text": name}, why=[why])


def _find_label(table: Table) -> Column | None:
    could = [column for column in table.columns if _is_label(column)]
    if not could:
        return None
    return min(could, key=lambda column: (_place(column.name, (*_LABEL_NAMES, *_SCORE_NAMES)), column.distinct))


def _is_label(column: Column) -> bool:
    is_named = column.name.lower() in (*_LABEL_NAMES, *_SCORE_NAMES)
    if _looks_like_group(column) or column.filled < 0.2:
        return False
    return column.could_be_label or (column.could_be_score and (is_named or not column.are_whole))


def _texts(table: Table, given: dict[str, str], label: Column) -> list[Column]:
    """One text, or both of a pair."""
    if "text" in given:
        names = [given[key] for key in ("text", "text_pair") if key in given]
        return [column for name in names if (column := table.column(name)) is not None]
    texts = [column for column in table.columns if column != label and column.could_be_text]
    texts = [column for column in texts if not _looks_like_group(column)]
    if not texts:
        return []
    by_name = {column.name.lower(): column for column in texts}
    for first, second in _PAIR_NAMES:
        if first in by_name and second in by_name:
            return [by_name[first], by_name[second]]
    longest = max(texts, key=lambda column: column.words)
    # Two texts of about one length are a pair; a title beside a body is not.
    like = [column for column in texts if column.words > 0.4 * longest.words and column.words > 2]
    return like if len(like) == 2 else [longest]


def _find_group(table: Table, given: dict[str, str], taken: list[Column]) -> str | None:
    if "group" in given:
        return given["group"]
    free = [column for column in table.columns if column not in taken and _looks_like_group(column)]
    return free[0].name if free else None


def _looks_like_group(column: Column) -> bool:
    lowest, highest = (share * column.rows for share in _GROUP_SHARE)
    parts = column.name.lower().replace("-", "_").split("_")
    is_named = any(part in _GROUP_NAMES for part in parts) and column.name.lower() not in _SOURCE_NAMES[:2]
    return column.kind in ("text", "number") and is_named and max(lowest, 3) < column.distinct < highest


def _language(name: str) -> str | None:
    """The code of the language that a column is named after."""
    return name if name.isalpha() and len(name) <= _LONGEST_LANGUAGE else _LANGUAGES.get(name.lower())


def _place(name: str, known: tuple[str, ...]) -> int:
    """How early a name stands among those that are known; behind all where it does not."""
    return known.index(name.lower()) if name.lower() in known else len(known)


def _shown(values: list[Any]) -> str:
    told = ", ".join(map(str, values[:6]))
    return told if len(values) <= 6 else f"{told}, …"
