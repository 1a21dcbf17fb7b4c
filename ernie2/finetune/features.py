"""Samples -> token sequences with their targets; head outputs -> predictions. No tensors here.

Letters: T tokens of a sequence, W tokens of the text's window in it, S source tokens of a tagged text, C
classes, L longest answer in tokens.

A sequence is `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`. Classification and regression cut what is too long
from the longer text, and count it. Tagging and span never lose text: they read it in overlapping windows, and
each token *belongs* to the window in which it has most context on its shorter side; only there is it
labelled, predicted, or the start of an answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, softmax

from ernie2.disk import write_json_lines
from ernie2.finetune.readers import QuestionSample, TaggedSample, TextSample
from ernie2.finetune.tagging import TaggedText, entities_of
from ernie2.finetune.task import FinetuneTask
from ernie2.shards import IGNORED
from ernie2.strict import ConfigError
from ernie2.tokenizer import Encoding, Tokenizer


@dataclass(slots=True)
class Feature:
    """One sequence of a sample."""

    sample: int  # index of the sample it comes from
    token_ids: np.ndarray  # int32 (T)
    sentence_ids: np.ndarray  # int8 (T): 0 for the first text, 1 for the second
    target: Any = None
    """Class index, number, int16 (T) tags or -100, or (first, last) token of an answer; None: unknown."""
    offset: int = 0  # position in the sequence of the window's first token
    starts: np.ndarray | None = None  # int32 (W): character offset at which each token of the window starts
    stops: np.ndarray | None = None  # and ends
    belongs: np.ndarray | None = None  # bool (W): the token belongs to this window


def build_features(
    samples: Sequence[Any],
    tokenizer: Tokenizer,
    task: FinetuneTask,
    counts: Counter[str],
    training: bool = False,
) -> list[Feature]:
    """Turns samples into sequences; what is cut off or left out is added to `counts`, by reason.

    In training questions without a usable answer are left out."""
    maker = _Maker(tokenizer, task, counts)
    if task.kind == "span":
        return list(maker.questions(samples, training))
    features = list(maker.tagged(samples) if task.kind == "tagging" else maker.texts(samples))
    if task.multi_label:
        for feature in features:
            if feature.target is not None:
                feature.target = np.isin(np.arange(len(task.labels)), feature.target).astype(np.float32)
    return features


def mean_loss(task: FinetuneTask, features: Sequence[Feature], outputs: Sequence[Any]) -> float:
    """The loss that training lowers, without class weights: the mean over the targets of all sequences."""
    total, count = 0.0, 0
    for feature, output in zip(features, outputs, strict=True):
        output, target = np.asarray(output, np.float64), feature.target
        if task.kind == "regression":
            losses = [(output - target) ** 2]
        elif task.multi_label:
            losses = [np.mean(np.logaddexp(0, output) - output * target)]
        elif task.kind == "span":
            losses = [-np.mean([log_softmax(side)[place] for side, place in zip(output, target)])]
        elif task.kind == "tagging":
            known = np.flatnonzero(target != IGNORED)
            losses = -log_softmax(output, axis=-1)[known, target[known]]
        else:
            losses = [-log_softmax(output)[target]]
        total, count = total + float(np.sum(losses)), count + len(losses)
    return total / max(count, 1)


def pair_lengths(a: int, b: int, room: int) -> tuple[int, int]:
    """Tokens kept of texts of `a` and `b` tokens in `room`: the longer loses first, on a tie the second."""
    if a + b <= room:
        return a, b
    b = min(b, max(room - a, room // 2))
    return room - b, b


def windows(tokens: int, width: int, stride: int) -> list[tuple[int, int]]:
    """Token ranges [start, stop) of overlapping windows that cover a text; one window where it fits."""
    stride = min(stride, width)
    last = max(0, -(-(tokens - width) // stride))
    return [(i * stride, min(i * stride + width, tokens)) for i in range(last + 1)]


def belonging(ranges: Sequence[tuple[int, int]], tokens: int) -> list[np.ndarray]:
    """For each window, bool (W): its tokens with most context here: on the shorter side, and a hundredth of
    the window's length, as in Baidu's code (ties: earlier)."""
    context = np.full((len(ranges), tokens), -1.0)
    for row, (start, stop) in zip(context, ranges):
        inside = np.arange(stop - start)
        row[start:stop] = np.minimum(inside, inside[::-1]) + 0.01 * (stop - start)
    owner = context.argmax(axis=0)
    return [owner[start:stop] == number for number, (start, stop) in enumerate(ranges)]


def encode_tokens(tokenizer: Tokenizer, tokens: TaggedText) -> Encoding:
    """Pieces of a text whose source tokens are tokenised each by itself; one that has no piece is [UNK].

    So each source token has at least one piece, and no piece belongs to two."""
    bounds = np.asarray(tokens.spans, np.int32).reshape(-1, 2)
    # A line feed is a space wherever it stands, so the tokens cannot touch each other.
    joined = tokenizer.encode("\n".join(tokens.text[start:stop] for start, stop in tokens.spans))
    lengths = bounds[:, 1] - bounds[:, 0] + 1
    places = np.cumsum(lengths) - lengths  # of each source token in the joined text
    owner = np.searchsorted(places, joined.starts, side="right") - 1
    shift = (bounds[:, 0] - places)[owner].astype(np.int32)
    bare = np.setdiff1d(np.arange(len(bounds)), owner)
    at = np.searchsorted(owner, bare)
    return Encoding(
        np.insert(joined.ids, at, tokenizer.vocab.unk_id),
        np.insert(joined.starts + shift, at, bounds[bare, 0]),
        np.insert(joined.ends + shift, at, bounds[bare, 1]),
    )


def source_of_piece(spans: Sequence[tuple[int, int]], starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The source token of each piece (P), by the characters at which pieces start; the first piece of each
    source token (S)."""
    owner = np.searchsorted(np.array([start for start, _ in spans], np.int64), starts, side="right") - 1
    return owner, np.searchsorted(owner, np.arange(len(spans)))


@dataclass
class _Maker:
    """Makes sequences, and counts what it cuts off or leaves out."""

    tokenizer: Tokenizer
    task: FinetuneTask
    counts: Counter[str]

    def texts(self, samples: Sequence[TextSample]) -> Iterable[Feature]:
        first = self.tokenizer.encode_many([sample.text_a for sample in samples])
        second = self.tokenizer.encode_many([sample.text_b or "" for sample in samples])
        for number, sample in enumerate(samples):
            a, b = first[number].ids, second[number].ids
            paired = sample.text_b is not None
            kept_a, kept_b = pair_lengths(len(a), len(b), self.task.max_seq_len - 2 - paired)
            self.counts["samples cut to max_seq_len"] += kept_a + kept_b < len(a) + len(b)
            self.counts["samples without text"] += len(a) + len(b) == 0
            yield Feature(number, *self._sequence(a[:kept_a], b[:kept_b] if paired else None), sample.label)

    def tagged(self, samples: Sequence[TaggedSample]) -> Iterable[Feature]:
        # Further pieces of a source token continue its entity, as in the released code.
        index = {name: i for i, name in enumerate(self.task.labels)}
        further = [index.get(f"I-{n[2:]}", IGNORED) if n[:2] == "B-" else i for n, i in index.items()]
        for number, sample in enumerate(samples):
            text = encode_tokens(self.tokenizer, sample.tokens)
            if sample.tags is not None:
                owner, first = source_of_piece(sample.tokens.spans, text.starts)
                tags = np.asarray(sample.tags, np.int16)
                labels = np.array(further, np.int16)[tags][owner]
                labels[first] = tags
            for feature, window in self._windowed(number, None, text):
                if sample.tags is not None:
                    feature.target = np.full(len(feature.token_ids), IGNORED, np.int16)
                    feature.target[1:-1] = np.where(feature.belongs, labels[window], IGNORED)
                yield feature

    def questions(self, samples: Sequence[QuestionSample], training: bool) -> Iterable[Feature]:
        context, encoded = None, None
        for number, sample in enumerate(samples):
            if sample.context is not context:  # the questions of a passage share one string
                context, encoded = sample.context, self.tokenizer.encode(sample.context)
            answer = None
            if sample.answer is not None:  # first and last token that hold a character of it
                first = int(np.searchsorted(encoded.ends, sample.answer[0], side="right"))
                last = int(np.searchsorted(encoded.starts, sample.answer[1], side="left")) - 1
                answer = (first, last) if first <= last else None
            if training and answer is None:
                self.counts["questions without a usable answer, left out"] += 1
                continue
            question = self.tokenizer.encode(sample.question).ids
            self.counts["questions cut to max_query_len"] += len(question) > self.task.max_query_len
            for feature, window in self._windowed(number, question[: self.task.max_query_len], encoded):
                if answer is not None:
                    inside = window.start <= answer[0] and answer[1] < window.stop
                    shift = feature.offset - window.start
                    # A window without the answer points at [CLS], as in the released code.
                    feature.target = (answer[0] + shift, answer[1] + shift) if inside else (0, 0)
                yield feature

    def _windowed(
        self, number: int, question: np.ndarray | None, text: Encoding
    ) -> Iterable[tuple[Feature, slice]]:
        """Sequences `[CLS] (question [SEP]) window [SEP]` over a text, and the tokens of each window."""
        before = [] if question is None else [question]
        offset = 1 if question is None else len(question) + 2
        width = self.task.max_seq_len - offset - 1
        ranges = windows(len(text.ids), width, self.task.doc_stride)
        apart = len(ranges) > 1 and self.task.doc_stride >= width
        self.counts["samples read in windows"] += len(ranges) > 1
        self.counts["samples in windows without overlap (lower doc_stride)"] += apart
        for (start, stop), belongs in zip(ranges, belonging(ranges, len(text.ids))):
            window = slice(start, stop)
            ids, sentences = self._sequence(*before, text.ids[window])
            places = text.starts[window], text.ends[window]
            yield Feature(number, ids, sentences, None, offset, *places, belongs), window

    def _sequence(self, a: np.ndarray, b: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        cls, sep = [self.tokenizer.vocab.cls_id], [self.tokenizer.vocab.sep_id]
        ids = np.concatenate([cls, a, sep] if b is None else [cls, a, sep, b, sep]).astype(np.int32)
        return ids, (np.arange(len(ids)) >= len(a) + 2).astype(np.int8)


def decode(
    task: FinetuneTask, samples: Sequence[Any], features: Sequence[Feature], outputs: Sequence[Any]
) -> list[dict[str, Any]]:
    """Predictions, one for each sample, in their order: the records of docs/finetune.md, of span {"id",
    "answer", "nbest": [{"text", "probability", "start", "end"}]}. Offsets are characters, ends exclusive.

    outputs: of each sequence, without padding: (C) classification, () regression, (T, C) tagging, (2, T)
    span. Raises ConfigError naming the sample where one is not finite."""
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
            if task.multi_label:
                chances = expit(np.asarray(group[0][1], np.float64)).tolist()
                record["labels"] = [label for label, p in zip(task.labels, chances) if p >= 0.5]
                records.append(record | {"probabilities": dict(zip(task.labels, chances, strict=True))})
                continue
            probabilities = softmax(np.asarray(group[0][1], np.float64)).tolist()
            record["label"] = task.labels[int(np.argmax(probabilities))]
            record["probabilities"] = dict(zip(task.labels, probabilities, strict=True))
        records.append(record)
    return records


def _tags(task: FinetuneTask, sample: TaggedSample, windows: list[tuple[Feature, Any]]) -> dict[str, Any]:
    pieces, starts = [], []
    for feature, logits in windows:  # windows are in order, and every token belongs to one of them
        best = np.asarray(logits)[feature.offset : feature.offset + len(feature.starts)].argmax(axis=-1)
        pieces += best[feature.belongs].tolist()
        starts += feature.starts[feature.belongs].tolist()
    text, spans, given = sample.tokens.text, sample.tokens.spans, sample.tokens.given
    by_token = [task.labels[pieces[first]] for first in source_of_piece(spans, np.array(starts))[1]]
    entities = entities_of(by_token, spans)
    record: dict[str, Any] = {"text": text}
    if given is not None:
        rest = iter(by_token)
        record["tokens"], tags = given, [next(rest) if token else "O" for token in given]
    else:
        tags = ["O"] * len(text)
        for kind, start, stop in entities:
            inside = f"I-{kind}" if f"I-{kind}" in task.labels else "O"
            tags[start:stop] = [f"B-{kind}"] + [inside] * (stop - start - 1)
    found = [{"type": kind, "start": a, "end": b, "text": text[a:b]} for kind, a, b in entities]
    return record | {"tags": tags, "entities": found}


def _answer(task: FinetuneTask, sample: QuestionSample, windows: list[tuple[Feature, Any]]) -> dict[str, Any]:
    candidates = []
    for feature, sides in windows:
        inside = slice(feature.offset, feature.offset + len(feature.starts))
        start, stop = (np.asarray(side)[inside] for side in sides)
        spans = best_spans(start, stop, feature.belongs, task.max_answer_len, task.n_best)
        candidates += [(score, int(feature.starts[a]), int(feature.stops[b])) for score, a, b in spans]
    # An answer's start belongs to one window only, so the same span cannot come twice.
    candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: task.n_best]
    probabilities = softmax([score for score, _, _ in candidates]) if candidates else ()
    nbest = [
        {"text": sample.context[first:last], "probability": float(p), "start": first, "end": last}
        for p, (_, first, last) in zip(probabilities, candidates)
    ]
    return {"id": sample.qid, "answer": nbest[0]["text"] if nbest else "", "nbest": nbest}


def best_spans(
    start: np.ndarray, stop: np.ndarray, allowed: np.ndarray, longest: int, count: int
) -> list[tuple[float, int, int]]:
    """The best `count` answers of one window, exactly: (score, first token, last token), best first.

    start, stop: logits (W) of the first and last token, whose sum is the score; allowed: bool (W), an answer
    may start here; longest: L."""
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
    if task.kind == "span":
        write_nbest(records, nbest)
    lines = [{record["id"]: record["answer"] for record in records}] if task.kind == "span" else records
    write_json_lines(path, map(rounded, lines))


def write_nbest(records: Sequence[dict[str, Any]], path: Path | None) -> None:
    """{question id: [{text, probability, start, end}, ...]} of span, where a file is named."""
    if path is not None:
        write_json_lines(path, [rounded({record["id"]: record["nbest"] for record in records})])


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """With numbers to six places."""
    return json.loads(json.dumps(record), parse_float=lambda number: round(float(number), 6))
