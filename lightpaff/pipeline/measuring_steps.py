"""What the models are measured against: the clock, and a baseline that reads no language."""

import json
from functools import partial
from typing import Any

import numpy as np
import torch

from lightpaff.data.task_data import TaskRows
from lightpaff.evaluation.baseline import fit_tfidf_baseline
from lightpaff.evaluation.latency import measure_latency, speed_ratio
from lightpaff.evaluation.metrics import write_logits
from lightpaff.files import write_json_whole
from lightpaff.machine import versions_of
from lightpaff.models.opening import open_headed
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.pipeline.context import ModelSource, RunContext, evaluation_splits, task_objective
from lightpaff.pipeline.environment import describe_processor, describe_runtime
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.progress import console
from lightpaff.recipe_sections import Task

LATENCY = "latency.json"
_SECONDS = 20.0
_BATCH_SIZE = 32


def baseline_step(context: RunContext, task: Task, rows: Step) -> Step:
    """TF-IDF with a linear model: what the task gives away without a language model."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        console.print(f"{step.name} ...")
        train = task_objective(context, task, rows, "train")
        assert isinstance(train, Classification)
        known = train.gold_ids
        texts = list(TaskRows.open(rows.directory / "train.arrow").texts())
        evaluated = {
            split: list(TaskRows.open(rows.directory / f"{split}.arrow").texts()) for split in evaluation_splits(task)
        }
        baseline = fit_tfidf_baseline(
            [texts[i] for i in known],
            train.labels_N[known],
            [text for split_texts in evaluated.values() for text in split_texts],
            train.number_of_classes,
        )
        ends = np.cumsum([len(split_texts) for split_texts in evaluated.values()])
        for split, logits_NV in zip(evaluated, np.split(baseline.logits_NV, ends[:-1]), strict=True):
            write_logits(folders.result / f"{split}.safetensors", logits_NV)
        return {"parameters": baseline.parameters, "fit_seconds": round(baseline.fit_seconds, 2)}

    settings = {"splits": evaluation_splits(task), "versions": versions_of(("scikit-learn", "scipy"))}
    return Step(f"fit the TF-IDF baseline for {task.name}", "baseline", settings, (rows,), context.root, work)


def latency_step(context: RunContext, task: Task, rows: Step, models: dict[str, ModelSource]) -> Step:
    """Time teacher and student on the task's own rows, in turn, in this process, in float32."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        console.print(f"{step.name}, {_SECONDS:.0f} s ...")
        data = task_objective(context, task, rows, evaluation_splits(task)[-1])
        device, objective = context.hardware.device, TASK_OBJECTIVES[task.objective]

        def prepare(start: ModelSource) -> partial[object]:
            headed = open_headed(start.path, data.head, data.number_of_classes, device=device, attention="sdpa")
            return partial(objective.run, headed.model.eval(), data, task, context.inputs.vocabulary)

        measured = measure_latency(
            {name: prepare(start) for name, start in models.items()},
            lambda count, turn: objective.timing_inputs(data, count, turn, device),
            _SECONDS,
            _BATCH_SIZE,
            device=device,
        )
        first = next(iter(measured))
        content = {
            "runtime": describe_runtime(device),
            "models": {
                name: {
                    "median_ms": latency.median_ms,
                    "p95_ms": latency.p95_ms,
                    "throughput": latency.throughput_per_s,
                    "rounds": latency.rounds,
                }
                for name, latency in measured.items()
            },
            "ratios": {
                name: vars(speed_ratio(measured[first], latency)) for name, latency in measured.items() if name != first
            },
        }
        write_json_whole(folders.result / LATENCY, content)
        return {}

    settings = {
        "processor": describe_processor(context.hardware.device),
        "runtime": describe_runtime(context.hardware.device),
        "torch": torch.__version__,
        "models": {name: start.identity for name, start in models.items()},
        "generation": task.generation.model_dump(),
    }
    inputs = (rows, *(step for start in models.values() for step in start.inputs))
    return Step(f"measure the speed on {task.name}", "latency", settings, inputs, context.root, work)


def read_latency(step: Step) -> dict[str, Any]:
    """What `latency_step` measured."""
    content: dict[str, Any] = json.loads((step.directory / LATENCY).read_text())
    return content
