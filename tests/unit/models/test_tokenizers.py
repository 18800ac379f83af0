import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lightpaff.errors import UserError
from lightpaff.models.encoder import ARCHITECTURES
from lightpaff.models.shapes import scratch_config
from lightpaff.models.tokenizers import SPECIAL_TOKENS, train_tokenizer
from lightpaff.models.vocabulary import compare_vocabularies, load_tokenizer
from lightpaff.recipe import FromScratch

TEXTS = [
    "The quick brown fox jumps over the lazy dog, quickly.",
    "Foxes and dogs jumped; the laziest fox was quicker!\nA second line in the same text.",
    "Ünïcode naïve café 北京, 12:30 and 99% of the quickest dogs.",
] * 4

TRAIN_AND_PRINT = """
import json, sys
from lightpaff.models.tokenizers import train_tokenizer
tokenizer = train_tokenizer(iter(json.loads(sys.stdin.read())), 140, True, 32, "bert")
print(json.dumps(tokenizer.get_vocab(), sort_keys=True))
"""


def test_special_tokens_come_first() -> None:
    tokenizer = train_tokenizer(iter(TEXTS), 140, True, 32, "bert")
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == list(SPECIAL_TOKENS.values())
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) == 140
    assert set(tokenizer.get_vocab().values()) == set(range(140))


def test_pieces_are_learnt() -> None:
    tokenizer = train_tokenizer(iter(TEXTS), 160, True, 32, "bert")
    assert tokenizer.tokenize("the QUICK fox") == ["the", "quick", "fox"]
    assert tokenizer.decode(tokenizer("the foxes", add_special_tokens=False)["input_ids"]) == "the foxes"


def test_pairs_are_framed_as_berts() -> None:
    tokenizer = train_tokenizer(iter(TEXTS), 160, True, 32, "bert")
    encoded = tokenizer("the", "fox")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == ["[CLS]", "the", "[SEP]", "fox", "[SEP]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1]


def test_a_mask_in_the_text_is_one_token() -> None:
    tokenizer = train_tokenizer(iter(TEXTS), 160, True, 32, "bert")
    assert tokenizer.tokenize("the [MASK]") == ["the", "[MASK]"]


@pytest.mark.parametrize("lowercase", [True, False])
def test_case_and_accents(lowercase: bool) -> None:
    tokenizer = train_tokenizer(iter(["Café Café CAFÉ"]), 140, lowercase, 32, "bert")
    assert (tokenizer.tokenize("CAFÉ") == tokenizer.tokenize("cafe")) == lowercase


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_opens_what_was_saved(architecture: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(iter(TEXTS), 140, True, 32, architecture)
    from_scratch = FromScratch.model_validate(
        {"architecture": architecture, "layers": 1, "hidden_size": 8, "heads": 1, "feed_forward": 8}
    )
    tokenizer.save_pretrained(tmp_path)
    scratch_config(from_scratch, tokenizer).save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path)
    compare_vocabularies(tokenizer, opened, ("teacher", "student"))
    assert opened.model_max_length == 32
    assert ("token_type_ids" in opened("the", "fox")) == (architecture in ("bert", "electra"))
    assert opened("Ünïcode 北京 [MASK]")["input_ids"] == tokenizer("Ünïcode 北京 [MASK]")["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_the_order_of_the_texts_does_not_matter() -> None:
    forward = train_tokenizer(iter(TEXTS), 140, True, 32, "bert")
    backward = train_tokenizer(iter(reversed(TEXTS)), 140, True, 32, "bert")
    assert forward.get_vocab() == backward.get_vocab()


@pytest.mark.parametrize("attempt", range(2))
def test_another_process_learns_the_same_tokens(attempt: int) -> None:
    # More equally rare characters than there is room for: which are left out must not be a matter of chance.
    texts = [*TEXTS, "".join(chr(code) for code in range(0x10D0, 0x10D0 + 32)), "αβγδεζηθικλμνξοπρστυφχψω"]
    found = subprocess.run(
        [sys.executable, "-c", TRAIN_AND_PRINT],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(attempt)},
    ).stdout
    assert json.loads(found) == train_tokenizer(iter(texts), 140, True, 32, "bert").get_vocab()


def test_a_rare_character_gives_way_to_the_vocabulary_size() -> None:
    many = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 400))
    tokenizer = train_tokenizer(iter([*TEXTS, many]), 110, True, 32, "bert")
    assert len(tokenizer) <= 110
    assert tokenizer.tokenize(many[-1]) == ["[UNK]"]
    assert "e" in tokenizer.get_vocab()


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(UserError, match="no text to train a tokenizer on"):
        train_tokenizer(iter(texts), 140, True, 32, "bert")
