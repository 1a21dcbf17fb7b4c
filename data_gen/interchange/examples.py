"""Lines of a foreign format to the shards of a task: parsed, checked, split into train and dev, shuffled,
indexed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.interchange.lines import BadLine, Line, RejectLog, read, shuffled, unpacked_bytes
from data_gen.reading.streams import expand_paths
from data_gen.work_folder import locked
from ernie2.disk import file_digest
from ernie2.shards import IGNORED, LEVELS, SPLITS, Example, ShardWriter
from ernie2.strict import ConfigError
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

MAX_SENTENCE_ID = 3
"""sentence_type_vocab_size - 1 of the released configurations."""

Parse = Callable[[str], Example]
"""Text of a line -> example. Raises BadLine."""


@dataclass(frozen=True)
class Target:
    """Where examples go, and what they are held against.

    Attributes:
        shards_dir: Folder of shards; they go to its sub-folder of the task's name. task: Their task.
        vocab_file: The vocabulary their ids are rows of. language: "zh" or "en": for the words of labels.
        max_seq_len: Longer examples are rejected. dev_share: Share of the examples that goes to the dev split
        where no dev files are named, by a hash of the tokens. seed: Of the order. keep_order: Write the
        examples in the order of the files. max_reject_share: The import stops when more than this share of
        the lines is bad."""

    shards_dir: Path
    task: Task
    vocab_file: Path
    language: str = "zh"
    max_seq_len: int = 512
    dev_share: float = 0.005
    seed: int = 1
    keep_order: bool = False
    max_reject_share: float = 0.01


def import_examples(
    patterns: Sequence[str],
    dev_patterns: Sequence[str],
    target: Target,
    make_parse: Callable[[Vocab], Parse],
    imported: dict[str, Any],
    notes: dict[str, int],
    out: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Makes the shards of a task of foreign examples.

    Args:
        patterns: Files, globs, folders.
        dev_patterns: Files whose examples are the dev split; none: target.dev_share of all.
        target: Where to, and how.
        make_parse: Given the vocabulary, returns the parser of a line.
        imported: What index.json says of the import besides the files.
        notes: Counts that the parser keeps while it works; they go to index.json too.
        out: Takes the lines of the report.

    Returns:
        The index.

    Raises:
        ConfigError: a file missing, too many bad lines, no train or no dev example, another vocabulary in the
        folder."""
    vocab, folder = Vocab.load(target.vocab_file), target.shards_dir / target.task.name
    files = expand_paths(patterns, "file"), expand_paths(dev_patterns, "--dev") if dev_patterns else []
    rejects = RejectLog(Path(f"{folder}.rejects.jsonl"), target.max_reject_share)
    with locked(target.shards_dir), rejects:
        _check_vocab(vocab, target)
        writer = ShardWriter(folder, target.task, len(vocab))
        try:
            with contextlib.closing(_lines(*files, target, rejects)) as lines:
                counts = _write(writer, lines, make_parse(vocab), rejects, vocab, target, bool(files[1]))
            rejects.judge()
            _check_splits(counts, target, bool(files[1]))
            rejects.notes.update(notes)
            if not (
                target.shards_dir / "vocab.txt"
            ).exists():  # not before: a failed import may have a wrong one
                shutil.copyfile(target.vocab_file, target.shards_dir / "vocab.txt")
            origin = {**imported, **_origin(*files)}
            index = writer.close(
                _index(target, vocab, origin, rejects, counts, unpacked_bytes(sum(files, [])))
            )
        except BaseException:
            writer.abort()
            raise
    samples, tokens = index["samples"], sum(index["tokens"].values()) / 1e6
    out(
        f"{target.task.name}: {samples['train']:,} train and {samples['dev']:,} dev examples, {tokens:.2f} "
        "M tokens, "
        f"in {folder}"
    )
    for reason, count in rejects.notes.most_common():
        out(f"note: {reason}: {count:,}")
    if rejects.counts:
        out(f"rejected: {rejects.reasons()}; all are in {rejects.path}")
    return index


def _origin(files: list[Path], dev_files: list[Path]) -> dict[str, list[str]]:
    """What index.json says of the files."""
    return {
        "files": list(map(str, files)),
        "dev_files": list(map(str, dev_files)),
        "digests": list(map(file_digest, [*files, *dev_files])),
    }


def _lines(files: list[Path], dev_files: list[Path], target: Target, rejects: RejectLog) -> Iterator[Line]:
    def lines() -> Iterator[Line]:
        yield from read(files, rejects)
        yield from read(dev_files, rejects, dev=True)

    if target.keep_order:
        return lines()
    return shuffled(lines(), target.seed, target.shards_dir / f".import-{os.uname().nodename}-{os.getpid()}")


def _write(
    writer: ShardWriter,
    lines: Iterator[Line],
    parse: Parse,
    rejects: RejectLog,
    vocab: Vocab,
    target: Target,
    dev_named: bool,
) -> dict[str, np.ndarray]:
    """Writes the good lines; returns split -> int64 (classes + 1): examples of each class, and of all in the
    last place."""
    classes = target.task.sentence_classes or target.task.token_classes or 0
    counts = {split: np.zeros(classes + 1, np.int64) for split in SPLITS}
    ends: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    rejects.explain = lambda: _wrong_vocab(ends, vocab, target.vocab_file)
    for line in lines:
        try:
            example = parse(line.text)
            for place, seen in zip((0, -1), ends, strict=True):
                seen.update(example.token_ids[place:][:1].tolist())
            example = _checked(example, vocab, target)
        except BadLine as error:
            rejects.add(line.path, line.number, str(error), line.text)
            continue
        dev = line.dev if dev_named else _is_dev(example, target.dev_share)
        split = SPLITS[dev]
        writer.write(split, example)
        counts[split][-1] += 1
        if target.task.sentence_classes:
            counts[split][example.sentence_label] += 1
        elif target.task.token_classes:
            labels = example.token_labels[example.token_labels != IGNORED]
            counts[split][:-1] += np.bincount(labels, minlength=classes)
    return counts


def _wrong_vocab(ends: tuple[Counter[int], Counter[int]], vocab: Vocab, vocab_file: Path) -> str:
    """Says so where no line begins with [CLS], or none ends with [SEP]; ends counts the first and the last
    ids of lines."""
    for seen, name, wanted in zip(ends, ("[CLS]", "[SEP]"), (vocab.cls_id, vocab.sep_id), strict=True):
        if seen and not seen[wanted]:
            most, often = seen.most_common(1)[0]
            if often == seen.total():  # such files hold ids of another vocabulary
                return (
                    f"--vocab {vocab_file}: every line looked at has {most} where {name} ({wanted}) should "
                    "be: is --vocab the "
                    f"right one?"
                )
            if often > seen.total() / 2:
                return (
                    f"--vocab {vocab_file}: no line looked at has {name} ({wanted}) where it should be, "
                    f"{often} of "
                    f"{seen.total()} have {most}: is --vocab the right one?"
                )
    return ""


def _is_dev(example: Example, dev_share: float) -> bool:
    """By a hash of the tokens: equal examples are never in both splits."""
    data = np.asarray(example.token_ids, "<i4").tobytes()
    digest = hashlib.blake2b(data, digest_size=8, person=b"ernie2 dev").digest()
    return int.from_bytes(digest, "big") < dev_share * 2.0**64


def _checked(example: Example, vocab: Vocab, target: Target) -> Example:
    """The example in the types of the shards. Raises BadLine where it breaks the task's contract."""
    ids, task = example.token_ids, target.task
    require(
        3 <= len(ids) <= target.max_seq_len,
        "fewer than 3 tokens" if len(ids) < 3 else f"more than --max-seq-len {target.max_seq_len} tokens",
    )
    require(0 <= ids.min() and ids.max() < len(vocab), f"token id outside the vocabulary of {len(vocab)}")
    require(
        ids[0] == vocab.cls_id and ids[-1] == vocab.sep_id, "does not begin with [CLS] and end with [SEP]"
    )
    require(not ((ids == vocab.pad_id) | (ids == vocab.mask_id)).any(), "[PAD] or [MASK] among the tokens")
    require(len(example.sentence_ids) == len(ids), "not as many sentence ids as tokens")
    require(
        0 <= example.sentence_ids.min() and example.sentence_ids.max() <= MAX_SENTENCE_ID,
        f"sentence id outside 0 to {MAX_SENTENCE_ID}",
    )
    spans = None
    if task.has_masked_lm:
        require(example.span_ids is not None, "no spans")
        spans = {level: example.span_ids[level].astype(np.int16) for level in LEVELS}
    labels = example.token_labels
    if task.token_classes:
        require(labels is not None and len(labels) == len(ids), "not as many token labels as tokens")
        require(
            bool(np.all((labels == IGNORED) | (labels >= 0) & (labels < task.token_classes))),
            f"token label outside 0 to {task.token_classes - 1}, {IGNORED}",
        )
    if task.sentence_classes:
        label = example.sentence_label
        require(
            label is not None and 0 <= label < task.sentence_classes,
            f"sentence label outside 0 to {task.sentence_classes - 1}",
        )
    return replace(
        example,
        token_ids=ids.astype(np.int32),
        sentence_ids=example.sentence_ids.astype(np.int8),
        span_ids=spans,
        token_labels=labels.astype(np.int8) if task.token_classes else None,
        sentence_label=example.sentence_label if task.sentence_classes else None,
    )


def require(condition: bool, reason: str) -> None:
    """Raises BadLine with the reason, unless the condition holds."""
    if not condition:
        raise BadLine(reason)


def number_units(begins: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """int16 (T): units counted from 0, -1 where nothing may be masked; begins and masked are bool (T)."""
    return np.where(masked, np.cumsum(begins & masked) - 1, -1).astype(np.int16)


def _check_vocab(vocab: Vocab, target: Target) -> None:
    """Raises ConfigError where another vocabulary lies in the folder of shards."""
    place = target.shards_dir / "vocab.txt"
    if place.exists() and Vocab.load(place).digest != vocab.digest:
        raise ConfigError(
            f"--to: {target.shards_dir} holds shards of another vocabulary ({place}); name another folder"
        )


def _check_splits(counts: dict[str, np.ndarray], target: Target, dev_named: bool) -> None:
    for split in SPLITS:
        if not counts[split][-1]:
            remedy = (
                "name more files"
                if dev_named or split == "train"
                else (f"raise --dev-share (now {target.dev_share:g}), or name files for it with --dev")
            )
            raise ConfigError(f"task '{target.task.name}': no example in the {split} split; {remedy}")


def _index(
    target: Target,
    vocab: Vocab,
    imported: dict[str, Any],
    rejects: RejectLog,
    counts: dict[str, np.ndarray],
    input_bytes: int,
) -> dict[str, Any]:
    """What index.json holds besides what every shard writer puts there; `imported` marks shards that no
    recipe makes."""
    task = target.task
    return {
        "vocab_digest": vocab.digest,
        "task_id": task.task_id,
        "generator": task.generator,
        "generator_args": task.generator_args,
        "balance": task.balance,
        "seed": target.seed,
        "language": target.language,
        "max_seq_len": target.max_seq_len,
        "lower_case": True,
        "imported": {**imported, "shuffled": not target.keep_order},
        "statistics": {
            "accepted": {split: int(counts[split][-1]) for split in SPLITS},
            "rejected": dict(sorted(rejects.counts.items())),
            "thinned": dict.fromkeys(SPLITS, 0),
            "labels": {split: counts[split][:-1].tolist() for split in SPLITS},
            "notes": dict(sorted(rejects.notes.items())),
            "dictionary_hits": [],
            "input_bytes": input_bytes,
            "documents": rejects.seen,
        },
    }
