"""The data of one task, found on this machine."""

from dataclasses import dataclass

from lightpaff.data.sources import ResolvedSource

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskSources:
    """A task's sources by use; `unlabelled` and `test` are empty where the recipe has none."""

    train: list[ResolvedSource]
    unlabelled: list[ResolvedSource]
    validation: list[ResolvedSource]
    test: list[ResolvedSource]

    def of(self, split: str) -> list[ResolvedSource]:
        """The sources of `train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]
