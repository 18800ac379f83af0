"""The texts of validation and test sets: none of them may be in what a tokenizer or a model is pre-trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lightpaff.data.cleaning import clean_text
from lightpaff.data.documents import iterate_documents, text_of
from lightpaff.data.sources import ResolvedSource, iterate_rows, source_identity
from lightpaff.data.tagged_words import words_of
from lightpaff.data.text_pairs import read_pair
from lightpaff.recipe_sections import Columns

_PAIRS = "translate"
_DOCUMENTS = "clm"
_WORDS = "tag"


@dataclass(frozen=True)
class EvaluatedRows:
    """The validation and test sources of a task, the columns that hold their texts, and the task's objective."""

    columns: Columns
    sources: list[ResolvedSource]
    objective: str = "classify"

    @property
    def text_columns(self) -> list[str]:
        """One, or two for pairs; for translate the source, the target and, where they are named, the references."""
        columns = self.columns
        if self.objective == _PAIRS:
            return [column for column in (columns.source, columns.target, columns.references) if column]
        return [column for column in (columns.text, columns.text_pair) if column]

    @property
    def identity(self) -> dict[str, Any]:
        """What fingerprints say of the texts."""
        return {"columns": self.text_columns, "sources": source_identity(self.sources)}

    def texts_of_source(self, source: ResolvedSource) -> Iterator[str]:
        """The texts of one of the sources, cleaned. For clm they are the lines of its documents but blank ones:
        corpora repeat a paragraph rather than a whole document."""
        if self.objective == _DOCUMENTS:
            for _, document in iterate_documents(source, self.columns.text):
                yield from (clean_text(line) for line in document.split("\n") if line.strip())
        else:
            for number, row in iterate_rows(source):
                yield from self._texts_of_row(row, source.source.path, number)

    def _texts_of_row(self, row: dict[str, Any], origin: str, number: int) -> list[str]:
        if self.objective == _PAIRS:
            pair = read_pair(row, self.columns, origin, number, is_evaluated=True)
            return list(dict.fromkeys([pair.source, pair.target, *pair.references]))
        if self.objective == _WORDS:
            return [" ".join(words_of(row, self.columns.text, f"{origin}, row {number}"))]
        return [clean_text(text_of(row, column, origin, number)) for column in self.text_columns]


def read_evaluation_texts(evaluated: list[EvaluatedRows]) -> list[str]:
    """Every text that the rows hold, cleaned; those of a pair, and the lines of a document, one by one.

    Raises:
        UserError: as `iterate_rows`, `iterate_documents`, `text_of` and `read_pair`.
    """
    return [text for rows in evaluated for source in rows.sources for text in rows.texts_of_source(source)]
