"""Samples -> token sequences for the encoder, and their targets. No tensors here.

Letters: T tokens of a sequence, W tokens of the text's window in it, S source tokens of a tagged text.

A sequence is `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`. Classification and regression cut what is too long from the
longer text, and count it. Tagging and span never lose text: they read it in overlapping windows, and each token
*belongs* to the window in which it has most context on its shorter side; only there is it labelled, predicted, or the
start of an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ernie2.finetune.readers import TaggedSample, TextSample
from ernie2.finetune.squad import QuestionSample
from ernie2.finetune.tagging import TaggedText
from ernie2.finetune.task import FinetuneTask
from ernie2.tokenizer import Encoding, Tokenizer

IGNORED = -100
_NONE = np.zeros(0, np.int32)


@dataclass(slots=True)
class Feature:
    """One sequence of a sample."""

    sample: int
    """Index of the sample it comes from."""
    token_ids: np.ndarray
    """int32 (T)."""
    sentence_ids: np.ndarray
    """int8 (T): 0 for the first text, 1 for the second."""
    target: Any = None
    """Class index, number, int16 (T) tags with -100 = ignored, or (start, stop) token positions; None where unknown."""
    offset: int = 0
    """Position in the sequence of the window's first token."""
    first_token: int = 0
    """Number, in the whole text, of the window's first token."""
    starts: np.ndarray = field(default_factory=lambda: _NONE)
    """int32 (W): character offset at which each token of the window starts."""
    stops: np.ndarray = field(default_factory=lambda: _NONE)
    """int32 (W): character offset at which it ends."""
    belongs: np.ndarray = field(default_factory=lambda: _NONE)
    """bool (W): the token belongs to this window."""


def build_features(
    samples: Sequence[Any],
    tokenizer: Tokenizer,
    task: FinetuneTask,
    counts: Counter[str],
    training: bool = False,
) -> list[Feature]:
    """Turns samples into sequences.

    Args:
        samples: of the kind that `task` reads.
        tokenizer: text -> ids with character offsets.
        task: kind and lengths.
        counts: what was cut off or left out is added here, by reason.
        training: leave out what cannot be learned from (questions without a usable answer).
    """
    make = {"tagging": _tagging_features, "span": _span_features}.get(task.kind, _text_features)
    return list(make(samples, tokenizer, task, counts, training))


def pair_lengths(a: int, b: int, room: int) -> tuple[int, int]:
    """Tokens kept of two texts of `a` and `b` tokens in `room`: the longer loses tokens first, on a tie the second."""
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
    """For each window, bool (W): its tokens that have most context here, on their shorter side; ties: the earlier."""
    best = np.full(tokens, -1)
    owner = np.full(tokens, -1)
    for number, (start, stop) in enumerate(ranges):
        inside = np.arange(stop - start)
        context = np.minimum(inside, stop - start - 1 - inside)
        better = context > best[start:stop]
        best[start:stop][better] = context[better]
        owner[start:stop][better] = number
    return [owner[start:stop] == number for number, (start, stop) in enumerate(ranges)]


def encode_tokens(tokenizer: Tokenizer, tokens: TaggedText) -> Encoding:
    """Pieces of a text whose source tokens are tokenised each by itself; one that has no piece is [UNK].

    So each source token has at least one piece, and no piece belongs to two.
    """
    bounds = np.asarray(tokens.spans, np.int32).reshape(-1, 2)
    # A line feed is a space wherever it stands, so the tokens cannot touch each other.
    joined = tokenizer.encode("\n".join(tokens.text[start:stop] for start, stop in tokens.spans))
    places = np.cumsum(bounds[:, 1] - bounds[:, 0] + 1) - (bounds[:, 1] - bounds[:, 0] + 1)
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
    """Aligns source tokens (S) with their pieces (P), which start at `starts` (characters).

    Returns:
        int (P): the source token of each piece.
        int (S): the first piece of each source token.
    """
    owner = np.searchsorted(np.array([start for start, _ in spans], np.int64), starts, side="right") - 1
    return owner, np.searchsorted(owner, np.arange(len(spans)))


def answer_tokens(answer: tuple[int, int], starts: np.ndarray, stops: np.ndarray) -> tuple[int, int] | None:
    """First and last token that hold a character of the answer; None where no token does."""
    first = int(np.searchsorted(stops, answer[0], side="right"))
    last = int(np.searchsorted(starts, answer[1], side="left")) - 1
    return (first, last) if first <= last else None


def _text_features(
    samples: Sequence[TextSample],
    tokenizer: Tokenizer,
    task: FinetuneTask,
    counts: Counter[str],
    training: bool,
) -> Iterable[Feature]:
    first = tokenizer.encode_many([sample.text_a for sample in samples])
    second = tokenizer.encode_many([sample.text_b or "" for sample in samples])
    for number, sample in enumerate(samples):
        a, b = first[number].ids, second[number].ids
        room = task.max_seq_len - (2 if sample.text_b is None else 3)
        kept_a, kept_b = pair_lengths(len(a), len(b), room)
        counts["samples cut to max_seq_len"] += kept_a + kept_b < len(a) + len(b)
        counts["samples without text"] += len(a) + len(b) == 0
        ids, sentences = _sequence(tokenizer, a[:kept_a], None if sample.text_b is None else b[:kept_b])
        yield Feature(number, ids, sentences, sample.label)


def _tagging_features(
    samples: Sequence[TaggedSample],
    tokenizer: Tokenizer,
    task: FinetuneTask,
    counts: Counter[str],
    training: bool,
) -> Iterable[Feature]:
    # Further pieces of a source token continue its entity, as in the released code.
    further = np.array(
        [i if name[:2] != "B-" else _inside(task, name) for i, name in enumerate(task.labels)], np.int16
    )
    for number, sample in enumerate(samples):
        text = encode_tokens(tokenizer, sample.tokens)
        labels = None
        if sample.tags is not None:
            owner, first = source_of_piece(sample.tokens.spans, text.starts)
            tags = np.asarray(sample.tags, np.int16)
            labels = further[tags][owner]
            labels[first] = tags
        for feature in _windowed(number, tokenizer, _NONE, text, task, counts):
            if labels is not None:
                feature.target = np.full(len(feature.token_ids), IGNORED, np.int16)
                stop = feature.first_token + len(feature.starts)
                inside = np.where(feature.belongs, labels[feature.first_token : stop], IGNORED)
                feature.target[feature.offset : feature.offset + len(inside)] = inside
            yield feature


def _inside(task: FinetuneTask, begin: str) -> int:
    inside = f"I-{begin[2:]}"
    return task.labels.index(inside) if inside in task.labels else IGNORED


def _span_features(
    samples: Sequence[QuestionSample],
    tokenizer: Tokenizer,
    task: FinetuneTask,
    counts: Counter[str],
    training: bool,
) -> Iterable[Feature]:
    context, encoded = None, None
    for number, sample in enumerate(samples):
        if sample.context is not context:  # the questions of a passage share one string
            context, encoded = sample.context, tokenizer.encode(sample.context)
        answer = None if sample.answer is None else answer_tokens(sample.answer, encoded.starts, encoded.ends)
        if training and answer is None:
            counts["questions without a usable answer, left out"] += 1
            continue
        question = tokenizer.encode(sample.question).ids
        counts["questions cut to max_query_len"] += len(question) > task.max_query_len
        for feature in _windowed(number, tokenizer, question[: task.max_query_len], encoded, task, counts):
            if answer is not None:
                first, last = (token - feature.first_token for token in answer)
                inside = first >= 0 and last < len(feature.starts)
                # A window without the answer points at [CLS], as in the released code.
                feature.target = (first + feature.offset, last + feature.offset) if inside else (0, 0)
            yield feature


def _windowed(
    number: int,
    tokenizer: Tokenizer,
    prefix: np.ndarray,
    text: Encoding,
    task: FinetuneTask,
    counts: Counter[str],
) -> Iterable[Feature]:
    """Sequences `[CLS] (prefix [SEP]) window [SEP]` over a text."""
    paired = task.kind == "span"
    width = task.max_seq_len - len(prefix) - (3 if paired else 2)
    ranges = windows(len(text.ids), width, task.doc_stride)
    counts["samples read in windows"] += len(ranges) > 1
    counts["samples in windows without overlap (lower doc_stride)"] += (
        len(ranges) > 1 and task.doc_stride >= width
    )
    for (start, stop), belongs in zip(ranges, belonging(ranges, len(text.ids))):
        window = text.ids[start:stop]
        ids, sentences = _sequence(tokenizer, prefix if paired else window, window if paired else None)
        offset = len(prefix) + 2 if paired else 1
        yield Feature(
            number,
            ids,
            sentences,
            None,
            offset,
            start,
            text.starts[start:stop],
            text.ends[start:stop],
            belongs,
        )


def _sequence(tokenizer: Tokenizer, a: np.ndarray, b: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    vocab = tokenizer.vocab
    parts = [[vocab.cls_id], a, [vocab.sep_id]] + ([] if b is None else [b, [vocab.sep_id]])
    ids = np.concatenate(parts).astype(np.int32)
    sentences = np.zeros(len(ids), np.int8)
    sentences[len(a) + 2 :] = 1
    return ids, sentences
