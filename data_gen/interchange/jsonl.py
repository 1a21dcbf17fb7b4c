"""Examples as plain .jsonl: one JSON object an example, for programs that want to make or read examples
themselves.

| key | value | import | |---|---|---| | `tokens` | strings, with special tokens | this or `token_ids`; where
both are there they must agree | | `token_ids` | rows of the vocabulary | | | `sentence_ids` | a number for
each token | without it: counted by the [SEP]s | | `spans` | `{"word": [[1, 3], [3, 4]], "phrase": ...,
"entity": ...}` | ranges [first, stop) of the tokens that are masked | | | | together; what is in no range is
never masked. A level that is missing equals the word level; without `spans` | | | | each token is a unit,
with the ## pieces that follow it | | `token_labels` | a class for each token, -100 = none | required by a
token head | | `sentence_label` | a class | required by a sentence head |

Further keys are refused, but for those that begin with `_`. Export writes a level only where it differs from
the word level, and of the rest what the task has: exporting what was imported gives the same objects."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.interchange.examples import Parse, number_units, require
from data_gen.interchange.lines import BadLine, written
from ernie2.shards import LEVELS, Example, ShardReader
from ernie2.strict import ConfigError
from ernie2.tokenizer import Vocab

KEYS = ("tokens", "token_ids", "sentence_ids", "spans", "token_labels", "sentence_label")


def parser(vocab: Vocab) -> Parse:
    """The parser of lines with tokens of a vocabulary."""

    def parse(text: str) -> Example:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            raise BadLine("not JSON") from None
        require(isinstance(record, dict), "not a JSON object")
        unknown = [key for key in record if key not in KEYS and not key.startswith("_")]
        require(not unknown, f"unknown key {', '.join(unknown)[:60]!r}")
        return _example(record, vocab)

    return parse


def _example(record: dict[str, Any], vocab: Vocab) -> Example:
    ids = _token_ids(record, vocab)
    label = record.get("sentence_label")
    require(label is None or type(label) is int, "sentence_label is not a whole number")
    sentence_ids = _numbers(record, "sentence_ids")
    if sentence_ids is None:
        ends = np.cumsum(ids == vocab.sep_id)
        sentence_ids = np.concatenate([[0], ends[:-1]])
    return Example(
        ids, sentence_ids, _spans(record.get("spans"), ids, vocab), _numbers(record, "token_labels"), label
    )


def _token_ids(record: dict[str, Any], vocab: Vocab) -> np.ndarray:
    ids, tokens = _numbers(record, "token_ids"), record.get("tokens")
    if tokens is None:
        require(ids is not None, "neither tokens nor token_ids")
        return ids
    require(
        isinstance(tokens, list) and all(isinstance(token, str) for token in tokens),
        "tokens is not a list of strings",
    )
    require(all(token in vocab.token_to_id for token in tokens), "token that is not in the vocabulary")
    from_tokens = np.array([vocab.token_to_id[token] for token in tokens], np.int64)
    require(ids is None or np.array_equal(ids, from_tokens), "tokens and token_ids do not agree")
    return from_tokens


def _numbers(record: dict[str, Any], key: str) -> np.ndarray | None:
    """int64 (T) of a list of whole numbers; None where the key is missing."""
    if key not in record:
        return None
    value = record[key]
    require(
        isinstance(value, list) and all(type(number) is int and abs(number) < 2**31 for number in value),
        f"{key} is not a list of whole numbers",
    )
    return np.array(value, np.int64)


def _spans(spans: Any, ids: np.ndarray, vocab: Vocab) -> dict[str, np.ndarray]:
    """Level -> int16 (T)."""
    if spans is None:
        known = ids[(ids >= 0) & (ids < len(vocab))]
        require(len(known) == len(ids), f"token id outside the vocabulary of {len(vocab)}")
        return dict.fromkeys(
            LEVELS, number_units(~vocab.continuation[ids], ~vocab.special[ids] | (ids == vocab.unk_id))
        )
    require(
        isinstance(spans, dict) and set(spans) <= set(LEVELS) and "word" in spans,
        f"spans is not an object of {', '.join(LEVELS)} with word in it",
    )
    made = {level: _from_ranges(ranges, len(ids)) for level, ranges in spans.items()}
    return {level: made.get(level, made["word"]) for level in LEVELS}


def _from_ranges(ranges: Any, length: int) -> np.ndarray:
    require(
        isinstance(ranges, list)
        and all(
            isinstance(one, list) and len(one) == 2 and all(type(n) is int for n in one) for one in ranges
        ),
        "spans: not a list of ranges [first, stop)",
    )
    flat = [0, *(number for one in ranges for number in one), length]
    require(
        all(a <= b for a, b in pairwise(flat)) and all(a < b for a, b in ranges),
        "spans: ranges that are empty, overlap, are out of order or beyond the tokens",
    )
    units = np.full(length, -1, np.int16)
    for number, (first, stop) in enumerate(ranges):
        units[first:stop] = number
    return units


def record_of(example: Example, vocab: Vocab | None = None) -> dict[str, Any]:
    """The object of an example; with tokens where a vocabulary is given."""
    record: dict[str, Any] = {}
    if vocab is not None:
        record["tokens"] = [vocab.id_to_token[row] for row in example.token_ids.tolist()]
    record["token_ids"] = example.token_ids.tolist()
    record["sentence_ids"] = example.sentence_ids.tolist()
    if example.span_ids is not None:
        words = example.span_ids["word"]
        record["spans"] = {
            level: _ranges(ids)
            for level, ids in example.span_ids.items()
            if level == "word" or not np.array_equal(ids, words)
        }
    if example.token_labels is not None:
        record["token_labels"] = example.token_labels.tolist()
    if example.sentence_label is not None:
        record["sentence_label"] = int(example.sentence_label)
    return record


def _ranges(units: np.ndarray) -> list[list[int]]:
    edges = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
    return [[a, b] for a, b in pairwise(edges) if units[a] >= 0]


def export_lines(folder: Path, split: str, to: Path, vocab: Vocab | None) -> int:
    """Writes a split of a task's shards, in its order; gzip where the name ends in .gz. Returns the number of
    lines.

    Raises:
        ConfigError: no finished shards there, or `vocab` is not theirs."""
    reader = ShardReader(folder, split)
    if vocab is not None and vocab.digest != reader.index.get("vocab_digest"):
        raise ConfigError(
            f"--vocab: not the vocabulary that {folder} was made with; name that one, or --ids-only"
        )
    with written(to) as file:
        for i in range(len(reader)):
            file.write(
                json.dumps(record_of(reader[i], vocab), ensure_ascii=False, separators=(",", ":")) + "\n"
            )
    return len(reader)
