"""Translators as the Hub has them: Marian (source.spm, target.spm, vocab.json), M2M100 (sentencepiece.bpe.model,
vocab.json) and NLLB, none with a tokenizer.json of both languages. They are taught, exported and used as plain
transformers use them, or refused before any training.
"""

import importlib.util
import io
import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    NllbTokenizer,
)

from lightpaff.data.languages import quiet_marian, tokenizer_between
from lightpaff.deployment import loading
from lightpaff.deployment.pieces import PieceTokenizer
from lightpaff.deployment.tokenizer_writing import write_tokenizer
from lightpaff.errors import UserError
from lightpaff.models.vocabulary import load_tokenizer, tokenizer_identity
from lightpaff.recipe_sections import Languages
from tests.conftest import TINY_ENCODER_DECODER_RECIPE, Outcome, TinyRecipe, write_language_data

sentencepiece = pytest.importorskip("sentencepiece")

SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "init_std": 0.5,
}
TEXTS = [
    "bright clever mida",
    " two  spaces , and\ta tab ",
    "",
    "ünknown 北京 characters ü",
    "a </s> amid a text, <pad> and <unk>",
    ">>fra<< bright clever",
    "bright >>fra<< clever",
    ">>fra bright",
    "__en__ bright __fr__",
    "ｆｕｌｌ　ｗｉｄｔｈ ﬁne",
]


def read_pairs(folder: Path) -> tuple[list[str], list[str]]:
    lines = (folder / "train_translations.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["en"] for row in rows], [row["ne"] for row in rows]


def train_pieces(texts: list[str], kind: str = "unigram") -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        model_type=kind,
        vocab_size=90,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def pieces_in(model: bytes) -> list[str]:
    trained = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [trained.id_to_piece(id_) for id_ in range(3, trained.get_piece_size())]


def make_vocabulary(models: list[bytes], first: list[str], last: list[str]) -> dict[str, int]:
    """Numbers in another order than the pieces' own; a few pieces have none, as in real files."""
    pieces = sorted({piece for model in models for piece in pieces_in(model)})
    return {token: number for number, token in enumerate([*first, *pieces[2:], *last])}


def save_marian(folder: Path, data: Path, **settings: Any) -> MarianMTModel:
    sources, targets = read_pairs(data)
    folder.mkdir()
    models = [train_pieces(sources), train_pieces([*targets, "ü é"])]
    for name, model in zip(("source.spm", "target.spm"), models, strict=True):
        (folder / name).write_bytes(model)
    vocabulary = make_vocabulary(models, ["</s>", "<unk>"], [">>fra<<", "<pad>"])
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "ne"}))
    padding = vocabulary["<pad>"]
    config = MarianConfig(
        vocab_size=len(vocabulary),
        pad_token_id=padding,
        decoder_start_token_id=padding,
        eos_token_id=0,
        scale_embedding=True,
        static_position_embeddings=True,
        activation_function="swish",
        **SIZES,
        **settings,
    )
    torch.manual_seed(0)
    model = MarianMTModel(config)
    model.save_pretrained(folder)
    return model


def save_m2m_100(folder: Path, data: Path) -> None:
    sources, targets = read_pairs(data)
    folder.mkdir()
    model = train_pieces([*sources, *targets], "bpe")
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    vocabulary = make_vocabulary([model], ["<s>", "<pad>", "</s>", "<unk>"], [])
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    languages = [
        f"__{code}__"
        for code in M2M100Tokenizer(folder / "vocab.json", str(folder / "sentencepiece.bpe.model")).lang_code_to_id
    ]
    special = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "additional_special_tokens": languages}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {**special, "tokenizer_class": "M2M100Tokenizer", "src_lang": None, "tgt_lang": None, "num_madeup_words": 8}
        )
    )
    config = M2M100Config(vocab_size=len(vocabulary) + len(languages) + 8, **SIZES)
    torch.manual_seed(0)
    M2M100ForConditionalGeneration(config).save_pretrained(folder)


def save_nllb(folder: Path, pieces: Path) -> None:
    """With a tokenizer.json."""
    folder.mkdir()
    shutil.copy(pieces, folder)
    config = {"tokenizer_class": "NllbTokenizer", "additional_special_tokens": ["deu_Latn", "eng_Latn", "fra_Latn"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = open_plain(folder)
    (folder / pieces.name).unlink()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), **SIZES)).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translators")
    write_language_data(folder)
    save_marian(folder / "marian", folder)
    save_m2m_100(folder / "m2m", folder)
    save_nllb(folder / "nllb", folder / "m2m" / "sentencepiece.bpe.model")
    return folder


def open_plain(folder: Path) -> Any:
    with quiet_marian():
        return AutoTokenizer.from_pretrained(folder)


def make_recipe(folder: Path, teacher: str, languages: dict[str, str] | None) -> TinyRecipe:
    content = deepcopy(TINY_ENCODER_DECODER_RECIPE)
    content |= {"name": teacher, "teacher": {"source": teacher}, "control": False}
    content["student"] = {"layers": 1, "decoder_layers": 1, "initialisation": "teacher"}
    content["fine_tuning"]["training"] |= {"steps": 2, "evaluations": 1}
    del content["pretraining"]
    del content["tasks"][0]["test"]
    content["tasks"][0] |= {"languages": languages, "sequence_distillation": None, "max_target_length": 12}
    if languages is None:
        del content["tasks"][0]["languages"]
    return TinyRecipe(folder, content)


def test_marians_tokenizer_is_the_plain_one_for_sources_and_targets(folder: Path, tmp_path: Path) -> None:
    plain = open_plain(folder / "marian")
    opened = load_tokenizer(folder / "marian", "encoder-decoder")
    own = tokenizer_between(opened, None)
    for text in TEXTS:
        assert own(text)["input_ids"] == plain(text)["input_ids"]
        assert own(text_target=text)["input_ids"] == plain(text_target=text)["input_ids"]
    # The two cut in different ways, so agreement means something.
    assert plain("bright clever mida")["input_ids"] != plain(text_target="bright clever mida")["input_ids"]
    opened.save_pretrained(tmp_path)
    assert tokenizer_identity(load_tokenizer(tmp_path, "encoder-decoder")) == tokenizer_identity(opened)


@pytest.mark.parametrize("name", ["marian", "m2m"])
def test_an_export_cuts_and_joins_as_transformers(name: str, folder: Path, tmp_path: Path) -> None:
    plain = open_plain(folder / name)
    assert write_tokenizer(load_tokenizer(folder / name, "encoder-decoder"), tmp_path) == "pieces.json"
    exported = PieceTokenizer(tmp_path)
    rows = plain(TEXTS)["input_ids"]
    assert [row.ids for row in exported.encode_batch(TEXTS)] == rows
    # Unknown pieces, and those that only targets have.
    assert any(plain.unk_token_id in row for row in rows)
    assert exported.decode_batch(rows) == [text.strip() for text in plain.batch_decode(rows, skip_special_tokens=True)]
    exported.enable_truncation(5)
    cut = plain(TEXTS, truncation=True, max_length=5)["input_ids"]
    assert [row.ids for row in exported.encode_batch(TEXTS)] == cut


@pytest.mark.needs("ctranslate2")
@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("marian", None),
        ("m2m", {"source": "ne", "target": "en"}),
        ("nllb", {"source": "deu_Latn", "target": "fra_Latn"}),
    ],
)
def test_a_student_and_its_exports_write_as_plain_transformers(
    name: str,
    languages: dict[str, str] | None,
    folder: Path,
    run_cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = make_recipe(folder, name, languages)
    output = folder / "runs" / name
    outcome = run_cli("run", recipe.write(f"{name}.yaml"), "--output", output)
    assert outcome.code == 0, outcome.stderr
    for format_ in ("ctranslate2", "transformers"):
        outcome = run_cli("export", output, "--to", format_)
        assert outcome.code == 0, outcome.stderr
    # Whoever uses it need not know the languages.
    model = AutoModelForSeq2SeqLM.from_pretrained(output / "student").eval()
    tokenizer = open_plain(output / "student")
    assert getattr(tokenizer, "src_lang", None) == (languages and languages["source"])
    sources = [*read_pairs(folder)[0][:6], "ünknown </s> 北京"]
    if getattr(tokenizer, "lang_code_to_id", None) or name == "nllb":
        assert languages is not None
        written = model.generate(**tokenizer(sources[0], return_tensors="pt"))[0, 1]
        # Two steps teach nobody to begin with the language, as every target does: it is made to.
        assert tokenizer.convert_ids_to_tokens(int(written)) in (languages["target"], f"__{languages['target']}__")
    expected = [
        tokenizer.decode(model.generate(**tokenizer(text, return_tensors="pt"))[0], skip_special_tokens=True).strip()
        for text in sources
    ]
    assert loading.load(output / "exports" / "ctranslate2", threads=1)(sources) == expected
    assert len(set(expected)) > 3
    exported = open_plain(output / "exports" / "transformers")
    for side in ("text", "text_target"):
        assert exported(**{side: sources})["input_ids"] == tokenizer(**{side: sources})["input_ids"]
    # So does the example in the export's own README, with nothing of lightpaff.
    monkeypatch.chdir(output / "exports" / "ctranslate2")
    [example] = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    exec(example.replace("A text to read.", sources[0]), {})
    assert capsys.readouterr().out.strip() == expected[0]


def test_a_marian_with_two_vocabularies_is_refused_before_training(
    tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    write_language_data(tmp_path)
    save_marian(tmp_path / "marian", tmp_path)
    recipe = make_recipe(tmp_path, "marian", None)
    config = json.loads((tmp_path / "marian" / "config.json").read_text())
    (tmp_path / "marian" / "config.json").write_text(json.dumps({**config, "share_encoder_decoder_embeddings": False}))
    outcome = run_cli("plan", recipe.write())
    assert outcome.code == 2
    assert "its decoder has a vocabulary of its own; take another model" in outcome.message


@pytest.mark.parametrize(
    ("languages", "words"),
    [
        (None, "tasks.toy.languages: are not given, and the teacher's tokenizer marks each text with one; name"),
        ({"source": "en", "target": "klingon"}, "language klingon: the tokenizer has neither a token <klingon> nor"),
    ],
)
def test_languages_are_asked_for_before_training(
    languages: dict[str, str] | None, words: str, folder: Path, run_cli: Callable[..., Outcome]
) -> None:
    outcome = run_cli("plan", make_recipe(folder, "m2m", languages).write("languages.yaml"))
    assert outcome.code == 2
    assert outcome.message.startswith(words)


@pytest.mark.parametrize("settings", [{}, {"additional_special_tokens": ["deu_Latn", "eng_Latn"]}])
def test_an_nllb_whose_languages_would_be_numbered_wrongly_is_refused(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "m2m" / "sentencepiece.bpe.model", tmp_path)
    config = {"tokenizer_class": "NllbTokenizer", **settings}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    # transformers opens it: with no language at all, or with each one further than in the model.
    plain = open_plain(tmp_path)
    last_piece = max(id_ for token, id_ in plain.get_vocab().items() if token not in plain.all_special_tokens)
    assert plain.convert_tokens_to_ids("deu_Latn") in (plain.unk_token_id, last_piece + 2)
    with pytest.raises(UserError, match=r"cannot number the languages of a NllbTokenizer .* with its tokenizer\.json$"):
        load_tokenizer(tmp_path, "encoder-decoder")


def test_without_sentencepiece_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else found(name))
    for name in ("marian", "m2m"):
        with pytest.raises(UserError, match=r'pip install "lightpaff\[sentencepiece\]", or give .* tokenizer\.json$'):
            load_tokenizer(folder / name, "encoder-decoder")


def test_nllbs_source_language_goes_into_the_export(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *"▁abc"])}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=[], src_lang="eng_Latn", tgt_lang="fra_Latn")
    own = tokenizer_between(tokenizer, Languages(source="deu_Latn", target="eng_Latn"))
    write_tokenizer(own, tmp_path)
    exported = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.src_lang = "deu_Latn"
    assert exported.encode("a b").ids == tokenizer("a b")["input_ids"]
    assert exported.encode("a b").tokens[0] == "deu_Latn"
