"""Head outputs -> predictions, the records that `predict` writes and the metrics read. No tensors here.

Letters: C classes, T tokens of a sequence, W tokens of its window, L longest answer in tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ernie2.disk import write_json_lines
from ernie2.finetune.features import Feature, source_of_piece
from ernie2.finetune.readers import TaggedSample
from ernie2.finetune.squad import QuestionSample
from ernie2.finetune.tagging import entities_of
from ernie2.finetune.task import FinetuneTask
from ernie2.strict import ConfigError

Windows = Sequence[tuple[Feature, Any]]  # the sequences of a sample with their outputs


def decode(
    task: FinetuneTask, samples: Sequence[Any], features: Sequence[Feature], outputs: Sequence[Any]
) -> list[dict[str, Any]]:
    """Predictions, one for each sample, in their order.

    Args:
        task: kind and labels.
        samples: what was read.
        features: their sequences.
        outputs: head outputs of each sequence, without padding: (C) classification, () regression,
            (T, C) tagging, (2, T) for span.

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
        return [_answer(task, sample, group) for sample, group in zip(samples, groups)]
    records = []
    for sample, group in zip(samples, groups):
        record = {"line": sample.line} if sample.id is None else {"id": sample.id, "line": sample.line}
        if task.kind == "tagging":
            record |= _tags(task, sample, group)
        elif task.kind == "regression":
            record["score"] = float(group[0][1])
        else:
            probabilities = softmax(np.asarray(group[0][1], np.float64)).tolist()
            record["label"] = task.labels[int(np.argmax(probabilities))]
            record["probabilities"] = dict(zip(task.labels, probabilities, strict=True))
        records.append(record)
    return records


def _tags(task: FinetuneTask, sample: TaggedSample, windows: Windows) -> dict[str, Any]:
    pieces: list[int] = []
    starts = []
    for feature, logits in windows:  # windows are in order, and every token belongs to one of them
        best = np.asarray(logits)[feature.offset : feature.offset + len(feature.starts)].argmax(axis=-1)
        pieces += best[feature.belongs].tolist()
        starts.append(feature.starts[feature.belongs])
    text, spans, given = sample.tokens.text, sample.tokens.spans, sample.tokens.given
    by_token = [task.labels[pieces[first]] for first in source_of_piece(spans, np.concatenate(starts))[1]]
    entities = entities_of(by_token, spans)
    record: dict[str, Any] = {"text": text}
    if given is None:
        tags = ["O"] * len(text)
        for entity in entities:
            inside = f"I-{entity.type}" if f"I-{entity.type}" in task.labels else "O"
            tags[entity.start : entity.stop] = [inside] * (entity.stop - entity.start)
            tags[entity.start] = f"B-{entity.type}"
    else:
        rest = iter(by_token)
        record["tokens"], tags = given, [next(rest) if token else "O" for token in given]
    found = [{"type": kind, "start": a, "end": b, "text": text[a:b]} for kind, a, b in entities]
    return record | {"tags": tags, "entities": found}


def _answer(task: FinetuneTask, sample: QuestionSample, windows: Windows) -> dict[str, Any]:
    candidates = []
    for feature, sides in windows:
        inside = slice(feature.offset, feature.offset + len(feature.starts))
        start, stop = (np.asarray(side)[inside] for side in sides)
        spans = best_spans(start, stop, feature.belongs, task.max_answer_len, task.n_best)
        candidates += [(score, int(feature.starts[a]), int(feature.stops[b])) for score, a, b in spans]
    # An answer's start belongs to one window only, so the same span cannot come twice.
    candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: task.n_best]
    probabilities = softmax(np.array([score for score, _, _ in candidates])) if candidates else ()
    nbest = [
        {"text": sample.context[first:last], "probability": float(p), "start": first, "end": last}
        for p, (_, first, last) in zip(probabilities, candidates)
    ]
    return {"id": sample.qid, "answer": nbest[0]["text"] if nbest else "", "nbest": nbest}


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
    if not allowed.any():
        return []
    longest = min(longest, len(start))
    after = np.concatenate([np.asarray(stop, np.float64), np.full(longest - 1, -np.inf)])
    ends = np.lib.stride_tricks.sliding_window_view(after, longest)  # (W, L): of answers of 1, 2, ... tokens
    scores = (np.where(allowed, np.asarray(start, np.float64), -np.inf)[:, None] + ends).ravel()
    chosen = np.argpartition(-scores, min(count, len(scores)) - 1)[:count]
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    chosen = chosen[scores[chosen] > -np.inf]
    firsts, lengths = np.divmod(chosen, longest)
    return list(zip(scores[chosen].tolist(), firsts.tolist(), (firsts + lengths).tolist()))


def write_predictions(
    task: FinetuneTask, records: Sequence[dict[str, Any]], path: Path, nbest: Path | None
) -> None:
    """Writes what `decode` made: a record a line; of span one {question id: answer}, and the n-best."""
    if task.kind == "span" and nbest is not None:
        write_json_lines(nbest, [_rounded({record["id"]: record["nbest"] for record in records})])
    lines = [{record["id"]: record["answer"] for record in records}] if task.kind == "span" else records
    write_json_lines(path, map(_rounded, lines))


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(record), parse_float=lambda number: round(float(number), 6))
