"""Examples as .jsonl, one JSON object a line (docs/interchange.md has the keys)."""

from __future__ import annotations

import json
from itertools import chain, pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_gen.interchange.examples import number_units, require
from data_gen.interchange.lines import BadLine
from ernie2.shards import LEVELS, Example
from ernie2.tokenizer import Vocab

Number = Annotated[int, Field(gt=-(2**31), lt=2**31)]


class Record(BaseModel):
    """The object of an example; T tokens."""

    model_config = ConfigDict(extra="allow", strict=True)

    tokens: list[str] | None = None
    token_ids: list[Number] | None = None
    sentence_ids: list[Number] | None = None
    spans: dict[Literal[LEVELS], list[tuple[Number, Number]]] | None = None
    """Level -> ranges [first, stop) of tokens that are masked together."""
    token_labels: list[Number] | None = None
    sentence_label: Number | None = None


def parse_line(text: str, vocab: Vocab) -> Example:
    """The example of a line; what may be left out is filled in. Raises BadLine."""
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        bad_json = first["type"] == "json_invalid"
        raise BadLine(
            "not JSON" if bad_json else f"{'.'.join(map(str, first['loc'][:1]))}: {first['msg']}"
        ) from None
    unknown = [key for key in record.model_extra if not key.startswith("_")]
    require(not unknown, f"unknown key {', '.join(unknown)[:60]!r}")
    ids = _token_ids(record, vocab)
    if record.sentence_ids is None:
        sentence_ids = np.cumsum(ids == vocab.sep_id) - (ids == vocab.sep_id)
    else:
        sentence_ids = np.array(record.sentence_ids, np.int64)
    labels = None if record.token_labels is None else np.array(record.token_labels, np.int64)
    return Example(ids, sentence_ids, _spans(record, ids, vocab), labels, record.sentence_label)


def _token_ids(record: Record, vocab: Vocab) -> np.ndarray:
    require(record.tokens is not None or record.token_ids is not None, "neither tokens nor token_ids")
    ids = record.token_ids
    if record.tokens is not None:
        ids = [vocab.token_to_id.get(token, -1) for token in record.tokens]
        require(-1 not in ids, "token that is not in the vocabulary")
        require(record.token_ids in (None, ids), "tokens and token_ids do not agree")
    require(all(0 <= row < len(vocab) for row in ids), f"token id outside the vocabulary of {len(vocab)}")
    return np.array(ids, np.int64)


def _spans(record: Record, ids: np.ndarray, vocab: Vocab) -> dict[str, np.ndarray]:
    """Level -> int16 (T). Without spans each token is a unit, with the ## pieces that follow it."""
    if record.spans is None:
        maskable = ~vocab.special[ids] | (ids == vocab.unk_id)
        return dict.fromkeys(LEVELS, number_units(~vocab.continuation[ids], maskable))
    require("word" in record.spans, "spans: the level word is missing")
    made = {level: _units(ranges, len(ids)) for level, ranges in record.spans.items()}
    return {level: made.get(level, made["word"]) for level in LEVELS}


def _units(ranges: list[tuple[int, int]], length: int) -> np.ndarray:
    require(
        all(a < b for a, b in ranges) and all(a <= b for a, b in pairwise([0, *chain(*ranges), length])),
        "spans: ranges that are empty, overlap, are out of order or beyond the tokens",
    )
    units = np.full(length, -1, np.int16)
    for number, (first, stop) in enumerate(ranges):
        units[first:stop] = number
    return units


def format_line(example: Example, vocab: Vocab | None = None) -> str:
    """The line of an example, with tokens where a vocabulary is given; levels that equal the word level are
    left out."""
    spans, labels = example.span_ids, example.token_labels
    record = {
        "tokens": vocab and [vocab.id_to_token[row] for row in example.token_ids.tolist()],
        "token_ids": example.token_ids.tolist(),
        "sentence_ids": example.sentence_ids.tolist(),
        "spans": spans
        and {
            level: _ranges(units)
            for level, units in spans.items()
            if level == "word" or not np.array_equal(units, spans["word"])
        },
        "token_labels": None if labels is None else labels.tolist(),
        "sentence_label": example.sentence_label,
    }
    record = {key: value for key, value in record.items() if value is not None}
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _ranges(units: np.ndarray) -> list[list[int]]:
    edges = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
    return [[a, b] for a, b in pairwise(edges) if units[a] >= 0]
