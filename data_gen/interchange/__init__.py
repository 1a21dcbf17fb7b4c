"""Examples in and out of shards: what both formats share, Baidu's text format, and .jsonl."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_gen.generators import load_generator
from data_gen.interchange.lines import BadLine, Line, RejectLog, read, shuffled, written
from data_gen.reading.streams import expand_paths
from data_gen.work_folder import locked
from ernie2.disk import file_digest
from ernie2.shards import IGNORED, LEVELS, SPLITS, Example, ShardReader, ShardWriter, WrongExample
from ernie2.strict import ConfigError
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

Parse = Callable[[str, Vocab], Example]
"""Makes an example of a line; raises BadLine."""


def import_examples(
    args: Namespace, task: Task, parse: Parse, imported: dict[str, Any], note: str | None = None
) -> None:
    """Makes the shards of a task from the lines of files.

    Args:
        args: The command line.
        task: The task.
        parse: Of the format.
        imported: The format and its settings, for index.json.
        note: What is true of each example, counted in index.json.

    Raises:
        ConfigError: no file, too many bad lines, a split without an example, another vocabulary there."""
    vocab, folder, vocab_copy = Vocab.load(args.vocab), args.to / task.name, args.to / "vocab.txt"
    files, dev_files = expand_paths(args.files, "file"), expand_paths(args.dev, "--dev") if args.dev else []
    rejects = RejectLog(Path(f"{folder}.rejects.jsonl"), args.max_reject_share)
    with locked(args.to), rejects:
        if vocab_copy.exists() and Vocab.load(vocab_copy).digest != vocab.digest:
            raise ConfigError(f"--to: {vocab_copy} is another vocabulary than --vocab; name another folder")
        writer, lines = ShardWriter(folder, task, len(vocab)), read(files, rejects, dev_files)
        if not args.keep_order:
            lines = shuffled(lines, args.seed, args.to / f".import-{os.uname().nodename}-{os.getpid()}")
        try:
            with contextlib.closing(lines):
                labels, accepted = _write(writer, lines, parse, vocab, args, rejects)
            rejects.judge()
            for split in SPLITS:
                if not accepted[split]:
                    raise ConfigError(
                        f"--task {task.name}: no example in the {split} split; name more files, raise "
                        f"--dev-share (now {args.dev_share:g}), or name the files of the dev split with --dev"
                    )
            if not vocab_copy.exists():  # now: that of a failed import may be a wrong one
                shutil.copyfile(args.vocab, vocab_copy)
            imported |= {
                "files": list(map(str, files)),
                "dev_files": list(map(str, dev_files)),
                "digests": list(map(file_digest, [*files, *dev_files])),
                "shuffled": not args.keep_order,
            }
            statistics = _statistics(labels, accepted, rejects, note)
            writer.close(_index(args, task, vocab) | {"imported": imported, "statistics": statistics})
        finally:
            writer.abort()
    print(f"{task.name}: {accepted['train']:,} train and {accepted['dev']:,} dev examples in {folder}")
    if note:
        print(f"note: {note}: {accepted.total():,}")
    if rejects.counts:
        print(rejects.summary())


def _check(example: Example, vocab: Vocab, max_seq_len: int) -> None:
    """Raises BadLine where an example is not what the vocabulary and the length need."""
    ids = example.token_ids
    framed = len(ids) > 2 and ids[0] == vocab.cls_id and ids[-1] == vocab.sep_id
    require(len(ids) <= max_seq_len, f"more than --max-seq-len {max_seq_len} tokens")
    require(framed, "does not begin with [CLS] and end with [SEP] of --vocab")
    require(not np.isin(ids, (vocab.pad_id, vocab.mask_id)).any(), "[PAD] or [MASK] among the tokens")


def require(condition: bool, reason: str) -> None:
    """Raises BadLine with the reason, unless the condition holds."""
    if not condition:
        raise BadLine(reason)


def number_units(begins: np.ndarray, maskable: np.ndarray) -> np.ndarray:
    """int16 (T): units counted from 0, -1 where nothing may be masked; begins and maskable are bool (T)."""
    return np.where(maskable, np.cumsum(begins & maskable) - 1, -1).astype(np.int16)


def _write(
    writer: ShardWriter,
    lines: Iterable[Line],
    parse: Parse,
    vocab: Vocab,
    args: Namespace,
    rejects: RejectLog,
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """Writes the good lines to their splits.

    Returns:
        split -> int64 (classes): examples, or tokens, of each class; split -> examples."""
    task, accepted = writer.task, Counter()
    classes = task.sentence_classes or task.token_classes or 0
    labels = {split: np.zeros(classes, np.int64) for split in SPLITS}
    for line in lines:
        try:
            example = parse(line.text, vocab)
            _check(example, vocab, args.max_seq_len)
            split = SPLITS[line.dev if args.dev else _is_dev(example, args.dev_share)]
            writer.write(split, example)
        except (BadLine, WrongExample) as error:
            wrong = isinstance(error, WrongExample)
            reason = f"{error.field}: not what --task {task.name} needs" if wrong else str(error)
            rejects.add(f"{line.path}:{line.number}", reason, line.text)
            continue
        accepted[split] += 1
        if classes:
            found = np.array([example.sentence_label]) if task.sentence_classes else example.token_labels
            labels[split] += np.bincount(found[found != IGNORED], minlength=classes)
    return labels, accepted


def _is_dev(example: Example, dev_share: float) -> bool:
    """By a hash of the tokens: equal examples are never in both splits."""
    data = np.asarray(example.token_ids, "<i4").tobytes()
    digest = hashlib.blake2b(data, digest_size=8, person=b"ernie2 dev").digest()
    return int.from_bytes(digest, "big") < dev_share * 2.0**64


def _statistics(
    labels: dict[str, np.ndarray], accepted: Counter[str], rejects: RejectLog, note: str | None
) -> dict[str, Any]:
    return {
        "accepted": {split: accepted[split] for split in SPLITS},
        "rejected": dict(sorted(rejects.counts.items())),
        "thinned": dict.fromkeys(SPLITS, 0),
        "labels": {split: labels[split].tolist() for split in SPLITS},
        "notes": {note: accepted.total()} if note else {},
        "dictionary_hits": [],
        "input_bytes": rejects.bytes,
        "documents": rejects.seen,
    }


def _index(args: Namespace, task: Task, vocab: Vocab) -> dict[str, Any]:
    """What the index of generated shards holds, too."""
    return {
        "vocab_digest": vocab.digest,
        "task_id": task.task_id,
        "generator": task.generator,
        "generator_args": task.generator_args,
        "balance": task.balance,
        "seed": args.seed,
        "language": args.language,
        "max_seq_len": args.max_seq_len,
        "lower_case": True,
    }


def export_examples(reader: ShardReader, to: Path, line_of: Callable[[Example], str]) -> None:
    """Writes each example of a split as a line, in the shards' order; gzip where the name ends in .gz."""
    with written(to) as file:
        for number in range(len(reader)):
            file.write(line_of(reader[number]) + "\n")
    print(f"{len(reader):,} lines in {to}")


# ---- Baidu's text format ------------------------------------------------------------------------------
#
# ERNIE 1.0's pre-training examples (data/demo_*_set.gz of PaddlePaddle/ERNIE, branch repro). A line is
# `token_ids;sentence_ids;position_ids;seg_labels;label`, numbers with spaces between them. By Baidu's README,
# seg_labels: 0 = a word begins, 1 = it goes on, -1 = [CLS] or [SEP], never masked; label: 1 = the second
# sentence follows the first one in its text, 0 = it does not. The one level of units becomes all levels.

BEGINS, CONTINUES, SPECIAL = 0, 1, -1
FIELDS = ("token_ids", "sentence_ids", "position_ids", "seg_labels", "label")


def baidu_labels(task: Task, language: str, labels: dict[int, int] | None) -> dict[int, int] | None:
    """Baidu's label -> class: `labels`, or as the task's generator says; None without a sentence head.

    Raises ConfigError where the task needs labels that the format does not have, or none are known."""
    if task.token_classes:
        raise ConfigError(
            f"--task {task.name}: its token head needs labels of tokens, which this format does not have"
        )
    if not task.sentence_classes or labels:
        return labels if task.sentence_classes else None
    classes = _next_sentence(task, language)
    if classes is None:
        raise ConfigError(
            f"--task {task.name}: which of its {task.sentence_classes} classes are Baidu's labels? Name "
            "them, for example --labels 0=1,1=0"
        )
    return {1: classes[0], 0: classes[1]}


def labels_of_baidu(task: Task, language: str) -> dict[int, int] | None:
    """Class -> Baidu's label, as the task's generator says; None where it does not."""
    classes = _next_sentence(task, language)
    return classes and {label: int(label == classes[0]) for label in range(task.sentence_classes)}


def _next_sentence(task: Task, language: str) -> tuple[int, int] | None:
    labels = load_generator(task, language).labels
    return labels and labels.next_sentence


def parse_baidu(text: str, vocab: Vocab | None = None, labels: dict[int, int] | None = None) -> Example:
    """The example of a line; `labels`: Baidu's label -> class, None: the label as it is. Raises BadLine."""
    fields = text.split(";")
    require(len(fields) == len(FIELDS), f"not {len(FIELDS)} fields")
    token_ids, sentence_ids, positions, units, label = map(_numbers, fields, FIELDS)
    lengths = {len(token_ids), len(sentence_ids), len(positions), len(units)}
    require(len(lengths) == 1, "fields of different lengths")
    require(len(label) == 1, "label is not one number")
    require(np.array_equal(positions, np.arange(len(positions))), "position_ids are not 0, 1, 2, ...")
    require(bool(np.isin(units, (BEGINS, CONTINUES, SPECIAL)).all()), "seg_labels outside -1 to 1")
    before = np.concatenate([[SPECIAL], units[:-1]])
    require(not ((units == CONTINUES) & (before == SPECIAL)).any(), "seg_labels: 1 where no word goes on")
    number = int(label[0])
    require(labels is None or number in labels, "label that has no class")
    spans = dict.fromkeys(LEVELS, number_units(units == BEGINS, units != SPECIAL))
    return Example(token_ids, sentence_ids, spans, None, labels[number] if labels else number)


def _numbers(field: str, name: str) -> np.ndarray:
    try:
        return np.array(field.split(), np.int32)
    except (ValueError, OverflowError):
        raise BadLine(f"{name}: not whole numbers with spaces between them") from None


def format_baidu(example: Example, level: str = "word", labels: dict[int, int] | None = None) -> str:
    """The line of an example, without its end.

    Args:
        example: Of shards, with spans.
        level: Whose units become seg_labels.
        labels: Class -> Baidu's label; None: the class itself. An example without a label gets 0.

    Raises:
        ConfigError: a class that labels do not have."""
    units = example.span_ids[level].astype(np.int32)
    begins = np.diff(units, prepend=SPECIAL - 1) != 0
    seg_labels = np.where(units < 0, SPECIAL, np.where(begins, BEGINS, CONTINUES))
    label = example.sentence_label or 0
    if labels is not None and example.sentence_label is not None:
        if label not in labels:
            raise ConfigError(f"--labels: class {label} has no label; name it too")
        label = labels[label]
    columns = (example.token_ids, example.sentence_ids, np.arange(len(units)), seg_labels)
    return ";".join([*(" ".join(map(str, column.tolist())) for column in columns), str(label)])


# ---- .jsonl (docs/interchange.md has the keys) ---------------------------------------------------------

Int32 = Annotated[int, Field(gt=-(2**31), lt=2**31)]


class Record(BaseModel):
    """The object of an example; T tokens."""

    model_config = ConfigDict(extra="allow", strict=True)

    tokens: list[str] | None = None
    token_ids: list[Int32] | None = None
    sentence_ids: list[Int32] | None = None
    spans: dict[Literal[LEVELS], list[tuple[Int32, Int32]]] | None = None
    """Level -> ranges [first, stop) of tokens that are masked together."""
    token_labels: list[Int32] | None = None
    sentence_label: Int32 | None = None


def parse_jsonl(text: str, vocab: Vocab) -> Example:
    """The example of a line; what may be left out is filled in. Raises BadLine."""
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = ": ".join([*map(str, first["loc"][:1]), first["msg"]])
        raise BadLine("not JSON" if first["type"] == "json_invalid" else reason) from None
    unknown = [key for key in record.model_extra if not key.startswith("_")]
    require(not unknown, f"unknown key {', '.join(unknown)[:60]!r}")
    ids = _ids(record, vocab)
    ends, sentences, labels = ids == vocab.sep_id, record.sentence_ids, record.token_labels
    sentence_ids = np.cumsum(ends) - ends if sentences is None else np.array(sentences, np.int64)
    token_labels = None if labels is None else np.array(labels, np.int64)
    return Example(ids, sentence_ids, _spans(record, ids, vocab), token_labels, record.sentence_label)


def _ids(record: Record, vocab: Vocab) -> np.ndarray:
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


def format_jsonl(example: Example, vocab: Vocab | None = None) -> str:
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
