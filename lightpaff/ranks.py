"""The processes that work on one run together, as torchrun or accelerate launch start them.

They need the same files: one of them, the first, prepares, exports and reports while the others wait; all capture and
train. Imports torch only where there are several.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, NoReturn

from lightpaff.errors import UserError

_PATIENCE = timedelta(days=7)
"""While the first prepares or exports, the others wait."""
_OF_THE_OTHERS = re.compile("gloo|nccl|connection|peer|socket|timed out|store", re.IGNORECASE)
"""In the errors of torch.distributed; memory that runs out, or a wrong shape, is this rank's own."""


def count() -> int:
    """How many there are; 1 where nobody launched more."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Which one this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the one that also does what one does alone."""
    return number() == 0


def join(device: str) -> None:
    """Meet the others, to train on `device` (cpu or cuda)."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=_PATIENCE)


def leave(code: int | None) -> NoReturn:
    """End this process with an exit code; None is 0."""
    if count() > 1:
        # Where another rank is gone, the library between them aborts on the way out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    sys.exit(code)


def shared(value: Any) -> Any:
    """The first one's value.

    Raises:
        UserError: another one ended.
    """
    if count() == 1:
        return value
    import torch

    values = [value]
    with told_of_the_others():
        torch.distributed.broadcast_object_list(values, src=0, group=_group())
    return values[0]


def wait() -> None:
    """Until all are here.

    Raises:
        UserError: another one ended.
    """
    shared(None)
    any_of(False)


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Of each flag, whether it is true of one of them.

    Raises:
        UserError: another one ended.
    """
    if count() == 1:
        return flags
    import torch

    told = torch.tensor(flags, dtype=torch.int64)
    with told_of_the_others():
        torch.distributed.all_reduce(told, group=_group())
    return tuple(told.bool().tolist())


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first does what is inside, then the others do."""
    if not is_first():
        wait()
    try:
        yield
    except UserError:
        # Whoever goes on without it stays in step with the others, who meet it too.
        if is_first():
            wait()
        raise
    if is_first():
        wait()


@contextmanager
def told_of_the_others() -> Iterator[None]:
    """Let what goes wrong inside because another rank ended say so.

    Raises:
        UserError: in place of the error of torch.distributed.
    """
    try:
        yield
    except RuntimeError as error:
        if not _OF_THE_OTHERS.search(str(error)):
            raise
        why = str(error).splitlines()[0][:120]
        raise UserError(
            f"rank {number()} of {count()}: another rank ended ({why}); its own output says why, and the same command "
            "goes on"
        ) from error


@lru_cache(maxsize=1)
def _group() -> Any:
    """For words between processes, which need no GPU."""
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
