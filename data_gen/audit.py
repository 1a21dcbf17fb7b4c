"""`python -m data_gen.audit SHARDS`: what is in the shards, in tables; exit code 1 where a label is degenerate.

Degenerate: where a class of a task of three classes or fewer does not occur in the train split, or one class
has more than 95% of it.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.generators import Generator
from data_gen.show import load_shards
from ernie2.config import ConfigError, cli
from ernie2.shards import IGNORED, LEVELS, SPLITS, ShardReader

FEW_CLASSES = 3
DOMINATES = 0.95
CLASSES_SHOWN = 12


@dataclass
class SpanStatistics:
    """Units of one masking level: how many, their tokens, and how many have more than one token."""

    units: int = 0
    tokens: int = 0
    several: int = 0

    def add(self, span_ids: np.ndarray, offsets: np.ndarray) -> None:
        """Counts a shard. span_ids int (T) of all its examples in a row; offsets int (N + 1) of the examples."""
        begins = np.diff(span_ids, prepend=-2) != 0
        begins[offsets[:-1][np.diff(offsets) > 0]] = True
        lengths = np.diff(np.append(np.flatnonzero(begins), len(span_ids)))
        lengths = lengths[span_ids[begins] >= 0]
        self.units, self.tokens = self.units + len(lengths), self.tokens + int(lengths.sum())
        self.several += int((lengths > 1).sum())


@dataclass
class SplitStatistics:
    """One split of one task."""

    lengths: np.ndarray
    labels: np.ndarray
    unknown: int = 0
    spans: dict[str, SpanStatistics] = field(default_factory=lambda: {level: SpanStatistics() for level in LEVELS})

    @property
    def tokens(self) -> int:
        """Tokens, special ones included."""
        return int(self.lengths.sum())


def measure(folder: Path, split: str, unk_id: int, num_classes: int) -> SplitStatistics:
    """Reads a split shard by shard.

    Args:
        folder: <shards_dir>/<task>.
        split: "train" or "dev".
        unk_id: Vocabulary id of [UNK].
        num_classes: Classes of the sentence head, else of the token head, else 0.
    """
    reader = ShardReader(folder, split)
    found = SplitStatistics(reader.lengths(), np.zeros(num_classes, np.int64))
    fields = reader.index["fields"]
    for shard in range(len(reader.shard_samples)):
        found.unknown += int(np.count_nonzero(reader.array(shard, "token_ids") == unk_id))
        for level in LEVELS:
            if f"span_ids_{level}" in fields:
                found.spans[level].add(reader.array(shard, f"span_ids_{level}"), reader.array(shard, "offsets"))
        name = next((name for name in ("sentence_label", "token_labels") if name in fields), None)
        if name is not None and num_classes:
            labels = reader.array(shard, name)
            found.labels += np.bincount(labels[labels != IGNORED], minlength=num_classes)
    return found


def faults(task: str, labels: np.ndarray) -> list[str]:
    """What makes a task's label degenerate. labels: int (classes), counts in the train split; empty without labels."""
    total = int(labels.sum())
    if not len(labels):
        return []
    if not total:
        return [f"{task}: no label at all"]
    found = []
    if len(labels) <= FEW_CLASSES:
        found += [f"{task}: class {label} does not occur" for label in np.flatnonzero(labels == 0)]
    if labels.max() > DOMINATES * total:
        found.append(f"{task}: class {labels.argmax()} has {labels.max() / total:.1%} of all labels")
    return found


def table(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Rows as aligned columns: the first to the left, the others to the right; the first row is the head."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(_width(row[i]) for row in texts) for i in range(len(texts[0]))]
    for row in texts:
        cells = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        others = [pad + cell for pad, cell in zip(cells[1:], row[1:], strict=True)]
        yield "  ".join([row[0] + cells[0], *others]).rstrip()


def _width(text: str) -> int:
    return len(text) + sum("\u2e80" <= character <= "\uffef" for character in text)


def report(folder: Path, vocab_file: str | None) -> tuple[list[str], list[str]]:
    """Lines about one task's shards, and what is wrong with its labels."""
    index, generator, tokenizer = load_shards(folder, vocab_file)
    of_sentence = "sentence_label" in index["fields"]
    classes = generator.task.sentence_classes if of_sentence else generator.task.token_classes
    measured = {split: measure(folder, split, tokenizer.vocab.unk_id, classes or 0) for split in SPLITS}
    made = f"{index.get('language', '?')}, max_seq_len {index.get('max_seq_len', '?')}"
    lines = [f"== {index['task']} (task_id {generator.task.task_id}, {made})"]
    lines += table(_size_rows(measured))
    if any(level.units for level in measured["train"].spans.values()):
        lines += ["", *table(_span_rows(measured["train"]))]
    if classes:
        lines += ["", *table(_label_rows(measured, generator, of_sentence))]
    if "statistics" in index:
        lines += ["", *_losses(index["statistics"])]
    return lines, faults(index["task"], measured["train"].labels)


def _size_rows(measured: dict[str, SplitStatistics]) -> Iterator[tuple]:
    yield "split", "examples", "tokens", "mean length", "median", "95%", "longest", "unknown"
    for split, found in measured.items():
        count = len(found.lengths)
        median, high, longest = np.percentile(found.lengths, [50, 95, 100]).astype(int) if count else (0, 0, 0)
        yield (split, f"{count:,}", f"{found.tokens:,}", f"{found.tokens / max(count, 1):.1f}", median, high, longest,
               f"{found.unknown / max(found.tokens, 1):.2%}")


def _span_rows(found: SplitStatistics) -> Iterator[tuple]:
    yield "level (train)", "units", "mean tokens", "of several tokens"
    for level, spans in found.spans.items():
        units = max(spans.units, 1)
        yield level, f"{spans.units:,}", f"{spans.tokens / units:.2f}", f"{spans.several / units:.1%}"


def _label_rows(measured: dict[str, SplitStatistics], generator: Generator, of_sentence: bool) -> Iterator[tuple]:
    train, dev = measured["train"].labels, measured["dev"].labels
    used = np.flatnonzero(train + dev)
    expected = f"{1 / max(len(used), 1):.1%}" if of_sentence else "-"
    yield f"class ({len(used)} of {len(train)} occur)", "train", "share", "if even", "dev", "share"
    order = used if len(used) <= 3 * CLASSES_SHOWN else used[np.argsort(-train[used], kind="stable")]
    for place, label in enumerate(order.tolist()):
        if len(order) > 3 * CLASSES_SHOWN and CLASSES_SHOWN <= place < len(order) - CLASSES_SHOWN:
            if place == CLASSES_SHOWN:
                yield f"... {len(order) - 2 * CLASSES_SHOWN} more", "", "", "", "", ""
            continue
        shares = [f"{counts[label] / max(counts.sum(), 1):.1%}" for counts in (train, dev)]
        counts = f"{train[label]:,}", shares[0], expected, f"{dev[label]:,}", shares[1]
        yield f"{label} {generator.describe(label)}", *counts


def _losses(statistics: dict[str, Any]) -> Iterator[str]:
    accepted, rejected = statistics["accepted"], statistics["rejected"]
    thinned = statistics["thinned"]["train"]
    yield f"generated: {accepted['train']:,} train, {accepted['dev']:,} dev; thinned to balance: {thinned:,} train"
    for reason, count in sorted(rejected.items(), key=lambda item: -item[1]):
        yield f"rejected: {reason}: {count:,}"


@cli
def main(argv: Sequence[str]) -> int:
    """Prints what is in the shards of every task; exit code 1 where a label is degenerate."""
    parser = argparse.ArgumentParser(prog="python -m data_gen.audit", description=main.__doc__)
    parser.add_argument("shards", type=Path, help="<shards_dir>, or the folder of one task in it")
    parser.add_argument("--vocab", help="vocabulary; default <shards_dir>/vocab.txt")
    args = parser.parse_args(argv)
    single = (args.shards / "index.json").exists()
    folders = [args.shards] if single else sorted(path.parent for path in args.shards.glob("*/index.json"))
    if not folders:
        raise ConfigError(f"{args.shards}: no finished shards there; make them with: python -m data_gen RECIPE.yaml")
    reports = map(functools.partial(report, vocab_file=args.vocab), folders)
    bad: list[str] = []
    for lines, found in reports:
        print("\n".join(lines) + "\n")
        bad += found
    for fault in bad:
        print(f"DEGENERATE: {fault}")
    return 1 if bad else 0


if __name__ == "__main__":
    main()
