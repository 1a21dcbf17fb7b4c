"""Examples in and out of shards, whatever the format of their lines."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.interchange.lines import BadLine, Line, RejectLog, read, shuffled, written
from data_gen.reading.streams import expand_paths
from data_gen.work_folder import locked
from ernie2.disk import file_digest
from ernie2.shards import IGNORED, SENTENCE_TYPES, SPLITS, Example, ShardReader, ShardWriter
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
        ConfigError: a file is missing, too many lines are bad, a split has no example, the folder holds
            shards of another vocabulary."""
    vocab, folder, vocab_copy = Vocab.load(args.vocab), args.to / task.name, args.to / "vocab.txt"
    files, dev_files = expand_paths(args.files, "file"), expand_paths(args.dev, "--dev") if args.dev else []
    rejects = RejectLog(Path(f"{folder}.rejects.jsonl"), args.max_reject_share)
    with locked(args.to), rejects:
        if vocab_copy.exists() and Vocab.load(vocab_copy).digest != vocab.digest:
            raise ConfigError(f"--to: {vocab_copy} is another vocabulary than --vocab; name another folder")
        writer, lines = ShardWriter(folder, task, len(vocab)), read(files, rejects, dev_files)
        if not args.keep_order:
            beside = args.to / f".import-{os.uname().nodename}-{os.getpid()}"
            lines = shuffled(lines, args.seed, beside)
        try:
            with contextlib.closing(lines):
                examples = _examples(lines, task, parse, vocab, args.max_seq_len, rejects)
                labels, accepted = _write(writer, examples, None if args.dev else args.dev_share)
            rejects.judge()
            for split in SPLITS:
                if not accepted[split]:
                    raise ConfigError(
                        f"--task {task.name}: no example in the {split} split; name more files, raise "
                        f"--dev-share (now {args.dev_share:g}), or name the files of the dev split with --dev"
                    )
            if not vocab_copy.exists():  # now: that of a failed import may be a wrong one
                shutil.copyfile(args.vocab, vocab_copy)
            index = _index(args, task, vocab, labels, accepted, rejects)
            index["imported"] = imported | _origin(files, dev_files, not args.keep_order)
            index["statistics"]["notes"] = {note: accepted.total()} if note else {}
            writer.close(index)
        finally:
            writer.abort()
    print(f"{task.name}: {accepted['train']:,} train and {accepted['dev']:,} dev examples in {folder}")
    if note:
        print(f"note: {note}: {accepted.total():,}")
    if rejects.counts:
        print(rejects.summary())


def _examples(
    lines: Iterable[Line], task: Task, parse: Parse, vocab: Vocab, max_seq_len: int, rejects: RejectLog
) -> Iterator[tuple[Line, Example]]:
    """The good lines."""
    for line in lines:
        try:
            example = parse(line.text, vocab)
            _check(example, task, vocab, max_seq_len)
        except BadLine as error:
            rejects.add(f"{line.path}:{line.number}", str(error), line.text)
        else:
            yield line, example


def _check(example: Example, task: Task, vocab: Vocab, max_seq_len: int) -> None:
    """Raises BadLine where an example breaks the task's contract."""
    ids, sentences = example.token_ids, example.sentence_ids
    labels, label = example.token_labels, example.sentence_label
    framed = len(ids) > 2 and ids[0] == vocab.cls_id and ids[-1] == vocab.sep_id
    require(len(ids) <= max_seq_len, f"more than --max-seq-len {max_seq_len} tokens")
    require(framed, "does not begin with [CLS] and end with [SEP] of --vocab")
    require(0 <= ids.min() and ids.max() < len(vocab), f"token id outside the vocabulary of {len(vocab)}")
    require(not np.isin(ids, (vocab.pad_id, vocab.mask_id)).any(), "[PAD] or [MASK] among the tokens")
    known = len(sentences) == len(ids) and ((0 <= sentences) & (sentences < SENTENCE_TYPES)).all()
    require(known, f"sentence ids are not 0 to {SENTENCE_TYPES - 1} for each token")
    if classes := task.token_classes:
        known = labels is not None and len(labels) == len(ids)
        known = known and ((labels == IGNORED) | (0 <= labels) & (labels < classes)).all()
        require(known, f"token labels are not 0 to {classes - 1} or {IGNORED} for each token")
    if classes := task.sentence_classes:
        require(label is not None and 0 <= label < classes, f"sentence label is not 0 to {classes - 1}")


def require(condition: bool, reason: str) -> None:
    """Raises BadLine with the reason, unless the condition holds."""
    if not condition:
        raise BadLine(reason)


def number_units(begins: np.ndarray, maskable: np.ndarray) -> np.ndarray:
    """int16 (T): units counted from 0, -1 where nothing may be masked; begins and maskable are bool (T)."""
    return np.where(maskable, np.cumsum(begins & maskable) - 1, -1).astype(np.int16)


def _write(
    writer: ShardWriter, examples: Iterable[tuple[Line, Example]], dev_share: float | None
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """Writes examples to their splits; dev_share None: as their files say.

    Returns:
        split -> int64 (classes): examples, or tokens, of each class; split -> examples."""
    task = writer.task
    classes, accepted = task.sentence_classes or task.token_classes or 0, Counter()
    labels = {split: np.zeros(classes, np.int64) for split in SPLITS}
    for line, example in examples:
        split = SPLITS[line.dev if dev_share is None else _is_dev(example, dev_share)]
        writer.write(split, example)
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


def _origin(files: list[Path], dev_files: list[Path], shuffled: bool) -> dict[str, Any]:
    return {
        "files": list(map(str, files)),
        "dev_files": list(map(str, dev_files)),
        "digests": list(map(file_digest, [*files, *dev_files])),
        "shuffled": shuffled,
    }


def _index(
    args: Namespace,
    task: Task,
    vocab: Vocab,
    labels: dict[str, np.ndarray],
    accepted: Counter[str],
    rejects: RejectLog,
) -> dict[str, Any]:
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
        "statistics": {
            "accepted": {split: accepted[split] for split in SPLITS},
            "rejected": dict(sorted(rejects.counts.items())),
            "thinned": dict.fromkeys(SPLITS, 0),
            "labels": {split: labels[split].tolist() for split in SPLITS},
            "dictionary_hits": [],
            "input_bytes": rejects.bytes,
            "documents": rejects.seen,
        },
    }


def export_examples(reader: ShardReader, to: Path, line_of: Callable[[Example], str]) -> None:
    """Writes each example of a split as a line, in the shards' order; gzip where the name ends in .gz."""
    with written(to) as file:
        for number in range(len(reader)):
            file.write(line_of(reader[number]) + "\n")
    print(f"{len(reader):,} lines in {to}")
