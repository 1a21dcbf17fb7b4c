"""Evaluation of a fine-tuned model: outputs, metrics, the majority baseline, prediction files.

Letters: B sequences, T tokens, C classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2.batching import padded_width
from ernie2.finetune import cmrc, metrics
from ernie2.finetune.data import Prepared, collate, cut_by_tokens
from ernie2.finetune.decoding import decode
from ernie2.finetune.tagging import Entity, entities_of
from ernie2.finetune.task import FinetuneTask
from ernie2.model import ErnieForFinetuning
from ernie2.tokenizer import Tokenizer


@paddle.no_grad()
def run_model(
    model: ErnieForFinetuning,
    part: Prepared,
    task: FinetuneTask,
    pad_id: int,
    micro_tokens: int,
    precision: str = "fp32",
) -> list[Any]:
    """Head outputs of every sequence, in order, without padding, as float32 arrays (see `decoding.decode`)."""
    model.eval()
    outputs: list[Any] = [None] * len(part.features)
    order = np.argsort(part.lengths, kind="stable")
    for numbers in cut_by_tokens(order, part.lengths, micro_tokens):
        features, positions = [part.features[i] for i in numbers], model.config.max_position_embeddings
        width = padded_width(int(part.lengths[numbers].max()), precision, positions)
        batch = collate(features, task.kind, pad_id, with_targets=False, width=width)
        with autocast(precision):
            logits = model(*model_inputs(batch, task))
        if task.kind == "span":
            start, stop = (side.astype("float32").numpy() for side in logits)
            for row, number in enumerate(numbers):
                length = batch.lengths[row]
                outputs[number] = (start[row, :length], stop[row, :length])
        else:
            rows = logits.astype("float32").numpy()
            for row, number in enumerate(numbers):
                outputs[number] = rows[row, : batch.lengths[row]] if task.kind == "tagging" else rows[row]
    model.train()
    return outputs


def model_inputs(
    batch: Any, task: FinetuneTask
) -> tuple[paddle.Tensor, paddle.Tensor, int, paddle.Tensor | None]:
    """Arguments of `ErnieForFinetuning.forward` for a micro-batch."""
    lengths = paddle.to_tensor(batch.lengths) if batch.padded else None
    return paddle.to_tensor(batch.token_ids), paddle.to_tensor(batch.sentence_ids), task.task_id, lengths


def autocast(precision: str) -> Any:
    """Context of mixed precision; with fp32 it does nothing."""
    dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(precision, "float16")
    return paddle.amp.auto_cast(enable=precision != "fp32", dtype=dtype, level="O1")


def predict(
    model: ErnieForFinetuning,
    part: Prepared,
    task: FinetuneTask,
    tokenizer: Tokenizer,
    micro_tokens: int,
    precision: str,
) -> list[dict[str, Any]]:
    """Predictions for every sample of a split, in order."""
    outputs = run_model(model, part, task, tokenizer.vocab.pad_id, micro_tokens, precision)
    return decode(task, part.split.samples, part.features, outputs)


def score(
    task: FinetuneTask, samples: Sequence[Any], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """The task's metrics, in percent. Samples must have labels."""
    if task.kind == "span":
        values = cmrc.cmrc_scores(
            {record["id"]: record["answer"] for record in predictions}, {s.qid: s.references for s in samples}
        )
    elif task.kind == "tagging":
        found = [
            [Entity(e["type"], e["start"], e["end"]) for e in record["entities"]] for record in predictions
        ]
        values = {"entity_f1": metrics.entity_f1(found, gold_entities(task, samples))}
    elif task.kind == "regression":
        scores, labels = [record["score"] for record in predictions], [sample.label for sample in samples]
        values = {"pearson": metrics.pearson(scores, labels), "spearman": metrics.spearman(scores, labels)}
    else:
        classes = np.array([task.labels.index(record["label"]) for record in predictions])
        positive = task.labels[task.positive_index]
        values = _class_scores(
            task, samples, classes, [record["probabilities"][positive] for record in predictions]
        )
    return {name: round(values[name], 4) for name in task.metrics}


def _class_scores(
    task: FinetuneTask, samples: Sequence[Any], classes: np.ndarray, scores: Sequence[float] | None
) -> dict[str, float]:
    labels = np.array([sample.label for sample in samples])
    values = {
        "accuracy": metrics.accuracy(classes, labels),
        "f1": _f1(task, classes, labels),
        "mcc": metrics.mcc(classes, labels),
    }
    if "mrr" in task.metrics:
        qids, relevant = [sample.qid or sample.text_a for sample in samples], labels == task.positive_index
        values["mrr"] = (
            metrics.random_mrr(qids, relevant) if scores is None else metrics.mrr(qids, scores, relevant)
        )
    return values


def _f1(task: FinetuneTask, classes: np.ndarray, labels: np.ndarray) -> float:
    if len(task.labels) > 2 and task.positive_label is None:
        return metrics.macro_f1(classes, labels, len(task.labels))
    return metrics.f1(classes, labels, task.positive_index)


def gold_entities(task: FinetuneTask, samples: Sequence[Any]) -> list[list[Entity]]:
    """The entities that each tagged sample really has."""
    return [entities_of([task.labels[tag] for tag in sample.tags], sample.tokens.spans) for sample in samples]


MAJORITY_RULE = {
    "classification": "the most frequent class of train (mrr: random order)",
    "regression": "the mean of train for every sample",
    "tagging": "the most frequent type in train of each string that is an entity there, longest match first",
    "span": "the whole passage",
}


def majority(task: FinetuneTask, train: Sequence[Any], samples: Sequence[Any]) -> dict[str, float]:
    """What a rule that looks at no meaning reaches (`MAJORITY_RULE`): the chance level of a task, in percent."""
    if task.kind == "classification":
        most = Counter(sample.label for sample in train).most_common(1)[0][0]
        values = _class_scores(task, samples, np.full(len(samples), most), None)
    elif task.kind == "regression":
        values = {"pearson": 0.0, "spearman": 0.0}  # a constant correlates with nothing
    elif task.kind == "tagging":
        gold = gold_entities(task, samples)
        values = {"entity_f1": metrics.entity_f1(_from_dictionary(task, train, samples), gold)}
    else:
        values = cmrc.cmrc_scores({s.qid: s.context for s in samples}, {s.qid: s.references for s in samples})
    return {name: round(values[name], 4) for name in task.metrics}


def _from_dictionary(task: FinetuneTask, train: Sequence[Any], samples: Sequence[Any]) -> list[list[Entity]]:
    kinds: dict[str, Counter[str]] = {}
    for sample, entities in zip(train, gold_entities(task, train)):
        for entity in entities:
            kinds.setdefault(sample.tokens.text[entity.start : entity.stop], Counter())[entity.type] += 1
    lengths = sorted({len(word) for word in kinds}, reverse=True)
    found = []
    for sample in samples:
        text, here, position = sample.tokens.text, [], 0
        while position < len(text):
            size = next((n for n in lengths if text[position : position + n] in kinds), 0)
            if size:
                kind = kinds[text[position : position + size]].most_common(1)[0][0]
                here.append(Entity(kind, position, position + size))
            position += size or 1
        found.append(here)
    return found


def write_predictions(
    folder: Path, split: str, task: FinetuneTask, predictions: Sequence[dict[str, Any]]
) -> Path:
    """Writes predictions/<split>.jsonl, or .json for span with <split>_nbest.json beside it. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    if task.kind == "span":
        write_json_lines(
            folder / f"{split}_nbest.json", [{record["id"]: record["nbest"] for record in predictions}]
        )
        path = folder / f"{split}.json"
        write_json_lines(path, [{record["id"]: record["answer"] for record in predictions}])
    else:
        path = folder / f"{split}.jsonl"
        write_json_lines(path, predictions)
    return path


def write_json_lines(path: Path, records: Sequence[Any]) -> None:
    """Writes one JSON value a line; the file appears whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(_rounded(record), ensure_ascii=False) + "\n")
    temporary.replace(path)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
