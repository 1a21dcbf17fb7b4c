"""One task of an audit: everything found out about its shards, before anything is judged or drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.filesize import decimal

from data_gen.audit.files import Reject, damaged_files, read_rejects
from data_gen.audit.measure import Padding, SplitMeasure, measure, padding
from data_gen.generators import Generator
from data_gen.readable import Readable
from data_gen.show import load_shards
from ernie2.config import ConfigError, CurriculumConfig, DataConfig, LrConfig, ModelConfig, Recipe
from ernie2.shards import SPLITS, Example, ShardReader
from ernie2.tokenizer import Tokenizer

SOURCES = {"documents": "corpus", "pairs": "query log", "marked_pairs": "marked pairs"}
"""Source of a task -> the words for it."""
EXAMPLES = 3
"""Examples shown."""
LOOKED_AT = 400
"""Examples among which those of the page are chosen."""
READABLE_TOKENS = 160
"""Shorter examples are chosen first."""


@dataclass
class Expectation:
    """What the classes of a head should hold."""

    words: str
    even: float | None = None
    """Share of each class if all were equal; None where nothing evens them out."""
    cap: float | None = None
    """Largest share that the task's YAML lets a class keep."""


@dataclass(frozen=True)
class ClassCount:
    """A class of a head: its name, its examples (or tokens) and their shares, of train and dev."""

    label: int
    name: str
    counts: tuple[int, int]
    shares: tuple[float, float]


@dataclass
class TaskAudit:
    """What is known of one task's shards.

    Attributes:
        name: The task.
        folder: <shards_dir>/<task>.
        damage: What is wrong with its files; nothing below is known where they cannot be read.
        index: Its index.json.
        generator: The task's.
        tokenizer: Of its vocabulary.
        splits: Measures of train and dev.
        padding: Of the training batches.
        rejects: (task or None, reason) -> what rejects.jsonl tells.
        examples: Some examples, decoded.
        stale: Whether the task's YAML is no longer the one that the shards were made with."""

    name: str
    folder: Path
    damage: list[str] = field(default_factory=list)
    index: dict[str, Any] = field(default_factory=dict)
    generator: Generator | None = None
    tokenizer: Tokenizer | None = None
    splits: dict[str, SplitMeasure] = field(default_factory=dict)
    padding: Padding | None = None
    rejects: dict[tuple[str | None, str], Reject] = field(default_factory=dict)
    examples: list[Readable] = field(default_factory=list)
    stale: bool = False

    @property
    def statistics(self) -> dict[str, Any]:
        """What the generation counted; empty for shards from elsewhere."""
        return self.index.get("statistics") or {}

    @property
    def imported(self) -> dict[str, Any] | None:
        """What index.json says of the import; None for shards that data_gen made."""
        return self.index.get("imported")

    @property
    def no_such_label(self) -> set[int]:
        """Classes of a sentence head that the imported format has no label for."""
        labels = (self.imported or {}).get("labels")
        return (
            set(range(self.generator.task.sentence_classes or 0)) - set(labels.values()) if labels else set()
        )

    @property
    def unknown_texts(self) -> list[tuple[str, int]]:
        """What [UNK] stands for as it was written, the most frequent first; empty if not counted."""
        return [(str(text), int(count)) for text, count in self.statistics.get("unknown_tokens") or []]

    @property
    def rejected(self) -> Counter[str]:
        """reason -> what the generator rejected."""
        return Counter(self.statistics.get("rejected") or {})

    def name_of(self, label: int) -> str:
        """A label in words."""
        return self.generator.describe(label)

    def used(self, head: str) -> np.ndarray:
        """int64: classes of a head that can occur; a generator calls others "not used" in their words."""
        classes = range(len(self.splits["train"].labels[head]))
        return np.array([label for label in classes if "not used" not in self.name_of(label)], np.int64)

    def classes(self, head: str) -> list[ClassCount]:
        """The classes of a head that can occur, in order."""
        both = [self.splits[split].labels[head] for split in ("train", "dev")]
        totals = [max(int(counts.sum()), 1) for counts in both]
        found = []
        for label in self.used(head).tolist():
            counts = tuple(int(of[label]) for of in both)
            shares = tuple(count / total for count, total in zip(counts, totals))
            found.append(ClassCount(label, self.name_of(label), counts, shares))
        return found

    def total(self, key: str) -> int:
        """Sum over the splits of what the generation counted: "accepted" or "thinned"."""
        return sum((self.statistics.get(key) or {}).values())

    def left_out(self) -> Iterator[tuple[str, int, str]]:
        """(reason, count, examples) of what the generator rejected."""
        for reason, count in self.rejected.most_common():
            reject = self.rejects.get((self.name, reason))
            yield reason, count, " · ".join(reject.examples[:2]) if reject else ""

    def hits(self) -> Iterator[tuple[str, list[tuple[str, int]]]]:
        """(kind, [(entry, count)]) of the dictionary entries found most often."""
        for key, several in (("dictionary_hits", ""), ("dictionary_hits_joined", " of several words")):
            for kind in ("entity", "phrase"):
                found = [
                    (str(entry), int(count))
                    for entry, of, count in self.statistics.get(key) or []
                    if of == kind
                ]
                if found:
                    yield kind + several, found

    def sizes(self) -> Iterator[tuple[str, ...]]:
        """Rows: what, train, dev."""
        splits = list(self.splits.values())
        for what, show in (
            ("examples", lambda of: f"{of.samples:,}"),
            ("tokens", lambda of: f"{of.tokens:,}"),
            ("on disk", lambda of: decimal(of.bytes)),
            ("mean", lambda of: f"{of.tokens / max(of.samples, 1):.1f}"),
            ("median", lambda of: str(of.percentile(0.5))),
            ("95%", lambda of: str(of.percentile(0.95))),
            ("longest", lambda of: str(of.longest)),
            ("looked into", lambda of: f"{of.sampled:,}" if of.sampled < of.samples else "all"),
            ("[UNK]", lambda of: f"{of.unknown_share:.2%}"),
            ("repeated", lambda of: f"{of.repeated_share:.1%}"),
        ):
            yield what, *map(show, splits)

    def masking(self, levels: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Rows: level, its units, their mean length, the longest, share of the masked tokens in each kind."""
        for level in levels:
            units = self.splits["train"].units[level]
            shares = (f"{share:.1%}" if share else "–" for share in units.shares)
            yield level, f"{units.units.sum():,}", f"{units.mean_length:.2f}", str(units.longest), *shares

    def expectation(self, head: str) -> Expectation:
        """What the classes of head "sentence" or "token" should hold in the training split."""
        if head == "token":
            return Expectation("as the text has it: nothing evens out the classes of tokens")
        if self.imported is not None:
            return Expectation("as the imported files have it: an import evens out nothing")
        task, counts = self.generator.task, self.splits["train"].labels[head]
        even, limits = 1 / max(len(self.used(head)), 1), []
        total, median = (
            max(int(counts.sum()), 1),
            float(np.median(counts[counts > 0])) if counts.any() else 0.0,
        )
        words = []
        if task.balance is not None:
            limits.append(task.balance * median / total)
            times = "" if task.balance == 1 else f"{task.balance:g} times "
            words.append(f"balance {task.balance:g}, no class above {times}the median class's count")
        most = getattr(task, "max_per_class", None)
        if most is not None:
            limits.append(most / total)
            words.append(f"max_per_class {most:,}")
        if not words:
            return Expectation(
                f"even, {even:.1%} each, where the generator draws the classes alike (no balance is set)",
                even,
            )
        return Expectation("; ".join(words), even, min(limits))


def examine(
    folder: Path, vocab_file: str | None, recipe: Recipe, *, digests: bool, sample_tokens: int
) -> TaskAudit:
    """Reads and measures the shards of one task.

    Args:
        folder: <shards_dir>/<task>.
        vocab_file: The vocabulary; default <shards_dir>/vocab.txt.
        recipe: Its batch settings plan the batches.
        digests: Whether every byte is compared with the digests in index.json.
        sample_tokens: Tokens of a split that are looked into one by one.

    Raises:
        ConfigError: no shards there, an unknown task, another vocabulary."""
    index, generator, tokenizer = load_shards(folder, vocab_file)
    task = generator.task
    found = TaskAudit(
        index["task"], folder, damaged_files(folder, index, digests), index, generator, tokenizer
    )
    found.rejects = _rejects(found)
    found.stale = index.get("task_digest") != task.digest()
    try:
        readers = {split: ShardReader(folder, split, task) for split in SPLITS}
    except ConfigError as error:
        found.damage = found.damage or [str(error)]
        return found
    if any(".offsets.npy" in fault for fault in found.damage):
        return found
    found.splits = {
        split: measure(reader, task, tokenizer.vocab, sample_tokens) for split, reader in readers.items()
    }
    found.padding = padding(
        readers["train"], task, recipe, index.get("max_seq_len") or found.splits["train"].longest
    )
    if not any(measured.faults for measured in found.splits.values()):
        found.examples = [Readable(example, tokenizer) for example in telling_examples(readers["train"])]
    return found


def _rejects(task: TaskAudit) -> dict[tuple[str | None, str], Reject]:
    """What the generation, or the import, wrote down beside this task's shards."""
    shards = task.folder.absolute().parent
    if task.imported is not None:  # an import has a file of its own, whose rows name no task
        return {
            (task.name, reason): reject
            for (_, reason), reject in read_rejects(shards / f"{task.name}.rejects.jsonl").items()
        }
    return {
        key: reject
        for key, reject in read_rejects(shards / "rejects.jsonl").items()
        if key[0] in (None, task.name)
    }


def telling_examples(reader: ShardReader, count: int = EXAMPLES) -> list[Example]:
    """A few examples that show much: of different classes, with a phrase or an entity, not too long."""

    def dull(example: Example) -> int:
        spans = example.span_ids
        plain = spans is not None and all(
            np.array_equal(spans["word"], spans[level]) for level in ("phrase", "entity")
        )
        few = example.token_labels is not None and len(np.unique(example.token_labels)) < 3
        return 2 * (len(example.token_ids) > READABLE_TOKENS) + plain + few

    looked_at = [reader[i] for i in range(min(len(reader), LOOKED_AT))]
    rest, chosen, classes = sorted(looked_at, key=dull), [], set()
    for fresh in (True, False):
        for example in list(rest):
            if len(chosen) < count and (not fresh or example.sentence_label not in classes):
                classes.add(example.sentence_label)
                chosen.append(example)
                rest = [other for other in rest if other is not example]
    return chosen


def default_recipe(tasks: Sequence[str]) -> Recipe:
    """A recipe of default figures, for shards whose own is not given."""
    return Recipe(
        "defaults",
        "",
        ModelConfig(""),
        DataConfig(""),
        CurriculumConfig([[name] for name in tasks], 1),
        LrConfig(1e-4),
    )


def reading(tasks: Sequence[TaskAudit]) -> Iterator[tuple[str, str, dict[str, int], str]]:
    """What was left out or changed before any task saw it: (kind, code, source -> count, an example)."""
    rejects = {code: reject for task in tasks for (of, code), reject in task.rejects.items() if of is None}
    for kind, key in (("left out", "read_rejected"), ("changed or set aside", "notes")):
        found: dict[str, dict[str, int]] = {}
        for task in tasks:
            names = [SOURCES.get(source, source) for source in task.generator.task.sources]
            source = " + ".join(names) if task.imported is None else "imported lines"
            for code, count in (task.statistics.get(key) or {}).items():
                counts = found.setdefault(code, {})
                counts[source] = max(
                    counts.get(source, 0), count
                )  # tasks share their sources: the larger of both
        for code, counts in sorted(found.items(), key=lambda item: -max(item[1].values())):
            reject = rejects.get(code) if key == "read_rejected" else None
            yield kind, code, counts, " · ".join(reject.examples[:2]) if reject else ""


def dictionaries(tasks: Sequence[TaskAudit]) -> dict[str, tuple[int, int]]:
    """Dictionary file -> its entries, and how many of them the task that has the most found."""
    counts: dict[str, tuple[int, int]] = {}
    for task in tasks:
        for file, entries, found in task.statistics.get("dictionaries") or []:
            counts[file] = max((entries, found), counts.get(file, (0, 0)))
    return counts
