import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MBart50Tokenizer, MBartTokenizer, PreTrainedTokenizerFast

from lightpaff.data.languages import (
    first_decoder_token,
    has_own_languages,
    language_id,
    special_token_ids,
    tokenizer_between,
)
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Languages

TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<en>", "<de>", "en", "fr", "fox"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """`en` and `fr` are words, <en> and <de> languages."""
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(TOKENS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, mask_token="<mask>", additional_special_tokens=["<en>", "<de>"], **names
    )


def test_a_language_is_a_token_or_an_own_code(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [language_id(tokenizer, name) for name in ("en", "de")] == [5, 6]
    mbart = MBartTokenizer()
    assert language_id(mbart, "de_DE") == mbart.convert_tokens_to_ids("de_DE")


def test_an_unknown_language_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    # A word that is spelt so is no language.
    with pytest.raises(UserError, match=r"language fr: the tokenizer has neither a token <fr> nor a code fr"):
        language_id(tokenizer, "fr")
    with pytest.raises(UserError, match=r"the closest are .*de_DE"):
        language_id(MBartTokenizer(), "de")


def test_special_tokens_are_no_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert special_token_ids(tokenizer) == list(range(7))


def test_the_original_tokenizer_stays_as_it_is(tokenizer: PreTrainedTokenizerFast) -> None:
    mbart = MBartTokenizer(src_lang="en_XX")
    before = mbart("a")["input_ids"]
    copy = tokenizer_between(mbart, Languages(source="fr_XX", target="de_DE"))
    assert copy("a")["input_ids"][-1] == language_id(mbart, "fr_XX")
    assert copy(text_target="a")["input_ids"][-1] == language_id(mbart, "de_DE")
    assert mbart("a")["input_ids"] == before
    assert has_own_languages(mbart)
    assert not has_own_languages(tokenizer)
    assert tokenizer_between(tokenizer, Languages(source="en", target="de"))("fox")["input_ids"] == [9, 2]


def test_what_the_decoder_reads_first(tokenizer: PreTrainedTokenizerFast) -> None:
    assert first_decoder_token(tokenizer, None, 1) == 1
    assert first_decoder_token(tokenizer, Languages(source="en", target="de"), 1) == 6
    european = Languages(source="en_XX", target="de_DE")
    assert first_decoder_token(MBartTokenizer(), european, 2) == language_id(MBartTokenizer(), "de_DE")
    # mBART-50's target begins with the language itself.
    assert first_decoder_token(MBart50Tokenizer(), european, 2) == 2
    with pytest.raises(AssertionError):
        first_decoder_token(tokenizer, None, None)
