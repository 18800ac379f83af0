"""Which task a file is of, and which columns mean what; every decision comes with its reason."""

import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from lightpaff.data.cleaning import clean_text
from lightpaff.data.numbers import canonical_number
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
_ROLES = ("text", "text_pair", "label", "source", "target", "group")
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
_CODES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv "
    "ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne "
    "ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st "
    "su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
"""Of ISO 639-1."""
_LANGUAGES = {
    "arabic": "ar", "chinese": "zh", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi",
    "french": "fr", "german": "de", "greek": "el", "hindi": "hi", "hungarian": "hu", "italian": "it", "japanese": "ja",
    "korean": "ko", "norwegian": "no", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru",
    "spanish": "es", "swedish": "sv", "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi",
}  # fmt: skip
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_GROUP_SHARE = (0.002, 0.5)
_NEARLY_ALL = 0.98
"""Of a group's cells are filled: rows with an empty one would all stay together."""


@dataclass(frozen=True)
class Guess:
    """What a file is for.

    Attributes:
        columns: of the task, as a recipe has them.
        labels: of classify (and of tag, once the file was read for them), all.
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


def named_columns(given: list[str] | None) -> dict[str, str]:
    """The columns that the user names, from ROLE=NAME each.

    Raises:
        UserError: a role that is not known.
    """
    found = {}
    for one in given or []:
        role, separator, name = one.partition("=")
        if not separator or role not in _ROLES:
            raise UserError(f"--column {one}: write it as ROLE=NAME, with one of {', '.join(_ROLES)}")
        found[role] = name
    return found


def guess(table: Table, given: dict[str, str] | None = None, classes: int | None = None) -> Guess:
    """What the file is for.

    Args:
        table: what its columns hold.
        given: columns that the user names: text, text_pair, label, source, target, group.
        classes: how many the user's model tells apart, 1 where it gives a score; it decides where columns do not.

    Raises:
        UserError: nothing fits; says what the columns hold. Or a column that the user names has no place.
    """
    given = given or {}
    for name in given.values():
        if table.column(name) is None:
            known = ", ".join(column.name for column in table.columns)
            raise UserError(f"{table.path}: has no column '{name}'; it has {known}")
    for find in (_tagged, _questions, _translated, partial(_labelled, classes=classes), _plain):
        if (found := find(table, given)) is not None:
            found = replace(found, group=given.get("group", found.group))
            _require_used(table, given, found)
            return found
    told = "; ".join(f"{column.name}: {column.kind}, {column.distinct} values" for column in table.columns)
    raise UserError(
        f"{table.path}: no task fits its columns ({told}); name them with --column, such as --column text=NAME"
    )


def _require_used(table: Table, given: dict[str, str], found: Guess) -> None:
    own = {**found.columns, "group": found.group}
    for role, name in given.items():
        if own.get(role) != name:
            used = ", ".join(f"{role}={name}" for role, name in found.columns.items()) or "its own columns"
            raise UserError(
                f"{table.path}: --column {role}={name} has no place in {found.objective} with {used}; name the columns "
                "that belong to it too, or leave it out"
            )


def _tagged(table: Table, given: dict[str, str]) -> Guess | None:
    if table.format == "conll":
        return Guess("tag", {}, why=["tag: a CoNLL file has a tag for every word"])
    lists = [column for column in table.columns if column.kind == "list"]
    if len(lists) < 2:
        _refuse_several_labels(table, given, lists)
        return None
    # There are fewer tags than words.
    fewest, most = (choose(lists, key=lambda column: column.items).name for choose in (min, max))
    words, tags = given.get("text", most), given.get("label", fewest)
    if {words, tags} - {column.name for column in lists} or given.keys() & {"source", "target"}:
        return None
    columns = {"text": words, "label": tags}
    return Guess("tag", columns, why=[f"tag: '{words}' holds lists of words, and '{tags}' a tag for each"])


def _refuse_several_labels(table: Table, given: dict[str, str], lists: list[Column]) -> None:
    for column in lists:
        is_named = {column.name.lower(), column.name.lower().removesuffix("s")} & set(_LABEL_NAMES)
        if given.get("label", column.name if is_named else None) == column.name:
            raise UserError(
                f"{table.path}: column '{column.name}' holds lists, and several labels a row are not supported; write "
                "one label a row, or name another column with --column label=NAME"
            )


def _questions(table: Table, given: dict[str, str]) -> Guess | None:
    if table.format == "squad":
        return Guess("answer", {}, why=["answer: a file in SQuAD's layout"])
    if given.keys() - {"group"}:
        return None
    answers = next((column for column in table.columns if column.kind == "mapping" and "answer" in column.name), None)
    if answers is None or table.column("question") is None or table.column("context") is None:
        return None
    columns = {"text": "question", "text_pair": "context", "label": answers.name}
    return Guess("answer", columns, why=["answer: questions, contexts, and answers as SQuAD has them"])


def _translated(table: Table, given: dict[str, str]) -> Guess | None:
    if "label" in given or "text" in given:
        return None
    texts = [column for column in _free(table, given) if column.could_be_text]
    if "source" in given and "target" in given:
        pair = given["source"], given["target"]
        return Guess("translate", {"source": pair[0], "target": pair[1]}, why=["translate: as you named the columns"])
    if len(texts) < 2 or any(_is_label(column) for column in _free(table, given)):
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


def _labelled(table: Table, given: dict[str, str], classes: int | None) -> Guess | None:
    label, others = _find_label(table, given, classes)
    if label is None or label.kind not in ("text", "number"):
        return None
    texts = _texts(table, given, label)
    if not texts:
        return None
    columns = {"text": texts[0].name, "label": label.name}
    pair = f" with '{texts[1].name}'" if len(texts) > 1 else ""
    columns |= {"text_pair": texts[1].name} if len(texts) > 1 else {}
    group, why = (None, []) if "group" in given else _find_group(table, [label, *texts])
    reading = f"the text is '{texts[0].name}'{pair}{_told_of_others(others)}"
    if _is_score(label, classes, is_given="label" in given):
        told = f"regress: '{label.name}' holds {label.distinct} different numbers; {reading}"
        return Guess("regress", columns, group=group, why=[told, *why])
    values = list(dict.fromkeys(clean_text(canonical_number(value)) for value in label.values))
    values.sort(key=lambda value: (len(value), value) if label.kind == "number" else (0, value))
    if not values:
        raise UserError(
            f"{table.path}: column '{label.name}' holds {label.distinct} different values, too many or too long ones "
            "for labels; name another with --column label=NAME"
        )
    _refuse_decimal_commas(table, label)
    if len(values) == 1:
        raise UserError(
            f"{table.path}: column '{label.name}' holds one value, '{values[0]}', and classes are two or more; name "
            "another with --column label=NAME"
        )
    told = f"classify: '{label.name}' has {len(values)} values ({_shown(values)}); {reading}"
    return Guess("classify", columns, labels=values, group=group, why=[told, *why])


def _refuse_decimal_commas(table: Table, column: Column) -> None:
    if column.values and all(map(_DECIMAL_COMMA.fullmatch, column.values)):
        raise UserError(
            f"{table.path}: column '{column.name}' has decimal commas ({column.values[0]}), which would be classes; "
            "write points"
        )


def _is_score(label: Column, classes: int | None, *, is_given: bool) -> bool:
    """A number of no class. Whole ones may be either: a model that the user has knows."""
    if label.kind != "number" or label.distinct <= 2 or not label.are_whole:
        return label.kind == "number" and label.distinct > 2
    if classes is not None and (classes == 1 or classes == label.distinct):
        return classes == 1
    return not label.could_be_label and not ((is_given or _has_label_name(label)) and label.could_be_classes)


def _plain(table: Table, given: dict[str, str]) -> Guess | None:
    if "text" in given:
        name = given["text"]
    else:
        texts = sorted((column for column in _free(table, given) if column.could_be_text), key=lambda c: -c.words)
        if not texts:
            return None
        name = texts[0].name
        _refuse_unfit_label(table, given, name)
    others = [f"'{column.name}'" for column in _free(table, given) if column.could_be_text and column.name != name]
    unused = f"; {', '.join(others)} left aside (--column source=NAME, target=NAME where one is to be written)"
    why = f"clm: '{name}' holds text, and nothing else looks like a label{unused if others else ''}"
    return Guess("clm", {"text": name}, why=[why])


def _refuse_unfit_label(table: Table, given: dict[str, str], text: str) -> None:
    """Whoever has a column of a label's name does not want a model of the text alone, unless he says so."""
    for column in _free(table, given):
        if column.name == text or column.name.lower() not in (*_LABEL_NAMES, *_SCORE_NAMES):
            continue
        _refuse_decimal_commas(table, column)
        if column.could_be_text:
            continue
        held = f"{column.distinct} values ({column.kind}) in {column.rows} of {table.rows} rows"
        held = f"one value, '{column.values[0]}'" if len(column.values) == 1 == column.distinct else held
        raise UserError(
            f"{table.path}: column '{column.name}' is named like a label, but holds {held}; name the label (--column "
            f"label=NAME), or the text alone (--column text={text}) for a language model"
        )


def _free(table: Table, given: dict[str, str]) -> list[Column]:
    """The columns that the user does not name."""
    return [column for column in table.columns if column.name not in given.values()]


def _find_label(table: Table, given: dict[str, str], classes: int | None) -> tuple[Column | None, list[Column]]:
    """The label, and what could as well be one where no name tells."""
    if "label" in given:
        return table.column(given["label"]), []
    names = (*_LABEL_NAMES, *_SCORE_NAMES)
    could = [column for column in _free(table, given) if _is_label(column)]
    could.sort(key=lambda column: (_place(column.name, names), column.distinct != classes, column.distinct))
    is_named = bool(could) and could[0].name.lower() in names
    return next(iter(could), None), [] if is_named else could[1:]


def _is_label(column: Column) -> bool:
    if _looks_like_group(column) or column.is_named_for_parts or column.filled < 0.2:
        return False
    is_named = column.name.lower() in (*_LABEL_NAMES, *_SCORE_NAMES)
    is_class = column.could_be_label or (_has_label_name(column) and column.could_be_classes)
    return is_class or (column.could_be_score and (is_named or not column.are_whole))


def _has_label_name(column: Column) -> bool:
    return column.name.lower() in _LABEL_NAMES


def _told_of_others(others: list[Column]) -> str:
    told = ", ".join(f"'{column.name}' (--column label={column.name})" for column in others)
    return f"; also possible: {told}" if others else ""


def _texts(table: Table, given: dict[str, str], label: Column) -> list[Column]:
    """One text, or both of a pair."""
    if "text" in given:
        names = [given[key] for key in ("text", "text_pair") if key in given]
        return [column for name in names if (column := table.column(name)) is not None]
    texts = [column for column in _free(table, given) if column != label and column.could_be_text]
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


def _find_group(table: Table, taken: list[Column]) -> tuple[str | None, list[str]]:
    """The column of rows that belong together, and why one is none."""
    free = [column for column in table.columns if column not in taken and _looks_like_group(column)]
    whole = [column for column in free if column.filled >= _NEARLY_ALL and column.is_everywhere]
    if whole or not free:
        return next((column.name for column in whole), None), []
    empty = f"{table.rows - free[0].rows} of {table.rows} rows have none"
    return None, [f"split: rows of one '{free[0].name}' are not kept together: {empty}"]


def _looks_like_group(column: Column) -> bool:
    lowest, highest = (share * column.rows for share in _GROUP_SHARE)
    parts = column.name.lower().replace("-", "_").split("_")
    is_named = any(part in _GROUP_NAMES for part in parts) and column.name.lower() not in _SOURCE_NAMES[:2]
    return column.kind in ("text", "number") and is_named and max(lowest, 3) < column.distinct < highest


def _language(name: str) -> str | None:
    """The code of the language that a column is named after."""
    return name.lower() if name.lower() in _CODES.split() else _LANGUAGES.get(name.lower())


def _place(name: str, known: tuple[str, ...]) -> int:
    """How early a name stands among those that are known; behind all where it does not."""
    return known.index(name.lower()) if name.lower() in known else len(known)


def _shown(values: list[Any]) -> str:
    told = ", ".join(map(str, values[:6]))
    return told if len(values) <= 6 else f"{told}, …"
