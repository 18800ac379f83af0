"""The service that everybody writes first: FastAPI around a transformers model. `serving.py` starts it.

uvicorn benchmarks.serving_plain:app        # with PLAIN_MODEL a directory, PLAIN_KIND classes or next_tokens
"""

import os
from typing import Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

app = FastAPI()
folder, kind = os.environ["PLAIN_MODEL"], os.environ["PLAIN_KIND"]
tokenizer = AutoTokenizer.from_pretrained(folder)
auto = {"classes": AutoModelForSequenceClassification, "next_tokens": AutoModelForCausalLM}[kind]
model: Any = auto.from_pretrained(folder).eval()


class Texts(BaseModel):
    """What is asked."""

    inputs: list[str] = []
    prompt: str = ""
    max_tokens: int = 16


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/answers")
def answers(texts: Texts) -> dict[str, Any]:
    encoded = tokenizer(texts.inputs, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        rows = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits.softmax(1)
    return {"answers": [{"label": int(row.argmax()), "probability": float(row.max())} for row in rows]}


@app.post("/v1/completions")
def completions(texts: Texts) -> dict[str, Any]:
    encoded = tokenizer([texts.prompt], return_tensors="pt")
    tokens = texts.max_tokens
    with torch.inference_mode():
        written = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=1,
        )
    return {"choices": [{"text": tokenizer.decode(written[0, encoded["input_ids"].shape[1] :])}]}
