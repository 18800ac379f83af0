"""The times of shapes: kept from before where they can be, else measured in turn with one reference."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedConfig

from lightpaff.deployment.contenders import Contender
from lightpaff.deployment.shape_building import build_contender
from lightpaff.deployment.shape_measuring import (
    LEAST_TEACHER_ROUNDS,
    REFERENCE,
    Reference,
    describe_measurement,
    describe_reference,
    has_memory_for,
    measure_config,
    measure_contender,
)
from lightpaff.deployment.shape_plan import MeasuringPlan
from lightpaff.deployment.shape_search import Timing
from lightpaff.deployment.shape_store import ShapeStore

MaybeTiming = TypeVar("MaybeTiming", Timing, Timing | None)


@contextlib.contextmanager
def open_timer(
    reference: PreTrainedConfig, plan: MeasuringPlan, store: ShapeStore, *, is_fresh: bool, keeps: bool = True
) -> Iterator["ShapeTimer"]:
    """Yield what times shapes; the reference's export lies on the disk until the block ends.

    Args:
        reference: the config of what all shapes are measured in turn with.
        plan: how shapes are measured.
        store: where measurements are kept.
        is_fresh: measure again what is kept.
        keeps: whether to keep what is measured, where it is steady. A reference measured on a busy machine would make
            all later times too long.
    """
    with tempfile.TemporaryDirectory(prefix="lightpaff-reference-") as folder:
        yield ShapeTimer(reference, plan, store, Path(folder), is_fresh=is_fresh, keeps=keeps)


class ShapeTimer:
    """Times shapes; see `open_timer`. The reference is built when the first of them has to be measured."""

    def __init__(
        self,
        reference: PreTrainedConfig,
        plan: MeasuringPlan,
        store: ShapeStore,
        folder: Path,
        *,
        is_fresh: bool,
        keeps: bool,
    ) -> None:
        self._config = reference
        self._plan = plan
        self._store = store
        self._folder = folder
        self._is_fresh = is_fresh
        self._keeps = keeps
        self._key = describe_measurement(reference, plan)

    @cached_property
    def reference_timing(self) -> Timing:
        """The reference's own: what the times of all others are ratios to.

        Raises:
            UserError: here and in the methods: it cannot be exported, or the runtime fails.
        """
        return self._find_or_measure(self._key, lambda: measure_contender(self._contender, self._plan, None))

    def time_shape(self, config: PreTrainedConfig) -> Timing:
        """Time a model of the config, exported as the plan says."""
        if describe_measurement(config, self._plan) == self._key:
            return self.reference_timing
        return self._find_or_measure(
            self._key_of(config, self._plan), lambda: measure_config(config, self._plan, self._reference())
        )

    def time_teacher(self, config: PreTrainedConfig, parameters: int) -> Timing | None:
        """Time a model of the config in PyTorch in float32; None where the memory is too small for it."""
        plan = replace(self._plan, runtime="pytorch", quantisation="none")

        def measure() -> Timing | None:
            if not has_memory_for(parameters):
                return None
            return measure_config(config, plan, self._reference(), LEAST_TEACHER_ROUNDS)

        return self._find_or_measure(self._key_of(config, plan), measure)

    @cached_property
    def _contender(self) -> Contender:
        return build_contender(self._config, self._plan, self._folder, REFERENCE)

    def _reference(self) -> Reference:
        return Reference(self._contender, self.reference_timing)

    def _key_of(self, config: PreTrainedConfig, plan: MeasuringPlan) -> dict[str, Any]:
        return describe_measurement(config, plan, describe_reference(self._key, self.reference_timing))

    def _find_or_measure(self, key: dict[str, Any], measure: Callable[[], MaybeTiming]) -> MaybeTiming | Timing:
        kept = None if self._is_fresh else self._store.find(key)
        if kept is not None:
            return kept
        timing = measure()
        if self._keeps and timing is not None and timing.is_steady:
            self._store.keep(key, timing)
        return timing
