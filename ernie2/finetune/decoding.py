"""Head outputs -> predictions, the records that `predict` writes and the metrics read. No tensors here.

Letters: C classes, T tokens of a sequence, W tokens of its window, L longest answer in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.disk import write_json_lines
from ernie2.finetune.features import Feature, source_of_piece
from ernie2.finetune.readers import TaggedSample
from ernie2.finetune.squad import QuestionSample
from ernie2.finetune.tagging import entities_of
from ernie2.finetune.task import FinetuneTask
from ernie2.strict import ConfigError


def decode(
    task: FinetuneTask, samples: Sequence[Any], features: Sequence[Feature], outputs: Sequence[Any]
) -> list[dict[str, Any]]:
    """Predictions, one for each sample, in their order.

    Args:
        task: kind and labels.
        samples: what was read.
        features: their sequences.
        outputs: head outputs of each sequence, without padding: (C) classification, () regression,
            (T, C) tagging, a pair of (T) for span.

    Returns:
        classification: {"label", "probabilities": {label: p}}; regression: {"score"}; tagging: {"text",
        "tags" (one for each character), "entities": [{"type", "start", "end", "text"}]}; each with "line",
        the sample's line in its file, and "id" where the file has such a column. span: {"id", "answer",
        "nbest": [{"text", "probability", "start", "end"}]}. Offsets are characters, the end is exclusive.

    Raises:
        ConfigError: an output that is not finite; names the sample."""
    groups: list[list[tuple[Feature, Any]]] = [[] for _ in samples]
    for feature, output in zip(features, outputs, strict=True):
        if not np.isfinite(output).all():
            raise ConfigError(
                f"{samples[feature.sample].where}: the model's output is not a finite number: its weights "
                f"have diverged or are damaged; fine-tune it again (a lower peak_lr)"
            )
        groups[feature.sample].append((feature, output))
    if task.kind == "span":
        return [_answer_prediction(task, sample, group) for sample, group in zip(samples, groups)]
    make = {"tagging": _tag_prediction, "regression": _number_prediction}.get(task.kind, _class_prediction)
    ids = [{} if sample.id is None else {"id": sample.id} for sample in samples]
    return [
        key | {"line": sample.line} | make(task, sample, group)
        for key, sample, group in zip(ids, samples, groups)
    ]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _number_prediction(
    task: FinetuneTask, sample: Any, group: Sequence[tuple[Feature, Any]]
) -> dict[str, Any]:
    return {"score": float(group[0][1])}


def _class_prediction(
    task: FinetuneTask, sample: Any, group: Sequence[tuple[Feature, Any]]
) -> dict[str, Any]:
    probabilities = softmax(group[0][1])
    return {
        "label": task.labels[int(probabilities.argmax())],
        "probabilities": {label: float(p) for label, p in zip(task.labels, probabilities, strict=True)},
    }


def _tag_prediction(
    task: FinetuneTask, sample: TaggedSample, windows: Sequence[tuple[Feature, np.ndarray]]
) -> dict[str, Any]:
    pieces: list[str] = []
    starts = []
    for feature, logits in windows:  # windows are in order, and every token belongs to one of them
        best = np.asarray(logits)[feature.offset : feature.offset + len(feature.starts)].argmax(axis=-1)
        pieces += [task.labels[i] for i in best[feature.belongs]]
        starts.append(feature.starts[feature.belongs])
    text, spans = sample.tokens.text, sample.tokens.spans
    by_token = [pieces[first] for first in source_of_piece(spans, np.concatenate(starts))[1]]
    entities = entities_of(by_token, spans)
    tags = ["O"] * len(text)
    for entity in entities:
        inside = f"I-{entity.type}" if f"I-{entity.type}" in task.labels else "O"
        tags[entity.start : entity.stop] = [f"B-{entity.type}"] + [inside] * (entity.stop - entity.start - 1)
    found = [
        {"type": e.type, "start": e.start, "end": e.stop, "text": text[e.start : e.stop]} for e in entities
    ]
    if (given := sample.tokens.given) is None:
        return {"text": text, "tags": tags, "entities": found}
    rest = iter(by_token)
    return {
        "text": text,
        "tokens": given,
        "tags": [next(rest) if token else "O" for token in given],
        "entities": found,
    }


def best_spans(
    start: np.ndarray, stop: np.ndarray, allowed: np.ndarray, longest: int, count: int
) -> list[tuple[float, int, int]]:
    """The best answer spans of one window, exactly (all starts and ends are tried).

    Args:
        start, stop: logits (W) of the answer's first and last token.
        allowed: bool (W): an answer may start here.
        longest: L.
        count: spans wanted.

    Returns:
        (score, first token, last token), best first; the score is the sum of the two logits."""
    if not len(start) or not allowed.any():
        return []
    longest = min(longest, len(start))
    padded = np.concatenate([np.asarray(stop, np.float64), np.full(longest - 1, -np.inf)])
    ends = np.lib.stride_tricks.sliding_window_view(
        padded, longest
    )  # (W, L): logit of an answer of 1, 2, ... tokens
    scores = (np.where(allowed, np.asarray(start, np.float64), -np.inf)[:, None] + ends).ravel()
    count = min(count, len(scores))
    chosen = np.argpartition(-scores, count - 1)[:count]
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return [
        (float(scores[i]), int(i // longest), int(i // longest + i % longest))
        for i in chosen
        if scores[i] > -np.inf
    ]


def _answer_prediction(
    task: FinetuneTask,
    sample: QuestionSample,
    windows: Sequence[tuple[Feature, tuple[np.ndarray, np.ndarray]]],
) -> dict[str, Any]:
    candidates = []
    for feature, sides in windows:
        inside = slice(feature.offset, feature.offset + len(feature.starts))
        start, stop = (np.asarray(side)[inside] for side in sides)
        spans = best_spans(start, stop, feature.belongs, task.max_answer_len, task.n_best)
        candidates += [(score, int(feature.starts[a]), int(feature.stops[b])) for score, a, b in spans]
    # An answer's start belongs to one window only, so the same span cannot come twice.
    candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: task.n_best]
    if not candidates:
        return {"id": sample.qid, "answer": "", "nbest": []}
    probabilities = softmax(np.array([score for score, _, _ in candidates]))
    nbest = [
        {"text": sample.context[first:last], "probability": float(p), "start": first, "end": last}
        for p, (_, first, last) in zip(probabilities, candidates)
    ]
    return {"id": sample.qid, "answer": nbest[0]["text"], "nbest": nbest}


def write_predictions(
    task: FinetuneTask, records: Sequence[dict[str, Any]], path: Path, nbest: Path | None
) -> None:
    """Writes what `decode` made: a record a line; of span one {question id: answer}, and the n-best."""
    lines = [{record["id"]: record["answer"] for record in records}] if task.kind == "span" else records
    if task.kind == "span" and nbest is not None:
        write_json_lines(nbest, [_rounded({record["id"]: record["nbest"] for record in records})])
    write_json_lines(path, map(_rounded, lines))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
