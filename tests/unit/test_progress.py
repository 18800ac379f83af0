"""What is said to the person at the terminal."""

import pytest

from lightpaff import progress


def test_a_line_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.each_line_once():
        for line in ("one", "two", "one"):
            progress.console.print(line)
    progress.console.print("one")
    assert capsys.readouterr().err.split() == ["one", "two", "one"]


@pytest.mark.parametrize("line", ["the label [/b]", "bad node [attention.mask]", "/data/[new]/runs"])
def test_what_is_said_is_no_markup(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    progress.console.print(line)
    progress.results_console().print(line)
    said = capsys.readouterr()
    assert said.err.strip() == said.out.strip() == line
