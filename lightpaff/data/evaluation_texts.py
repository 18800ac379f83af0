"""The texts of validation and test sets: none of them may be in what a tokenizer or a model is pre-trained on."""

from dataclasses import dataclass
from typing import Any

from lightpaff.data.cleaning import clean_text
from lightpaff.data.corpus import text_of
from lightpaff.data.sources import ResolvedSource, iterate_rows, source_identity
from lightpaff.recipe import Columns


@dataclass(frozen=True)
class EvaluatedRows:
    """The validation and test sources of a task, and the columns that hold their texts."""

    columns: Columns
    sources: list[ResolvedSource]

    @property
    def text_columns(self) -> list[str]:
        """One, or two for pairs."""
        return [column for column in (self.columns.text, self.columns.text_pair) if column]

    @property
    def identity(self) -> dict[str, Any]:
        """What fingerprints say of the texts."""
        return {"columns": self.text_columns, "sources": source_identity(self.sources)}


def read_evaluation_texts(evaluated: list[EvaluatedRows]) -> list[str]:
    """Every text that the rows hold, cleaned; the two of a pair one by one.

    Raises:
        UserError: as `iterate_rows` and `text_of`.
    """
    return [
        clean_text(text_of(row, column, source.source.path, number))
        for rows in evaluated
        for source in rows.sources
        for number, row in iterate_rows(source)
        for column in rows.text_columns
    ]
