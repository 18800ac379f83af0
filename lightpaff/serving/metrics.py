"""What Prometheus reads: requests, the queue, batches, times. With several workers, their sum."""

import os
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COMPARED = "lightpaff_shadow"
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one worker."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "lightpaff_requests", "Requests by path, status.", ["path", "status"], registry=registry
        )
        self.inputs = Counter("lightpaff_inputs", "Texts or pairs that were answered.", registry=registry)
        self.refused = Counter("lightpaff_refused", "Refused requests, by the reason.", ["reason"], registry=registry)
        self.queued = Gauge("lightpaff_queued", "Inputs that wait.", multiprocess_mode="livesum", registry=registry)
        self.batches = Histogram("lightpaff_batch_size", "Inputs of a batch.", buckets=_SIZES, registry=registry)
        self.seconds = Histogram("lightpaff_request_seconds", "To the answer.", buckets=_SECONDS, registry=registry)
        self._compared = Counter(_COMPARED, "Answers beside the teacher's.", ["same"], registry=registry)

    def count_comparison(self, same: bool | None) -> None:
        """Of an answer with the teacher's; None: it gave none."""
        self._compared.labels("failed" if same is None else str(same).lower()).inc()

    def agreement(self) -> dict[str, int]:
        """How many answers were compared, and how many were the same."""
        samples = [sample for metric in self._of_all_workers().collect() for sample in metric.samples]
        counts = {one.labels["same"]: int(one.value) for one in samples if one.name == f"{_COMPARED}_total"}
        return {"same": counts.get("true", 0), "seen": counts.get("true", 0) + counts.get("false", 0)}

    def text(self) -> bytes:
        """In Prometheus's format."""
        return generate_latest(self._of_all_workers())

    def _of_all_workers(self) -> CollectorRegistry:
        if not os.environ.get(SHARED):
            return self._registry
        # Whoever died has left its last gauge behind.
        for path in Path(os.environ[SHARED]).glob("gauge_livesum_*.db"):
            if not psutil.pid_exists(pid := int(path.stem.rpartition("_")[2])):
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
