"""The README.md of an export: what it is, what was measured, and how to use it. Imports neither torch nor transformers.

The block between the dashes is what the Hugging Face Hub reads (its "model card metadata").
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from lightpaff.deployment.card import ExportCard, Kind
from lightpaff.deployment.pieces import PIECES
from lightpaff.files import write_whole
from lightpaff.recipe_sections import Task
from lightpaff.runtimes import RUNTIMES, Format, Quantisation, runtime_of

_PIPELINE_TAGS: dict[Kind, str] = {
    "classes": "text-classification",
    "scores": "text-classification",
    "token_classes": "token-classification",
    "spans": "question-answering",
    "next_tokens": "text-generation",
}
"""What an encoder-decoder does is in its task."""
_KINDS: dict[Kind, str] = {
    "classes": "a classifier of texts",
    "scores": "a model that gives a text one number",
    "token_classes": "a tagger, which gives every word a class",
    "spans": "a model that answers questions with parts of a context",
    "next_tokens": "a decoder, which continues texts",
    "target_tokens": "an encoder-decoder, which writes a text for a text",
}
_WEIGHTS: dict[tuple[Format, Quantisation], str] = {
    ("onnx", "none"): "float32",
    ("onnx", "int8"): "8 bits, quantised after training, with a scale for every output of a product (where activations "
    "are large, for every 32 weights of one) and every row of an embedding table",
    ("openvino", "none"): "float32",
    ("openvino", "bf16"): "float16, and are calculated with in bfloat16 where the processor has it",
    ("openvino", "int8"): "8 bits, quantised after training, with a scale for every output of a product and every row "
    "of an embedding table; a head of few classes is float32",
    ("ctranslate2", "none"): "float32",
    ("ctranslate2", "bf16"): "bfloat16",
    ("ctranslate2", "int8"): "8 bits, quantised after training, with a scale for every output of a product and every "
    "row of an embedding table",
    ("transformers", "none"): "float32",
    ("transformers", "bf16"): "bfloat16",
}

_CTRANSLATE2_DECODER = """\
import ctranslate2, tokenizers

generator = ctranslate2.Generator(".")
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
prompt = {start}tokenizer.encode("Once upon a time", add_special_tokens=False).tokens
[result] = generator.generate_batch([prompt], max_length=32)
print(tokenizer.decode(result.sequences_ids[0]))"""

_ONNX_DECODER = """\
import numpy, onnxruntime, tokenizers

session = onnxruntime.InferenceSession("model.onnx")
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
new = {start}tokenizer.encode("Once upon a time", add_special_tokens=False).ids
past = {one.name: numpy.zeros((1, one.shape[1], 0, one.shape[3]), "float32") for one in session.get_inputs()[2:]}
text = list(new)
while len(text) < {longest}:
    logits, *present = session.run(None, {"input_ids": [new], "kept_positions": [len(new) - 1], **past})
    past = dict(zip(past, present))
    new = [int(logits[0, -1].argmax())]
    text += new
print(tokenizer.decode(text))"""

_CTRANSLATE2_WRITER = """\
import ctranslate2, tokenizers

translator = ctranslate2.Translator(".")
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
source = {prefix}tokenizer.encode("A text to read.").tokens
[result] = translator.translate_batch(
    [source],{written} beam_size={beams}, length_penalty={length_penalty}, max_decoding_length={longest}
)
print(tokenizer.decode([tokenizer.token_to_id(token) for token in result.hypotheses[0]]))"""

_CTRANSLATE2_WRITER_OF_PIECES = """\
import json, ctranslate2, sentencepiece

translator = ctranslate2.Translator(".")
pieces = sentencepiece.SentencePieceProcessor(model_file="pieces.model")
with open("pieces.json", encoding="utf-8") as file:
    rules = json.load(file)
source = [*rules["before"], *pieces.encode("A text to read.", out_type=str), *rules["after"]]
[result] = translator.translate_batch(
    [source],{written} beam_size={beams}, length_penalty={length_penalty}, max_decoding_length={longest}
)
text = pieces.decode_pieces([token for token in result.hypotheses[0] if token not in rules["special"]])
print(text.replace("▁", " ").strip())"""

_TRANSFORMERS = """\
from transformers import pipeline

model = pipeline("{task}", model=".")
print(model({text}, truncation=True))"""

_TRANSFORMERS_DECODER = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
prompt = {start}tokenizer("Once upon a time", add_special_tokens=False).input_ids
output = model.generate(torch.tensor([prompt]), max_length={longest})
print(tokenizer.decode(output[0], skip_special_tokens=True))"""

_TRANSFORMERS_TAGGER = """\
from transformers import pipeline

model = pipeline("token-classification", model=".", aggregation_strategy="first")
print(model("A text to read."))"""

_TRANSFORMERS_EXTRACTOR = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForQuestionAnswering.from_pretrained(".")
tokens = tokenizer("Who reads?", "A model reads.", truncation="only_second", return_tensors="pt")
with torch.inference_mode():
    output = model(**tokens)
first, last = int(output.start_logits.argmax()), int(output.end_logits.argmax())
print(tokenizer.decode(tokens.input_ids[0, first : last + 1]))"""

_TRANSFORMERS_WRITER = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForSeq2SeqLM.from_pretrained(".")
source = tokenizer({prefix}"A text to read.", truncation=True, return_tensors="pt")
start = tokenizer.convert_tokens_to_ids("{start}")
output = model.generate(
    **source,
    decoder_start_token_id=start,{written}
    num_beams={beams},
    length_penalty={length_penalty},
    max_new_tokens={longest},
)
print(tokenizer.decode(output[0], skip_special_tokens=True))"""

_WRITTEN = 32
_TRANSFORMERS_OF_TOKENS: dict[Kind, str] = {"token_classes": _TRANSFORMERS_TAGGER, "spans": _TRANSFORMERS_EXTRACTOR}
_DECODERS: dict[Format, tuple[str, str]] = {
    "onnx": (_ONNX_DECODER, "[{}] + "),
    "ctranslate2": (_CTRANSLATE2_DECODER, "[tokenizer.id_to_token({})] + "),
    "transformers": (_TRANSFORMERS_DECODER, "[{}] + "),
}
"""The example, and how it says the token that a document begins with."""
_WRITERS: dict[Format, tuple[str, str, str]] = {
    "ctranslate2": (_CTRANSLATE2_WRITER, '["{}"] + ', ' [["{}"]],'),
    "transformers": (
        _TRANSFORMERS_WRITER,
        '"{}" + ',
        '\n    forced_bos_token_id=tokenizer.convert_tokens_to_ids("{}"),',
    ),
}
"""The example, and how it says the token before the source and the one that is written first."""

_CLEANED = ("classes", "scores", "token_classes", "target_tokens")
"""What was trained on texts as `clean_text` leaves them."""

_LIGHTPAFF = """\
from lightpaff.deployment import loading

model = loading.load(".")
print(model({text}))"""


def usage_example(card: ExportCard) -> str:
    """Python that uses an export from its own directory, with nothing but its runtime where that is short."""
    text = "Once upon a time" if card.kind == "next_tokens" else "A text to read."
    if card.kind == "target_tokens" and card.format in _WRITERS:
        template, prefix, written = _WRITERS[card.format]
        if card.format == "ctranslate2" and card.tokenizer == PIECES:
            template = _CTRANSLATE2_WRITER_OF_PIECES
        return template.format(
            prefix=prefix.format(card.source_prefix) if card.source_prefix else "",
            start=card.decoder_start,
            written=written.format(card.first_written) if card.first_written else "",
            beams=card.beams,
            length_penalty=card.length_penalty,
            longest=card.max_target_length,
        )
    if card.kind == "next_tokens" and card.format in _DECODERS:
        template, start = _DECODERS[card.format]
        told = "" if card.start is None else start.format(card.start)
        return template.replace("{start}", told).replace("{longest}", str(min(_WRITTEN, card.max_length)))
    if card.format == "transformers":
        if card.kind in _TRANSFORMERS_OF_TOKENS:
            return _TRANSFORMERS_OF_TOKENS[card.kind]
        asked = '{"text": "A text to read.", "text_pair": "Another beside it."}' if card.pairs else f'"{text}"'
        return _TRANSFORMERS.format(task=_PIPELINE_TAGS[card.kind], text=asked)
    if card.kind == "spans":
        return _LIGHTPAFF.format(text='("Who reads?", "A model reads.")')
    return _LIGHTPAFF.format(text='("A text to read.", "Another beside it.")' if card.pairs else f'"{text}"')


def write_model_card(
    destination: Path,
    card: ExportCard,
    facts: dict[str, str],
    table_markdown: str,
    example: str,
    *,
    task: Task,
    stages: Sequence[str],
) -> None:
    """Write README.md into an export.

    Args:
        destination: the directory of the export.
        card: what is in it.
        facts: lines of a table about the model, such as its teacher, parameters and task; `name` is the title.
        table_markdown: what was measured, as a table in Markdown; empty where nothing was.
        example: Python that uses it; `usage_example` makes one.
        task: that it was trained on.
        stages: of its training in which it heard the teacher, such as pre-training.
    """
    title = facts.get("name", "A student of LightPAFF")
    parts = [
        f"---\n{_front_matter(card, task, stages)}---",
        f"# {title}",
        f"This is {_KINDS[card.kind]}, {_tell_teaching(stages)}. The files are "
        f"{RUNTIMES[runtime_of(card.format)].files}; the weights are {_WEIGHTS[card.format, card.quantisation]}.",
        _facts_table(card, facts),
        *(["## Measured", table_markdown.strip()] if table_markdown.strip() else []),
        "## Use",
        f"```python\n{example.strip()}\n```",
    ]
    write_whole(destination / "README.md", "\n\n".join(parts) + "\n")


def _tell_teaching(stages: Sequence[str]) -> str:
    if not stages:
        return "trained by LightPAFF without a teacher's predictions"
    heard = " and in ".join(stages)
    return f"distilled by LightPAFF: a small student that learnt from a large teacher's predictions in {heard}"


def _pipeline_tag(kind: Kind, task: Task) -> str:
    if kind != "target_tokens":
        return _PIPELINE_TAGS[kind]
    if task.languages is not None and task.languages.source != task.languages.target:
        return "translation"
    is_summary = any(metric.startswith("rouge") for metric in task.metric_names)
    return "summarization" if is_summary else "text2text-generation"


def _front_matter(card: ExportCard, task: Task, stages: Sequence[str]) -> str:
    content = {
        "library_name": card.format,
        "pipeline_tag": _pipeline_tag(card.kind, task),
        "tags": [
            "lightpaff",
            *(["distillation"] if stages else []),
            *([] if card.quantisation == "none" else [card.quantisation]),
        ],
    }
    return yaml.safe_dump(content, sort_keys=False)


def _facts_table(card: ExportCard, facts: dict[str, str]) -> str:
    rows = {name: value for name, value in facts.items() if name != "name"}
    rows["texts are cut to"] = f"{card.max_length} tokens"
    if card.kind in _CLEANED:
        rows["before they are tokenised"] = (
            "texts are brought into Unicode's form NFC, with single spaces between words"
        )
    if card.labels:
        rows["labels"] = ", ".join(card.labels)
    if card.kind == "target_tokens":
        rows["longest output"] = f"{card.max_target_length} tokens"
        rows["search"] = f"{card.beams} beams, length penalty {card.length_penalty}" if card.beams > 1 else "greedy"
        rows["decoder starts with"] = f"`{card.decoder_start}`"
    if card.first_written:
        rows["writes first"] = f"`{card.first_written}`"
    if card.source_prefix:
        rows["before every source"] = f"`{card.source_prefix}`"
    rows["sha256 of the student's weights"] = f"`{card.source_sha256}`"
    rows |= {f"made with {name}": version for name, version in card.made_with.items()}
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
