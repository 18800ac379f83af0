import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MBartTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightpaff.data.languages import language_id
from lightpaff.data.sources import resolve
from lightpaff.data.text_pairs import TARGETS, TextPair, read_pair, read_pairs, write_pairs
from lightpaff.data.token_table import TokenTable
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Columns, Task
from lightpaff.recipe_sources import Source

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<en>", "<de>"]
WORDS = ["a", "red", "fox", "ein", "roter", "fuchs"]
EOS, EN = 2, 5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    tokens = SPECIAL + WORDS
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, mask_token="<mask>", additional_special_tokens=["<en>", "<de>"], **names
    )


def make_task(**keys: Any) -> Task:
    return Task.model_validate(
        {"name": "toy", "objective": "translate", "train": "a.jsonl", "validation": "a.jsonl", **keys}
    )


def read(row: dict[str, Any], is_evaluated: bool = False, **columns: str) -> TextPair:
    return read_pair(row, Columns(**columns), "rows.jsonl", 1, is_evaluated=is_evaluated)


def test_pairs_are_read_clean_and_empty_ones_counted(tmp_path: Path) -> None:
    rows = [
        {"source": " a\tfox ", "target": "ein  Fuchs"},
        {"source": "", "target": "ein"},
        {"source": "a", "target": None},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dropped: Counter[str] = Counter()
    source = resolve(Source(path=str(tmp_path / "rows.jsonl")), tmp_path)
    pairs = list(read_pairs([source], Columns(), dropped, is_evaluated=False))
    assert pairs == [TextPair("a fox", "ein Fuchs", ["ein Fuchs"])]
    assert dropped == {"empty source or target": 2}


def test_columns_may_be_nested() -> None:
    row = {"id": 1, "translation": {"en": "a fox", "de": "ein Fuchs"}, "a.b": "flat"}
    assert read(row, source="translation.en", target="translation.de") == TextPair("a fox", "ein Fuchs", ["ein Fuchs"])
    assert read(row, source="a.b", target="translation.de").source == "flat"
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: has no column 'fr'; it has en, de"):
        read(row, source="translation.en", target="translation.fr")
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: has no column 'other\.de'; it has id, translation"):
        read(row, source="translation.en", target="other.de")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"refs": ["b ", "", "c"]}, TextPair("a", "b", ["b", "c"])),
        ({"refs": ["b"], "target": "t"}, TextPair("a", "t", ["b"])),
        ({"refs": "b", "target": "t"}, TextPair("a", "t", ["b"])),
        ({"refs": [], "target": "t"}, TextPair("a", "t", ["t"])),
        ({"refs": [None]}, TextPair("a", "", [])),
    ],
)
def test_references_are_of_evaluated_rows(row: dict[str, Any], expected: TextPair) -> None:
    assert read({"source": "a", **row}, is_evaluated=True, references="refs") == expected


def test_references_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: has no column 'refs'"):
        read({"source": "a", "target": "t"}, is_evaluated=True, references="refs")
    with pytest.raises(UserError, match=r"column 'refs' holds a list with a int; references are a list of texts"):
        read({"source": "a", "refs": [1]}, is_evaluated=True, references="refs")
    # Training rows are not compared with anything, and need their target.
    assert read({"source": "a", "target": "t", "refs": ["b"]}, references="refs").references == ["t"]
    with pytest.raises(UserError, match="has no column 'target'"):
        read({"source": "a", "refs": ["b"]}, references="refs")


SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20)


def write(
    pairs: list[TextPair], tokenizer: PreTrainedTokenizerBase, path: Path, **keys: Any
) -> tuple[dict[str, Any], TokenTable, TokenTable]:
    facts = write_pairs(iter(pairs), tokenizer, make_task(**keys), path, lambda rows: None)
    return facts, TokenTable(path), TokenTable(path, column=TARGETS)


@given(texts=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=4), has_languages=st.booleans())
@settings(deadline=None, max_examples=30)
def test_rows_are_cut_and_keep_their_end(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[tuple[list[str], list[str]]],
    has_languages: bool,
) -> None:
    pairs = [TextPair(" ".join(source), " ".join(target), [" ".join(target)]) for source, target in texts]
    languages = {"languages": {"source": "en", "target": "de"}} if has_languages else {}
    path = tmp_path_factory.mktemp("pairs") / "train.arrow"
    facts, sources, targets = write(pairs, tokenizer, path, max_length=8, max_target_length=10, **languages)
    cut = 0
    for row, (source, target) in enumerate(texts):
        first = [EN] if has_languages else []
        room, target_room = 7 - len(first), 9
        source_ids, target_ids = (
            [tokenizer.convert_tokens_to_ids(word) for word in words] for words in (source, target)
        )
        assert sources.tokens(row).tolist() == [*first, *source_ids[:room], EOS]
        assert targets.tokens(row).tolist() == [*target_ids[:target_room], EOS]
        cut += len(source) > room or len(target) > target_room
    assert (facts["rows"], facts["truncated"]) == (len(texts), cut)
    assert facts["tokens"] == sources.lengths_N.sum() + targets.lengths_N.sum()
    assert sources.column("source") == [pair.source for pair in pairs]
    assert sources.column("references") == [[pair.target] for pair in pairs]


def test_a_tokenizer_with_own_languages_says_them_itself(tmp_path: Path) -> None:
    mbart = MBartTokenizer()
    before = mbart("a")["input_ids"]
    languages = {"source": "fr_XX", "target": "de_DE"}
    pair = TextPair(" ".join("a" * 9), " ".join("b" * 9), ["b"])
    _, sources, targets = write(
        [pair], mbart, tmp_path / "train.arrow", max_length=8, max_target_length=8, languages=languages
    )
    source, target = sources.tokens(0).tolist(), targets.tokens(0).tolist()
    assert (len(source), source[-2:]) == (8, [mbart.eos_token_id, language_id(mbart, "fr_XX")])
    assert (len(target), target[-1]) == (8, mbart.eos_token_id)
    assert language_id(mbart, "de_DE") not in target
    assert mbart("a")["input_ids"] == before
