"""Head outputs -> predictions, the records that `predict` writes and the metrics read. No tensors here.

Letters: C classes, T tokens of a sequence, W tokens of its window, L longest answer in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
        outputs: head outputs of each sequence, without padding: (C) classification, () regression, (T, C) tagging, a
            pair of (T) for span.

    Returns:
        classification: {"label", "probabilities": {label: p}}; regression: {"score"}; tagging: {"text", "tags" (one
        for each character), "entities": [{"type", "start", "end", "text"}]}; each with "line", the
        sample's line in its file, and "id" where the file has such a column. span: {"id", "answer", "nbest":
        [{"text", "probability", "start", "end"}]}. Offsets are characters, the end is exclusive.

    Raises:
        ConfigError: an output that is not finite; names the sample.
    """
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
    records = []
    for sample, group in zip(samples, groups):
        key = {"line": sample.line} if sample.id is None else {"id": sample.id, "line": sample.line}
        if task.kind == "tagging":
            records.append(key | _tag_prediction(task, sample, group))
        elif task.kind == "regression":
            records.append(key | {"score": float(group[0][1])})
        else:
            records.append(key | _class_prediction(task.labels, group[0][1]))
    return records


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _class_prediction(labels: Sequence[str], logits: np.ndarray) -> dict[str, Any]:
    probabilities = softmax(logits)
    return {
        "label": labels[int(probabilities.argmax())],
        "probabilities": {label: float(p) for label, p in zip(labels, probabilities, strict=True)},
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
    tags = [pieces[first] for first in source_of_piece(spans, np.concatenate(starts))[1]]
    entities = entities_of(tags, spans)
    by_character = ["O"] * len(text)
    for entity in entities:
        inside = f"I-{entity.type}" if f"I-{entity.type}" in task.labels else "O"
        by_character[entity.start : entity.stop] = [f"B-{entity.type}"] + [inside] * (
            entity.stop - entity.start - 1
        )
    return {
        "text": text,
        "tags": by_character,
        "entities": [
            {"type": e.type, "start": e.start, "end": e.stop, "text": text[e.start : e.stop]}
            for e in entities
        ],
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
        (score, first token, last token), best first; the score is the sum of the two logits.
    """
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
    for feature, (start, stop) in windows:
        inside = slice(feature.offset, feature.offset + len(feature.starts))
        for score, first, last in best_spans(
            np.asarray(start)[inside],
            np.asarray(stop)[inside],
            feature.belongs,
            task.max_answer_len,
            task.n_best,
        ):
            candidates.append((score, int(feature.starts[first]), int(feature.stops[last])))
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
