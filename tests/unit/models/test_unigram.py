import json
import os
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoConfig, PreTrainedTokenizerFast

from lightpaff.errors import UserError
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.models.vocabulary import compare_vocabularies, load_tokenizer
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import FAMILIES, FromScratch

TEXTS = [
    "The quick brown fox jumps over the lazy dog, quickly.",
    "Foxes and dogs jumped; the laziest fox was quicker!\nA second line in the same text.",
    "Ünïcode naïve café 北京, 12:30 and 99% of the quickest dogs. <b>bold</b> <0x41>",
    # Equally rare: which are left out, and which come first, must not be a matter of chance.
    "αβγδεζηθικλμνξοπρστυφχψω" + "".join(chr(code) for code in range(0x10D0, 0x10D0 + 32)),
] * 4
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<de>", "<en>"]
SIZES = {"layers": 1, "hidden_size": 8, "heads": 1, "feed_forward": 8}

TRAIN_AND_PRINT = """
import json, sys
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_sections import FromScratch
texts, settings = json.loads(sys.stdin.read())
tokenizer = train_tokenizer(iter(texts), FromScratch(**settings), "encoder-decoder", ["en", "de"])
tokenizer.save_pretrained(sys.argv[1])
"""


def settings_of(
    vocabulary_size: int = 400, architecture: str = "bart", lowercase: bool | None = None
) -> dict[str, Any]:
    rest = {"vocabulary_size": vocabulary_size, "max_length": 32, "lowercase": lowercase, "tokenizer": "unigram"}
    return {"architecture": architecture, **SIZES, **rest}


def train(texts: list[str], *scratch: Any) -> PreTrainedTokenizerFast:
    from_scratch = FromScratch(**settings_of(*scratch))
    return train_tokenizer(iter(texts), from_scratch, "encoder-decoder", ["en", "de"])


@cache
def tokenizer_of_texts() -> PreTrainedTokenizerFast:
    return train(TEXTS)


def test_another_process_and_order_give_the_same_tokenizer(tmp_path: Path) -> None:
    found = []
    for attempt, order in enumerate((TEXTS, TEXTS[::-1])):
        folder = tmp_path / str(attempt)
        subprocess.run(
            [sys.executable, "-c", TRAIN_AND_PRINT, str(folder)],
            input=json.dumps([order, settings_of(360)]),
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(attempt)},
        )
        found.append((folder / "tokenizer.json").read_bytes())
    assert found[0] == found[1]
    assert json.loads(found[0])["model"]["type"] == "Unigram"
    assert train(TEXTS, 360).backend_tokenizer.to_str() == json.dumps(
        json.loads(found[0]), ensure_ascii=False, separators=(",", ":")
    )


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
@example("two  spaces,\r\n\n\ttabs\x00 and 😀 e\u0301 don't .")
@example("<0x41> is not A, <0xE2><0x96> is not a byte, <b>bold</b> << >>")
@settings(deadline=None)
def test_the_composed_text_comes_back(text: str) -> None:
    tokenizer = tokenizer_of_texts()
    ids = [tokenizer.convert_tokens_to_ids("<de>"), *tokenizer(text)["input_ids"]]
    composed = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == composed.removeprefix(" ")
    assert tokenizer.unk_token_id not in ids


def test_special_tokens_and_languages() -> None:
    tokenizer = tokenizer_of_texts()
    assert tokenizer.convert_ids_to_tokens(range(7)) == SPECIAL
    assert sorted(tokenizer.all_special_ids) == list(range(7))
    assert tokenizer.convert_ids_to_tokens(7) == "<0x00>"
    assert tokenizer("<de> the")["input_ids"][0] == 5
    assert tokenizer("the")["input_ids"][-1] == tokenizer.eos_token_id


def test_pieces_are_learnt() -> None:
    assert tokenizer_of_texts().tokenize("jumps over the fox") == ["▁jumps", "▁over", "▁the", "▁fox"]


def test_a_language_in_upper_case_is_text() -> None:
    tokenizer = train(TEXTS, 400, "bart", True)
    ids = tokenizer("<EN> The <PAD>")["input_ids"]
    assert not set(ids[:-1]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<en> the <pad>"


@pytest.mark.parametrize("size", [265, 266, 290, 340])
def test_the_vocabulary_size_is_the_most(size: int) -> None:
    tokenizer = train([*TEXTS, "".join(chr(code) for code in range(0x4E00, 0x4E00 + 400))], size)
    assert 265 <= len(tokenizer) <= size
    assert set(tokenizer.get_vocab().values()) == set(range(len(tokenizer)))
    assert tokenizer.decode(tokenizer("The 北 fox")["input_ids"], skip_special_tokens=True) == "The 北 fox"


def test_a_small_corpus_gives_fewer_tokens() -> None:
    tokenizer = train(["ab ab"], 1000)
    assert "▁" in tokenizer.get_vocab()
    assert len(tokenizer) < 300


@pytest.mark.parametrize("character", [*"\x01▅⁇\ufeff\u200d\U0010ffff\ue000\u0301", "\ud800"])
def test_odd_characters_in_the_corpus(character: str) -> None:
    tokenizer = train([*TEXTS, f"{character} a{character}b x{character}" * 3, character * 5000, "\x00▁" * 3000])
    for text in ("The fox", f"a{character}b".encode(errors="replace").decode()):
        composed = unicodedata.normalize("NFC", text)
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == composed
    assert "▁the" in tokenizer.get_vocab()


@pytest.mark.parametrize("architecture", FAMILIES["encoder-decoder"].architectures)
def test_every_architecture_opens_what_was_saved(architecture: str, tmp_path: Path) -> None:
    tokenizer = train(TEXTS, 400, architecture)
    tokenizer.save_pretrained(tmp_path)
    AutoConfig.for_model(architecture).save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path, "encoder-decoder")
    compare_vocabularies(tokenizer, opened, ("teacher", "student"), "encoder-decoder")
    assert opened.all_special_ids == tokenizer.all_special_ids
    text = "Ünïcode 北京 <mask> <en> the\n <0x41>"
    assert opened(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert opened.decode(opened(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("texts", [[], ["", " \n"], ["\x00 ▁"]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(UserError, match="no text to train a tokenizer on"):
        train(texts)


def test_no_room_is_refused() -> None:
    with pytest.raises(UserError, match=r"vocabulary_size: is 264, .* alone are 263; make it at least 265"):
        train(TEXTS, 264)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"pip install lightpaff\[unigram\]"):
        train(TEXTS)


@pytest.mark.parametrize(
    ("family", "architecture", "objective"), [("encoder", "bert", "mlm"), ("decoder", "gpt2", "clm")]
)
def test_other_families_have_their_own_kind(family: str, architecture: str, objective: str) -> None:
    training = {"steps": 1, "learning_rate": 1}
    recipe = {
        "name": "toy",
        "family": family,
        "teacher": {"from_scratch": settings_of(400, architecture), "pretraining": training},
        "student": {"layers": 1},
        "pretraining": {"objective": objective, "corpus": ["a.txt"], "training": training},
        "tasks": [
            {
                "name": "task",
                "objective": FAMILIES[family].tasks[0],  # type: ignore[index]
                "train": "a.csv",
                "validation": "b.csv",
            }
        ],
        "fine_tuning": {"training": training},
    }
    with pytest.raises(
        ValidationError, match=r"from_scratch\.tokenizer is for the family encoder-decoder; leave it out"
    ):
        Recipe.model_validate(recipe)
