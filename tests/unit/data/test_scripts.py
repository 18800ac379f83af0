"""Words of any script."""

import pytest

from lightpaff.data.scripts import count_words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("don't count - marks", (4, 0)),
        ("déjà vu", (2, 0)),
        ("我喜欢 BERT。", (1, 3)),
        ("ภาษาไทย", (0, 7)),
        ("カメラと camera", (1, 4)),
    ],
)
def test_letters_of_scripts_without_spaces_are_words(text: str, found: tuple[int, int]) -> None:
    assert count_words(text) == found
