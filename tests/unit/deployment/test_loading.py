"""Exports as functions of text, without torch and transformers."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lightpaff.deployment.card import ExportCard, Kind
from lightpaff.deployment.classifier import Answer, Classifier, Scorer
from lightpaff.deployment.loading import load
from lightpaff.deployment.onnx_runtime import MODEL
from lightpaff.errors import UserError

WORDS = ["[PAD]", "[CLS]", "[SEP]", "good", "bad", "film", "book"]
GOOD, BAD = WORDS.index("good"), WORDS.index("bad")
# What each token adds to the logits of bad and good; in the second segment, ten times as much.
WEIGHTS = np.zeros((len(WORDS), 2), dtype=np.float32)
WEIGHTS[GOOD], WEIGHTS[BAD] = [0, 1], [1, 0]


def write_bag_of_words(folder: Path, kind: Kind = "classes", max_length: int = 8) -> Path:
    """An export whose answers can be counted by hand: the words' weights are added up."""
    weights_VC = WEIGHTS if kind == "classes" else WEIGHTS[:, 1:] - WEIGHTS[:, :1]
    names = ["input_ids", "attention_mask", "token_type_ids"]
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["found"]),
        helper.make_node("Cast", ["token_type_ids"], ["segments"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["segments", "nine"], ["more"]),
        helper.make_node("Add", ["more", "one"], ["factors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["factors", "mask"], ["masked"]),
        helper.make_node("Unsqueeze", ["masked", "last"], ["columns"]),
        helper.make_node("Mul", ["found", "columns"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "tokens"], ["logits"], keepdims=0),
    ]
    constants = {
        "weights": weights_VC,
        "nine": np.float32(9),
        "one": np.float32(1),
        "last": np.array([-1]),
        "tokens": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "bag of words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weights_VC.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / MODEL)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    labels = ["negative", "positive"] if kind == "classes" else []
    ExportCard("onnx", "none", kind, max_length, longest_input=512, source_sha256="", labels=labels).write(folder)
    return folder


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(WORDS)}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # All segments 0, as tokenizers of other families say: the pair is told apart all the same.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:0 [SEP]:0", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def test_answers_are_in_the_order_of_the_texts_whatever_their_lengths(tmp_path: Path) -> None:
    classify = load(write_bag_of_words(tmp_path), threads=1)
    assert isinstance(classify, Classifier)
    texts = ["good film book", "bad", *["film good good good", "bad bad film"] * 20]
    answers = classify(texts)
    assert [answer.label for answer in answers] == ["positive", "negative"] * 21
    assert answers[0].probability == pytest.approx(1 / (1 + np.exp(-1)))
    assert answers[2].probability == pytest.approx(1 / (1 + np.exp(-3)))
    assert classify("bad") == [answers[1]]
    assert isinstance(answers[1], Answer)
    assert classify([]) == []


def test_pairs_have_segments_and_long_texts_are_cut(tmp_path: Path) -> None:
    folder = write_bag_of_words(tmp_path, "scores", max_length=6)
    replace(ExportCard.read(folder), pairs=True).write(folder)
    score = load(str(folder), threads=1)
    assert isinstance(score, Scorer)
    assert score([("good", "good"), ("good", "bad")]) == pytest.approx([11, -9])
    score = load(write_bag_of_words(tmp_path, "scores", max_length=6), threads=1)
    assert score("good " * 50) == pytest.approx([4])  # Two of the six tokens are special.


@pytest.mark.parametrize("pairs", [False, True])
def test_of_a_long_text_it_is_told_that_it_was_cut(pairs: bool, tmp_path: Path) -> None:
    folder = write_bag_of_words(tmp_path, max_length=6)
    replace(ExportCard.read(folder), pairs=pairs).write(folder)
    classify = load(folder, threads=1)
    assert isinstance(classify, Classifier)
    fits, long = ("good", "bad film"), ("good film", "bad film")
    texts = [fits, long] if pairs else ["good bad film book", "good bad film book film"]
    assert [is_cut for _, is_cut in classify.probabilities_and_cuts(texts)] == [False, True]
    folder = write_bag_of_words(tmp_path, "scores", max_length=6)
    score = load(folder, threads=1)
    assert isinstance(score, Scorer)
    assert score.scores_and_cuts(["good", "good " * 9]) == [(1, False), (4, True)]


def test_what_cannot_be_loaded_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no export\.json"):
        load(tmp_path)
    folder = write_bag_of_words(tmp_path / "export")
    replace(ExportCard.read(folder), format="transformers").write(folder)
    with pytest.raises(UserError, match="open it with transformers"):
        load(folder)
    folder = write_bag_of_words(tmp_path / "export")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read"):
        load(folder)
    (folder / MODEL).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"model\.onnx: cannot be read"):
        load(folder)


def test_nothing_imports_torch_or_transformers(tmp_path: Path) -> None:
    write_bag_of_words(tmp_path)
    program = f"""
        import sys
        from lightpaff.deployment.loading import load
        classify = load({str(tmp_path)!r}, threads=1)
        assert classify("good film")[0].label == "positive"
        print(sorted({{"torch", "transformers", "openvino", "ctranslate2"}} & sys.modules.keys()))
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == "[]"


def test_the_files_work_without_lightpaff(tmp_path: Path) -> None:
    write_bag_of_words(tmp_path)
    program = f"""
        import sys
        import numpy as np
        import onnxruntime
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file({str(tmp_path / "tokenizer.json")!r})
        session = onnxruntime.InferenceSession({str(tmp_path / MODEL)!r})
        encoding = tokenizer.encode("bad film")
        known = {{"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}}
        known["token_type_ids"] = encoding.type_ids
        inputs = {{one.name: np.array([known[one.name]], dtype=np.int64) for one in session.get_inputs()}}
        assert session.run(["logits"], inputs)[0].argmax() == 0
        assert "lightpaff" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=120)
