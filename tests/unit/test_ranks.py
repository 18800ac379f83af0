"""What one rank says of another, and who waits for whom."""

import pytest

from lightpaff import ranks
from lightpaff.errors import UserError
from lightpaff.ranks import told_of_the_others


@pytest.mark.parametrize("number", [0, 1])
def test_ranks_stay_in_step_when_the_first_meets_an_error(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(ranks, "is_first", lambda: number == 0)
    monkeypatch.setattr(ranks, "wait", lambda: said.append("wait"))

    def work() -> None:
        with ranks.first_before_others():
            said.append("work")
            raise UserError("an export failed")

    with pytest.raises(UserError):
        work()
    assert said == [["work", "wait"], ["wait", "work"]][number]


def test_only_what_the_others_did_is_told_of_them() -> None:
    with pytest.raises(UserError, match="another rank ended"), told_of_the_others():
        raise RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:3415")
    with pytest.raises(RuntimeError, match="out of memory"), told_of_the_others():
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
