import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from lightpaff.errors import UserError
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.models.vocabulary import compare_vocabularies, load_tokenizer
from lightpaff.recipe_families import FAMILIES, Family
from lightpaff.recipe_sections import FromScratch

TEXTS = [
    "The quick brown fox jumps over the lazy dog, quickly.",
    "Foxes and dogs jumped; the laziest fox was quicker!\nA second line in the same text.",
    "Ünïcode naïve café 北京, 12:30 and 99% of the quickest dogs.",
] * 4
LANGUAGES = ["en", "de"]
ALL = [(family, name) for family, words in FAMILIES.items() for name in words.architectures]

TRAIN_AND_PRINT = """
import json, sys
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_sections import FromScratch
texts, settings, family = json.loads(sys.stdin.read())
tokenizer = train_tokenizer(iter(texts), FromScratch(**settings), family, ["en", "de"])
print(tokenizer.backend_tokenizer.to_str())
"""


def settings_of(vocabulary_size: int, architecture: str, lowercase: bool | None = None) -> dict[str, Any]:
    sizes = {"layers": 1, "hidden_size": 8, "heads": 1, "feed_forward": 8}
    rest = {"vocabulary_size": vocabulary_size, "max_length": 32, "lowercase": lowercase}
    return {"architecture": architecture, **sizes, **rest}


def train(
    texts: list[str], vocabulary_size: int, family: Family = "encoder", lowercase: bool | None = None
) -> PreTrainedTokenizerFast:
    settings = settings_of(vocabulary_size, FAMILIES[family].architectures[0], lowercase)
    return train_tokenizer(iter(texts), FromScratch(**settings), family, LANGUAGES)


@cache
def decoder_tokenizer() -> PreTrainedTokenizerFast:
    return train(TEXTS, 300, "decoder")


@cache
def encoder_decoder_tokenizer() -> PreTrainedTokenizerFast:
    return train(TEXTS, 400, "encoder-decoder")


def test_special_tokens_come_first() -> None:
    tokenizer = train(TEXTS, 310)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) == 310
    assert set(tokenizer.get_vocab().values()) == set(range(310))


def test_pieces_are_learnt() -> None:
    tokenizer = train(TEXTS, 330)
    assert tokenizer.tokenize("the QUICK fox") == ["the", "Ġquick", "Ġfox"]
    assert tokenizer.decode(tokenizer("the foxes", add_special_tokens=False)["input_ids"]) == "the foxes"
    places = tokenizer("the quick", return_offsets_mapping=True)["offset_mapping"]
    assert places == [(0, 0), (0, 3), (4, 9), (0, 0)]


def test_pairs_are_framed_as_berts() -> None:
    encoded = train(TEXTS, 330)("the", "fox")
    tokens = train(TEXTS, 330).convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "the", "[SEP]", "fox", "[SEP]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1]


def test_a_mask_in_the_text_is_one_token() -> None:
    assert [token for token in train(TEXTS, 330).tokenize("the [MASK]") if token != "Ġ"] == ["the", "[MASK]"]


@pytest.mark.parametrize(
    ("family", "lowercase", "drops_case"),
    [
        ("encoder", True, True),
        ("encoder", False, False),
        ("encoder", None, True),
        ("encoder-decoder", True, True),
        ("encoder-decoder", False, False),
        ("encoder-decoder", None, False),
    ],
)
def test_case(family: Family, lowercase: bool | None, drops_case: bool) -> None:
    tokenizer = train(["Café Café CAFÉ"], 300, family, lowercase)
    assert (tokenizer.tokenize("CAFÉ") == tokenizer.tokenize("café")) == drops_case
    assert tokenizer.tokenize("CAFÉ") != tokenizer.tokenize("CAFE")


@pytest.mark.parametrize(("family", "architecture"), ALL)
def test_every_architecture_opens_what_was_saved(family: Family, architecture: str, tmp_path: Path) -> None:
    from_scratch = FromScratch(**settings_of(300, architecture))
    tokenizer = train_tokenizer(iter(TEXTS), from_scratch, family, LANGUAGES)
    tokenizer.save_pretrained(tmp_path)
    AutoConfig.for_model(architecture).save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path, family)
    compare_vocabularies(tokenizer, opened, ("teacher", "student"), family)
    assert opened.model_max_length == 32
    assert ("token_type_ids" in opened("the", "fox")) == (architecture in ("bert", "electra"))
    assert opened.all_special_ids == tokenizer.all_special_ids
    text = "Ünïcode 北京 [MASK] <en> the"
    assert opened(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert opened.decode(opened(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("attempt", range(2))
@pytest.mark.parametrize(("family", "size"), [("encoder", 310), ("decoder", 300), ("encoder-decoder", 340)])
def test_another_process_and_order_give_the_same_tokenizer(family: Family, size: int, attempt: int) -> None:
    # More equally frequent pairs than there is room for: which are left out must not be a matter of chance.
    texts = [*TEXTS, "".join(chr(code) for code in range(0x10D0, 0x10D0 + 32)), "αβγδεζηθικλμνξοπρστυφχψω" * 2]
    order = texts if attempt else texts[::-1]
    found = subprocess.run(
        [sys.executable, "-c", TRAIN_AND_PRINT],
        input=json.dumps([order, settings_of(size, FAMILIES[family].architectures[0]), family]),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(attempt)},
    ).stdout
    assert json.loads(found) == json.loads(train(texts, size, family).backend_tokenizer.to_str())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_character_is_unknown(family: Family) -> None:
    tokenizer = train(TEXTS, 300, family)
    ids = tokenizer("\u1234 \U0001f600")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "\u1234 \U0001f600"


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("  two  spaces,\r\n\n\ttabs\x00 and <|endoftext|> 😀 e\u0301 don't .")
@settings(deadline=None)
def test_a_decoders_tokenizer_loses_nothing(text: str) -> None:
    tokenizer = decoder_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_decoders_special_tokens_stay_out_of_texts() -> None:
    tokenizer = decoder_tokenizer()
    uses = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
    assert [getattr(tokenizer, use) for use in uses] == [0, 0, 0, 1]
    assert not set(tokenizer("the fox")["input_ids"]) & {0, 1}
    assert tokenizer.tokenize("fox the quick") == ["fox", "Ġthe", "Ġquick"]
    padded = tokenizer(["the", "the fox"], padding=True)["input_ids"][0]
    assert tokenizer.decode(padded, skip_special_tokens=True) == "the"


# A text that holds a special token's name means that token.
@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "<" not in text))
@example("two  spaces,\r\n\n\ttabs\x00 and 😀 e\u0301 don't .")
@settings(deadline=None)
def test_an_encoder_decoders_tokenizer_gives_the_text_back(text: str) -> None:
    tokenizer = encoder_decoder_tokenizer()
    ids = [tokenizer.convert_tokens_to_ids("<de>"), *tokenizer(text)["input_ids"]]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in ids


def test_an_encoder_decoders_special_tokens() -> None:
    tokenizer = encoder_decoder_tokenizer()
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<de>", "<en>"]
    assert tokenizer.convert_ids_to_tokens(range(7)) == special
    assert sorted(tokenizer.all_special_ids) == list(range(7))
    assert tokenizer.pad_token_id == 0
    assert tokenizer.convert_ids_to_tokens(tokenizer("the quick")["input_ids"]) == ["t", "he", "Ġquick", "</s>"]
    assert tokenizer("", text_target="the")["labels"][-1] == tokenizer.eos_token_id


def test_a_whole_book_is_one_text() -> None:
    book = "\n".join(TEXTS * 300)
    assert len(book) > 200_000
    tokenizer = train([book], 320, "decoder")
    assert "Ġquick" in tokenizer.get_vocab()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_refused(texts: list[str], family: Family) -> None:
    with pytest.raises(UserError, match="no text to train a tokenizer on"):
        train(texts, 300, family)


@pytest.mark.parametrize(
    ("family", "size", "lowercase", "message"),
    [
        ("decoder", 300, True, r"from_scratch\.lowercase: is true, .* keeps every text whole; leave it out"),
        ("encoder-decoder", 300, None, "vocabulary_size: is 300, .* alone are 305; raise it"),
    ],
)
def test_what_a_family_cannot_have(family: Family, size: int, lowercase: bool | None, message: str) -> None:
    from_scratch = FromScratch(**settings_of(size, FAMILIES[family].architectures[0], lowercase))
    with pytest.raises(UserError, match=message):
        train_tokenizer(iter(TEXTS), from_scratch, family, [f"language{number}" for number in range(44)])
