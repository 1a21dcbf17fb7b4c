"""Synthetic fine-tuning data of every kind that a model of two layers learns in seconds, and checkpoints for
it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ernie2.checkpoint import save_model
from ernie2.encoder import EncoderConfig
from ernie2.model import ErnieForFinetuning, initialise
from ernie2.tokenizer import SPECIAL_TOKENS

CHARACTERS = "张王李赵三四五六北上京海广州好坏书山水人在去来说的是谁哪里。？，"
FILLER = "书山水人在去来说的"
SETTINGS = [
    "eval_every=null",
    "peak_lr=0.005",
    "batch_size=16",
    "max_seq_len=32",
    "log_every=1",
    "head_dropout=0.0",
]
CHECK = {"classification": "chnsenticorp", "regression": "stsb", "tagging": "msra_ner", "span": "cmrc2018"}
"""A shipped task of each kind."""


def write_checkpoint(
    folder: Path, hidden: int = 32, layers: int = 2, positions: int = 64, drop: str | None = None
) -> Path:
    """A checkpoint of a tiny encoder with random weights."""
    vocab = folder.parent / f"{folder.name}_vocab.txt"
    vocab.write_text("\n".join([*SPECIAL_TOKENS, *CHARACTERS]) + "\n", encoding="utf-8")
    config = EncoderConfig(
        len(SPECIAL_TOKENS) + len(CHARACTERS), hidden, layers, 2, 2 * hidden, "relu", 0.0, 0.0, positions
    )
    model = ErnieForFinetuning(config, "classification", 5)
    initialise(model, 0.1, 7)
    save_model(folder, model, config, vocab)
    return folder


def rows_of(kind: str, count: int, seed: int) -> list:
    """Samples: TSV rows, or (context, answer, start) for span."""
    rng = np.random.default_rng(seed)

    def some(characters: str, low: int, high: int) -> str:
        return "".join(rng.choice(list(characters), rng.integers(low, high)))

    rows = []
    for _ in range(count):
        left, right = some(FILLER, 1, 8), some(FILLER, 1, 8)
        if kind == "classification":
            label = int(rng.integers(2))
            rows.append(f"{label}\t{left}{'坏好'[label]}{right}")
        elif kind == "regression":
            number = int(rng.integers(5))
            rows.append(f"{'好' * number}{'坏' * (4 - number)}\t{right}\t{number}")
        elif kind == "tagging":
            name, place = (
                some("张王李赵", 1, 2) + some("三四五六", 1, 2),
                ["北京", "上海", "广州"][rng.integers(3)],
            )
            text = left + name + right + place
            tags = ["O"] * len(left) + ["B-PER", "I-PER"] + ["O"] * len(right) + ["B-LOC", "I-LOC"]
            rows.append("\x02".join(text) + "\t" + "\x02".join(tags))
        else:
            place = ["北京", "上海", "广州"][rng.integers(3)]
            rows.append((left + place + right, place, len(left)))
    return rows


HEADERS = {
    "classification": "label\ttext_a",
    "regression": "text_a\ttext_b\tlabel",
    "tagging": "text_a\tlabel",
}


def write_split(path: Path, kind: str, count: int, seed: int) -> Path:
    """One data file in the task's format."""
    rows = rows_of(kind, count, seed)
    if kind == "span":
        questions = [
            {
                "context": context,
                "qas": [
                    {
                        "id": f"q{i}",
                        "question": "在哪里？",
                        "answers": [{"text": answer, "answer_start": start}],
                    }
                ],
            }
            for i, (context, answer, start) in enumerate(rows)
        ]
        path = path.with_suffix(".json")
        path.write_text(
            json.dumps({"data": [{"paragraphs": questions}]}, ensure_ascii=False), encoding="utf-8"
        )
    else:
        path.write_text("\n".join([HEADERS[kind], *rows]) + "\n", encoding="utf-8")
    return path


def write_data(folder: Path, kind: str, train: int = 160, dev: int = 32, test: int = 32) -> Path:
    """A data_dir with train, dev and test."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": train, "dev": dev, "test": test}.items()):
        if count:
            write_split(folder / f"{name}.tsv", kind, count, seed)
    return folder
