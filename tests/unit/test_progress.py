"""What is said to the person at the terminal."""

import pytest

from lightpaff import progress


def test_a_line_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.each_line_once():
        for line in ("one", "two", "one"):
            progress.console.print(line)
    progress.console.print("one")
    assert capsys.readouterr().err.split() == ["one", "two", "one"]
