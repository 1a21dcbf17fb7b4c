"""Head outputs -> predictions, the records that `predict` writes and the metrics read. No tensors here.

Letters: C classes, T tokens of a sequence, W tokens of its window, L longest answer in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ernie2.features import Feature, piece_of_source
from ernie2.finetune_task import FinetuneTask
from ernie2.readers import QuestionSample, TaggedSample
from ernie2.tagging import TaggedText, entities_of
from ernie2.tokenizer import Tokenizer


def decode(
    task: FinetuneTask,
    samples: Sequence[Any],
    features: Sequence[Feature],
    outputs: Sequence[Any],
    tokenizer: Tokenizer,
) -> list[dict[str, Any]]:
    """Predictions, one for each sample, in their order.

    Args:
        task: kind and labels.
        samples: what was read.
        features: their sequences.
        outputs: head outputs of each sequence, without padding: (C) classification, () regression, (T, C) tagging, a
        pair of
            (T) for span.
        tokenizer: the one the sequences were made with (tagging aligns source tokens with pieces again).

    Returns:
        classification: {"label", "probabilities": {label: p}}; regression: {"score"}; tagging: {"text", "tags" (one
        for each character), "entities": [{"type", "start", "end", "text"}]}; span: {"id", "answer", "nbest": [{"text",
        "probability", "start", "end"}]}. Offsets are characters, the end is exclusive.
    """
    if task.kind == "classification":
        return [_class_prediction(task.labels, logits) for logits in outputs]
    if task.kind == "regression":
        return [{"score": float(score)} for score in outputs]
    groups: list[list[int]] = [[] for _ in samples]
    for number, feature in enumerate(features):
        groups[feature.sample].append(number)
    if task.kind == "tagging":
        return [
            _tag_prediction(task, sample, [(features[i], outputs[i]) for i in group], tokenizer)
            for sample, group in zip(samples, groups)
        ]
    return [
        _answer_prediction(task, sample, [(features[i], outputs[i]) for i in group])
        for sample, group in zip(samples, groups)
    ]


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


def source_tags(
    task: FinetuneTask, tokens: TaggedText, pieces: Sequence[str], starts: np.ndarray, stops: np.ndarray
) -> list[str]:
    """Tags of source tokens from tags of word pieces.

    The first source token of a piece takes its tag, further ones continue it. One that no piece covers (white space)
    continues an entity that goes on behind it, else it is O.
    """
    piece, leads = piece_of_source(tokens.spans, starts, stops)
    tags = ["" if p < 0 else pieces[p] if lead else _inside(task, pieces[p]) for p, lead in zip(piece, leads)]
    following = "O"
    for i in range(len(tags) - 1, -1, -1):
        if tags[i]:
            following = tags[i]
        else:
            before = next((tag for tag in reversed(tags[:i]) if tag), "O")
            tags[i] = following if following.startswith("I-") and before[2:] == following[2:] else "O"
    return tags


def _inside(task: FinetuneTask, tag: str) -> str:
    return f"I-{tag[2:]}" if f"I-{tag[2:]}" in task.labels else "O"


def _tag_prediction(
    task: FinetuneTask, sample: TaggedSample, windows: Sequence[tuple[Feature, np.ndarray]], tokenizer: Tokenizer
) -> dict[str, Any]:
    pieces: list[str] = []
    starts, stops = [], []
    for feature, logits in windows:  # windows are in order, and every token belongs to one of them
        best = np.asarray(logits)[feature.offset : feature.offset + len(feature.starts)].argmax(axis=-1)
        pieces += [task.labels[i] for i in best[feature.belongs]]
        starts.append(feature.starts[feature.belongs])
        stops.append(feature.stops[feature.belongs])
    text, spans = sample.tokens.text, sample.tokens.spans
    tags = source_tags(task, sample.tokens, pieces, np.concatenate(starts), np.concatenate(stops))
    entities = entities_of(tags, spans)
    by_character = ["O"] * len(text)
    for entity in entities:
        inside = _inside(task, f"I-{entity.type}")
        by_character[entity.start : entity.stop] = [f"B-{entity.type}"] + [inside] * (entity.stop - entity.start - 1)
    return {
        "text": text,
        "tags": by_character,
        "entities": [
            {"type": e.type, "start": e.start, "end": e.stop, "text": text[e.start : e.stop]} for e in entities
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
    ends = np.lib.stride_tricks.sliding_window_view(padded, longest)  # (W, L): logit of an answer of 1, 2, ... tokens
    scores = (np.where(allowed, np.asarray(start, np.float64), -np.inf)[:, None] + ends).ravel()
    count = min(count, len(scores))
    chosen = np.argpartition(-scores, count - 1)[:count]
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return [
        (float(scores[i]), int(i // longest), int(i // longest + i % longest)) for i in chosen if scores[i] > -np.inf
    ]


def _answer_prediction(
    task: FinetuneTask, sample: QuestionSample, windows: Sequence[tuple[Feature, tuple[np.ndarray, np.ndarray]]]
) -> dict[str, Any]:
    candidates = []
    for feature, (start, stop) in windows:
        inside = slice(feature.offset, feature.offset + len(feature.starts))
        for score, first, last in best_spans(
            np.asarray(start)[inside], np.asarray(stop)[inside], feature.belongs, task.max_answer_len, task.n_best
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
