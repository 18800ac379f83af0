"""Encoders as the Hub has them: a SentencePiece model and no tokenizer.json."""

from pathlib import Path

import pytest

from lightpaff.models.vocabulary import load_tokenizer

spm = pytest.importorskip("sentencepiece")
TEXTS = ["two children play on the beach", "an old man reads the paper", "the film is bright and gentle"] * 20
LAYOUTS = {
    "xlm-roberta": ("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
    "camembert": ("CamembertTokenizer", "sentencepiece.bpe.model"),
    "deberta-v2": ("DebertaV2Tokenizer", "spm.model"),
}


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_the_tokenizer_of_a_sentencepiece_directory(architecture: str, tmp_path: Path) -> None:
    import json

    import transformers

    name, file = LAYOUTS[architecture]
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    spm.SentencePieceTrainer.train(
        input=str(tmp_path / "texts.txt"), model_prefix=str(tmp_path / "pieces"), vocab_size=32, minloglevel=2
    )
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "pieces.model").rename(folder / file)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    (folder / "config.json").write_text(json.dumps({"model_type": architecture}))
    plain = getattr(transformers, name).from_pretrained(folder)
    opened = load_tokenizer(folder, "encoder")
    for text in [*TEXTS[:3], "  two  spaces ", "Ünïcode 中文"]:
        assert opened(text)["input_ids"] == plain(text)["input_ids"]
    opened.save_pretrained(tmp_path / "student")
    assert (tmp_path / "student" / "tokenizer.json").is_file()
