"""Under load on loopback: `lightpaff serve` of a student in int8 against its teacher behind plain FastAPI.

    python benchmarks/serving.py                       # ten seconds each at 1, 8 and 64 clients, in turns
    python benchmarks/serving.py --json                # its rows as JSON lines
    python benchmarks/serving.py --only bert --overload 60    # ten times the clients that fit, for a minute

Random weights in the paper's sizes (`online.py`). Every client sends one request after the other, with one text of 32
tokens; the clients share the cores with the server. `speedup` is in requests a second, `p99_ratio` the student's 99th
percentile over the teacher's.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

# As a program, this file is in no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.distillation_step import describe_device
from benchmarks.online import CASES, build_models
from lightpaff.runtimes import Format, Quantisation

SERVED = {"bert": ("student 3 x 512", "/v1/answers"), "gpt2": ("student 4 x 768", "/v1/completions")}
_ROOT = Path(__file__).resolve().parents[1]
_QUEUE = 256
_EXPORT: tuple[tuple[Format, Quantisation], ...] = (("onnx", "int8"),)


@dataclass(frozen=True)
class Load:
    """What clients saw: statuses, and the seconds of the answered requests."""

    statuses: dict[int, int]
    seconds: list[float]
    duration: float

    @property
    def per_second(self) -> float:
        """Answered requests."""
        return len(self.seconds) / self.duration

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return 1000 * sorted(self.seconds)[min(int(share * len(self.seconds)), len(self.seconds) - 1)]


@dataclass(frozen=True)
class Row:
    """One number of clients."""

    name: str
    clients: int
    speedup: float
    p99_ratio: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    teacher_requests_per_second: float
    teacher_p50_ms: float
    teacher_p99_ms: float
    device: str


def request_of(path: str, random_state: random.Random) -> bytes:
    """One request with its headers: 32 tokens."""
    text = " ".join(f"token{random_state.randrange(3, 30000)}" for _ in range(32))
    content = {"inputs": [text]} if path.endswith("answers") else {"prompt": text, "max_tokens": 16}
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def client(port: int, path: str, ends: float, seed: int, statuses: Counter[int], seconds: list[float]) -> None:
    """One request after the other, until it is time; a refused client waits a little."""
    random_state = random.Random(seed)
    while time.perf_counter() < ends:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while time.perf_counter() < ends:
                started = time.perf_counter()
                writer.write(request_of(path, random_state))
                status = await read_response(reader)
                statuses[status] += 1
                if status == 200:
                    seconds.append(time.perf_counter() - started)
                else:
                    await asyncio.sleep(0.05)
        writer.close()


async def read_response(reader: asyncio.StreamReader) -> int:
    """The status; the body is read and dropped."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(" ")[1])


def load(port: int, path: str, clients: int, seconds: float) -> Load:
    """So many clients for so long."""
    statuses: Counter[int] = Counter()
    found: list[float] = []

    async def everybody() -> None:
        ends = time.perf_counter() + seconds
        await asyncio.gather(*(client(port, path, ends, seed, statuses, found) for seed in range(clients)))

    started = time.perf_counter()
    asyncio.run(everybody())
    return Load(dict(statuses), found, time.perf_counter() - started)


@contextlib.contextmanager
def served(command: list[str], environment: dict[str, str]) -> Iterator[tuple[int, psutil.Process]]:
    """A server in a process; its port, and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    everything = {**os.environ, **environment, "PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port)], env=everything, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            assert process.poll() is None, f"{command} ended"
            time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Both servers stand beside each other, and are loaded in turns."""
    student, path = SERVED[name]
    directories = build_models(CASES[name], folder)
    export = next(
        own for label, own in directories.items() if label.startswith(student) and label.endswith("onnx-int8")
    )
    kind = CASES[name].kind
    plain = ["uvicorn", "benchmarks.serving_plain:app", "--log-level", "error"]
    ours = ["lightpaff", "serve", str(export), "--threads", str(arguments.threads), "--queue", str(_QUEUE)]
    teacher = str(directories["teacher"])
    with served(plain, {"PLAIN_MODEL": teacher, "PLAIN_KIND": kind}) as (other, _), served(ours, {}) as (own, process):
        for port in (other, own):
            load(port, path, 2, 3.0)
        for clients in arguments.clients:
            theirs, found = load(other, path, clients, arguments.seconds), load(own, path, clients, arguments.seconds)
            yield Row(
                name=f"{name} {clients} clients",
                clients=clients,
                speedup=round(found.per_second / theirs.per_second, 2),
                p99_ratio=round(found.percentile(0.99) / theirs.percentile(0.99), 3),
                requests_per_second=round(found.per_second, 1),
                p50_ms=round(1000 * statistics.median(found.seconds), 2),
                p99_ms=round(found.percentile(0.99), 2),
                teacher_requests_per_second=round(theirs.per_second, 2),
                teacher_p50_ms=round(1000 * statistics.median(theirs.seconds), 1),
                teacher_p99_ms=round(theirs.percentile(0.99), 1),
                device=describe_device("cpu"),
            )
        if arguments.overload:
            overload(own, path, process, arguments.overload)


def overload(port: int, path: str, process: psutil.Process, seconds: float) -> None:
    """Ten times as many clients as the queue has room for; what they and the server's memory saw."""
    before = process.memory_info().rss
    found = load(port, path, 10 * _QUEUE, seconds)
    after = process.memory_info().rss
    told = {
        "name": "overload",
        "clients": 10 * _QUEUE,
        "statuses": found.statuses,
        "answered_per_second": round(found.per_second, 1),
        "p99_ms": round(found.percentile(0.99), 1),
        "memory_before_mib": before >> 20,
        "memory_after_mib": after >> 20,
        "alive": process.is_running() and load(port, path, 1, 1.0).statuses.get(200, 0) > 0,
    }
    print(json.dumps(told), flush=True)


def readable(row: Row) -> str:
    return (
        f"{row.name:<18}{row.requests_per_second:>8.1f}/s, p50 {row.p50_ms:.1f} ms, p99 {row.p99_ms:.1f} ms; teacher "
        f"{row.teacher_requests_per_second:.1f}/s, p50 {row.teacher_p50_ms:.0f} ms, p99 {row.teacher_p99_ms:.0f} ms: "
        f"{row.speedup:.1f}x the requests, p99 {row.p99_ratio:.3f} of the teacher's"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(SERVED), default=list(SERVED))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1, help="of the student's server")
    parser.add_argument("--overload", type=float, default=0.0, help="seconds of ten times too many clients")
    parser.add_argument("--keep", type=Path, help="the folder for the models; left out, they are made and thrown away")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.only:
            folder = (arguments.keep or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            for row in measure(name, arguments, folder):
                print(json.dumps(asdict(row)) if arguments.json else readable(row), flush=True)


if __name__ == "__main__":
    main()
