import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, GPT2Config, PreTrainedTokenizerFast

from lightpaff.errors import UserError
from lightpaff.models.vocabulary import compare_vocabularies, load_tokenizer, number_of_classes, tokenizer_identity
from lightpaff.recipe_families import Family

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "open", "is", "##n", "T"]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def make_tokenizer(words: list[str], *, lowercase: bool = True, **special: Any) -> PreTrainedTokenizerFast:
    vocabulary = {word: id_ for id_, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{**SPECIAL, "mask_token": "[MASK]", **special}, model_max_length=16
    )


def test_the_same_vocabulary_passes() -> None:
    first, second = make_tokenizer(WORDS), make_tokenizer(WORDS)
    compare_vocabularies(first, second, ("teacher", "student"), "encoder")
    assert first.get_vocab() == second.get_vocab(), "what passed is indeed the same"


def test_swapped_tokens_are_named_with_their_number() -> None:
    swapped = [*WORDS[:5], "open", "the", *WORDS[7:]]
    with pytest.raises(UserError, match=r"small: .* that of big: 2 differences.*id 5 is 'the' and 'open'; id 6 is"):
        compare_vocabularies(make_tokenizer(WORDS), make_tokenizer(swapped), ("big", "small"), "encoder")


@pytest.mark.parametrize("teacher_is_longer", [True, False])
def test_a_token_that_only_one_has_is_a_difference(teacher_is_longer: bool) -> None:
    short, long = make_tokenizer(WORDS), make_tokenizer([*WORDS, "more"])
    teacher, other = (long, short) if teacher_is_longer else (short, long)
    found = "'more' and nothing" if teacher_is_longer else "nothing and 'more'"
    with pytest.raises(UserError, match=f"1 differences.*id 10 is {found}"):
        compare_vocabularies(teacher, other, ("teacher", "student"), "encoder")


def test_at_most_three_differences_are_shown() -> None:
    other = make_tokenizer([*WORDS[:5], *reversed(WORDS[5:])])
    with pytest.raises(UserError, match="4 differences") as caught:
        compare_vocabularies(make_tokenizer(WORDS), other, ("teacher", "student"), "encoder")
    assert str(caught.value).count("id ") == 3
    assert "\n" not in str(caught.value)


def test_another_special_token_is_a_difference() -> None:
    with pytest.raises(UserError, match=r"mask_token is '\[MASK\]' and 'T'"):
        compare_vocabularies(
            make_tokenizer(WORDS), make_tokenizer(WORDS, mask_token="T"), ("teacher", "student"), "encoder"
        )


def test_the_same_tokens_with_another_treatment_of_case_are_refused() -> None:
    cased = make_tokenizer(WORDS, lowercase=False)
    with pytest.raises(UserError, match="text is cut differently"):
        compare_vocabularies(make_tokenizer(WORDS), cased, ("teacher", "student"), "encoder")


@pytest.mark.parametrize("rows", [10, 16])
def test_padding_rows_are_no_classes(rows: int) -> None:
    assert number_of_classes(make_tokenizer(WORDS), BertConfig(vocab_size=rows)) == 10


def test_holes_in_the_vocabulary_leave_every_id_a_class() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 7}, unk_token="[UNK]"))
    assert number_of_classes(PreTrainedTokenizerFast(tokenizer_object=tokenizer), BertConfig(vocab_size=8)) == 8


def test_fewer_rows_than_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="vocab_size is 9, fewer than the tokenizer's 10"):
        number_of_classes(make_tokenizer(WORDS), BertConfig(vocab_size=9))


def test_a_saved_tokenizer_is_opened(tmp_path: Path) -> None:
    make_tokenizer(WORDS).save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path, "encoder")
    compare_vocabularies(make_tokenizer(WORDS), opened, ("teacher", "student"), "encoder")
    assert opened.model_max_length == 16


def test_how_it_was_last_used_is_forgotten(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(WORDS)
    fresh = tokenizer.backend_tokenizer.to_str()
    tokenizer(["the open", "the"], truncation=True, padding=True, max_length=4)
    assert tokenizer.backend_tokenizer.to_str() != fresh
    tokenizer.save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path, "encoder").backend_tokenizer
    assert opened.truncation is None
    assert opened.padding is None


def test_a_tokenizer_without_a_mask_token_is_refused(tmp_path: Path) -> None:
    make_tokenizer(WORDS, mask_token=None).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no mask_token"):
        load_tokenizer(tmp_path, "encoder")


@pytest.mark.parametrize(
    ("family", "absent", "message"),
    [
        ("decoder", "eos_token", "has no eos_token; give one for the family decoder"),
        ("encoder-decoder", "pad_token", "has no pad_token"),
        ("encoder-decoder", "eos_token", "has no eos_token"),
    ],
)
def test_every_family_needs_its_tokens(family: Family, absent: str, message: str, tmp_path: Path) -> None:
    special: dict[str, Any] = {"eos_token": "T", absent: None}
    make_tokenizer(WORDS, **special).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path, family)


def test_a_decoder_needs_no_more_than_an_end(tmp_path: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("pad_token", "cls_token", "sep_token", "mask_token", "unk_token"))
    make_tokenizer(WORDS, **{**nothing, "eos_token": "T"}).save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path, "decoder")
    assert (opened.pad_token, opened.eos_token) == (None, "T")
    padded = make_tokenizer(WORDS, **{**nothing, "eos_token": "T", "pad_token": "[PAD]"})
    compare_vocabularies(opened, padded, ("teacher", "student"), "decoder")
    ends_otherwise = make_tokenizer(WORDS, **{**nothing, "eos_token": "is"})
    with pytest.raises(UserError, match="eos_token is 'T' and 'is'"):
        compare_vocabularies(opened, ends_otherwise, ("teacher", "student"), "decoder")


def test_the_files_of_gpt2_are_opened(tmp_path: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: id_ for id_, token in enumerate([*letters, "th", "the", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    opened = load_tokenizer(tmp_path, "decoder")
    assert opened.convert_ids_to_tokens(opened("the then\n")["input_ids"]) == ["the", "Ġ", "the", "n", "Ċ"]
    assert opened.eos_token_id == len(vocabulary) - 1
    assert number_of_classes(opened, GPT2Config(vocab_size=259)) == 259


def _cut_in_half(path: Path) -> None:
    file = path / "tokenizer.json"
    file.write_text(file.read_text()[: file.stat().st_size // 2])


def _remove_the_model(path: Path) -> None:
    content = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps({**content, "model": {}}))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (shutil.rmtree, "no such directory"),
        (lambda path: (path / "tokenizer.json").unlink(), "holds no tokenizer"),
        (_cut_in_half, "cannot be read"),
        (_remove_the_model, "cannot be read"),
    ],
)
def test_a_broken_directory_is_told_in_one_line(break_it: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make_tokenizer(WORDS).save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(tmp_path, "encoder")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_which_tokens_mean_what_is_in_the_identity() -> None:
    first = make_tokenizer(WORDS, additional_special_tokens=["open", "is"], eos_token="open")
    second = make_tokenizer(WORDS, additional_special_tokens=["open", "is"], eos_token="is")
    assert set(first.all_special_tokens) == set(second.all_special_tokens)
    assert tokenizer_identity(first) != tokenizer_identity(second)
    second.eos_token = "open"
    assert tokenizer_identity(first) == tokenizer_identity(second)
