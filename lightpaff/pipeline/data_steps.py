"""Text to tokens: the pre-training corpus and the tasks' rows."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightpaff.data.corpus import prepare_corpus
from lightpaff.data.evaluation_texts import read_evaluation_texts
from lightpaff.data.sources import ResolvedSource, source_identity
from lightpaff.data.task_data import Example, TaskRows, find_labels, read_examples, read_unlabelled, write_split
from lightpaff.errors import UserError
from lightpaff.files import write_json_whole
from lightpaff.pipeline.graph import Step, Workplace
from lightpaff.pipeline.inputs import Inputs
from lightpaff.progress import progress_bar
from lightpaff.recipe import Recipe, Task

SEQUENCES = "sequences.arrow"
CARD = "card.json"
LABELS = "labels.json"
SPLITS = ("train", "validation", "test")


def corpus_step(recipe: Recipe, inputs: Inputs, root: Path) -> Step:
    """Read, clean, leak-check, tokenise and pack the pre-training text."""
    assert recipe.pretraining is not None
    length = recipe.pretraining.sequence_length
    evaluated = inputs.sources.evaluated(recipe.tasks)

    def work(step: Step, place: Workplace) -> dict[str, Any]:
        with progress_bar(step.name, None, "texts") as advance:
            card = prepare_corpus(
                inputs.sources.corpus,
                inputs.tokenizer,
                length,
                read_evaluation_texts(evaluated),
                place.result / SEQUENCES,
                advance,
            )
        write_json_whole(place.result / CARD, card)
        return {"sequences": card["facts"]["sequences"], "tokens": card["facts"]["tokens"]}

    settings = {
        "sources": source_identity(inputs.sources.corpus),
        "tokenizer": inputs.tokenizer_identity,
        "sequence_length": length,
        "evaluated": [rows.identity for rows in evaluated],
    }
    return Step("prepare the pre-training text", "corpus", settings, (), root, work)


def task_step(task: Task, inputs: Inputs, root: Path) -> Step:
    """Check, label and tokenise a task's rows."""

    def work(step: Step, place: Workplace) -> dict[str, Any]:
        labels = [] if task.objective == "regress" else find_labels(task, inputs.sources.train[task.name])
        write_json_whole(place.result / LABELS, labels)
        cards = []
        with progress_bar(step.name, None, "rows") as advance:
            for split in SPLITS:
                if card := _write_split(task, split, labels, inputs, place.result, advance):
                    cards.append(card)
        if repeated := _count_repeated_rows(place.result):
            cards[0]["facts"]["also in validation or test"] = repeated
        write_json_whole(place.result / CARD, cards)
        return {"labels": labels, **{card["split"]: card["facts"]["rows"] for card in cards}}

    sources = inputs.sources
    settings = {
        "task": task.model_dump(include={"objective", "columns", "labels", "max_length"}),
        "train": source_identity(sources.train[task.name]),
        "unlabelled": source_identity(sources.unlabelled[task.name]),
        "validation": source_identity(sources.validation[task.name]),
        "test": source_identity(sources.test[task.name]),
        "tokenizer": inputs.tokenizer_identity,
    }
    return Step(f"prepare the rows of {task.name}", "task", settings, (), root, work)


def _write_split(
    task: Task, split: str, labels: list[str], inputs: Inputs, result: Path, advance: Callable[[int], None]
) -> dict[str, Any] | None:
    sources: list[ResolvedSource] = getattr(inputs.sources, split)[task.name]
    if not sources:
        return None
    dropped: Counter[str] = Counter()
    examples: Iterator[Example] = read_examples(sources, task, labels, dropped, needs_labels=split != "train")
    if split == "train":
        examples = _both(examples, read_unlabelled(inputs.sources.unlabelled[task.name], task, dropped))
    written = write_split(examples, inputs.tokenizer, task.max_length, result / f"{split}.arrow", advance)
    facts: dict[str, Any] = written["facts"]
    names = ", ".join(source.source.path for source in sources)
    if not facts["rows"]:
        raise UserError(
            f"{names}: no row of {task.name} ({split}) has a text in column '{task.columns.text}'; "
            f"{dropped['empty text']} are empty: correct the file or set tasks.{task.name}.columns"
        )
    if split == "train" and written["labels"][None] == facts["rows"]:
        raise UserError(
            f"{names}: no training row of {task.name} has a label in column '{task.columns.label}'; "
            f"set tasks.{task.name}.columns.label"
        )
    if task.objective == "classify":
        counts = written["labels"]
        facts.update({f"label {name}": counts[number] for number, name in enumerate(labels)})
        if split == "train" and sum(counts[number] > 0 for number in range(len(labels))) < 2:
            raise UserError(f"{names}: the training rows of {task.name} are all of one class; classification needs two")
    if written["labels"][None]:
        facts["without a label"] = written["labels"][None]
    # Neither the task's name nor a path: other runs reuse this step under other names.
    return {"split": split, "facts": facts, "dropped": dict(dropped)}


def _both(first: Iterator[Example], second: Iterator[Example]) -> Iterator[Example]:
    yield from first
    yield from second


def _count_repeated_rows(result: Path) -> int:
    """Training rows whose whole text, both parts of a pair, is that of a validation or test row of the task."""
    texts = {split: TaskRows.open(path).texts() for split in SPLITS if (path := result / f"{split}.arrow").exists()}
    evaluated = {text for split in SPLITS[1:] for text in texts.get(split, [])}
    return sum(text in evaluated for text in texts["train"])
