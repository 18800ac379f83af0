"""Training a tokenizer, for a teacher that is made here."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightpaff.data.corpus import read_corpus
from lightpaff.data.evaluation_texts import EvaluatedRows, read_evaluation_texts
from lightpaff.data.leaks import LeakIndex
from lightpaff.data.sources import ResolvedSource, source_identity
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import FromScratch

_TRAINED_BY = {"vocabulary_size", "lowercase", "max_length", "architecture"}


def tokenizer_step(
    from_scratch: FromScratch,
    family: Family,
    languages: Sequence[str],
    corpus: list[ResolvedSource],
    evaluated: list[EvaluatedRows],
    root: Path,
) -> Step:
    """Train a tokenizer on the pre-training corpus, without the texts that hold an evaluation example."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        leaks = LeakIndex(read_evaluation_texts(evaluated))
        # A decoder writes text as it stands, so its tokenizer learns from whole documents, line ends and all.
        texts = read_corpus(corpus, Counter(), leaks, whole_documents=family == "decoder")
        tokenizer = train_tokenizer((text.text for text in texts), from_scratch, family, languages)
        tokenizer.save_pretrained(folders.result)
        return {"tokens": len(tokenizer)}

    settings = {
        "family": family,
        "languages": list(languages),
        "from_scratch": from_scratch.model_dump(include=_TRAINED_BY),
        "corpus": source_identity(corpus),
        "evaluated": [rows.identity for rows in evaluated],
    }
    return Step("train the tokenizer", "tokenizer", settings, (), root, work)
