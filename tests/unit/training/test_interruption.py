import signal
import time
from collections.abc import Iterator

import pytest

from lightpaff.training.interruption import swallowed_stops_come_again


@pytest.fixture(autouse=True)
def _usual_handler() -> Iterator[None]:
    """Also where whoever started the tests ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class ClearedAwayAtCtrlC:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_stop_that_nothing_can_raise_comes_again() -> None:
    def work() -> None:
        with swallowed_stops_come_again():
            ClearedAwayAtCtrlC()
            time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        work()


def test_other_errors_of_that_kind_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __del__(self) -> None:
            raise ValueError("told")

    told: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda found: told.append(str(found.exc_value)))
    with swallowed_stops_come_again():
        Failing()
    assert told == ["told"]
