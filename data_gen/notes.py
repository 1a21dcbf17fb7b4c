"""What the blocks of a run came to, as their workers left it in the work folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_gen.reading.rejects import RejectCounter, split_source
from data_gen.work_folder import blocks_room, read_note
from ernie2.shards import SPLITS
from ernie2.tasks import Task

ROWS_KEPT = 10_000
"""Rejects of one reason that rejects.jsonl names."""


@dataclass
class Read:
    """What reading and annotating the blocks of a source came to."""

    rejects: RejectCounter = field(default_factory=lambda: RejectCounter(keep=ROWS_KEPT))
    documents: int = 0
    """Documents or pairs."""
    files: Counter = field(default_factory=Counter)
    """File -> its documents or pairs."""
    held_out: int = 0
    """Documents or pairs of the dev split."""
    lines: int = 0
    size: int = 0
    """Bytes."""
    hits: Counter = field(default_factory=Counter)
    """Number of a dictionary entry -> how often it was found."""
    unknown: Counter = field(default_factory=Counter)
    """Text that became [UNK] -> how often, at least."""


class Notes:
    """The notes of a run's blocks.

    Args:
        work: The work folder.

    Attributes:
        names: Source and split, as in names["documents.train"] -> its blocks, in order.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._made: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.names: dict[str, list[str]] = {}

    def block(self, name: str) -> dict[str, Any] | None:
        """What reading and annotating a block came to; None where it is not done."""
        return read_note(blocks_room(self._work, name.partition(".")[0]) / f"{name}.json")

    def is_made(self, task: Task, name: str) -> bool:
        """Whether a task has been run on a block."""
        return (self._work / task.name / f"{name}.json").exists()

    def made(self, task: Task, split: str) -> list[dict[str, Any]]:
        """What a task made of each block of a split: accepted, labels, reasons. Read once, so all of them have to be done."""
        key = task.name, split
        if key not in self._made:
            notes = [read_note(self._work / task.name / f"{name}.json") for name in self._names_of(task, split)]
            self._made[key] = [{what: note[what] for what in ("accepted", "labels", "reasons")} for note in notes]
        return self._made[key]

    def spills(self, task: Task, split: str) -> list[Path]:
        """Spill files of the blocks of a split that hold examples of a task."""
        return [self._work / task.name / f"{name}.spill"
                for name, note in zip(self._names_of(task, split), self.made(task, split), strict=True) if note["accepted"]]

    def rejected(self, task: Task) -> Iterator[dict[str, Any]]:
        """What a task rejected, so many of each reason and block: {task, file, line, reason, text}."""
        for split in SPLITS:
            for name in self._names_of(task, split):
                for source, reason, text in read_note(self._work / task.name / f"{name}.json")["rejected"]:
                    file, line = split_source(source)
                    yield {"task": task.name, "file": file, "line": line, "reason": reason, "text": text}

    def read(self, source: str) -> Read:
        """What reading and annotating the blocks of a source came to."""
        read = Read()
        for split in SPLITS:
            for name in self.names[f"{source}.{split}"]:
                note = self.block(name)
                read.rejects.merge(RejectCounter.from_json(note["rejects"]))
                if split == "train":  # all of the input; the dev blocks are what they held out
                    read.files.update(note["files"])
                    read.held_out += len(note["dev"])
                    read.lines += note["lines"]
                    read.size += note["size"]
                hits, unknown = read_note(blocks_room(self._work, source) / f"{name}.hits.json")
                read.hits.update(dict(hits))
                read.unknown.update(dict(unknown))
        read.documents = read.files.total()
        return read

    def _names_of(self, task: Task, split: str) -> list[str]:
        """Blocks of a split that a task reads."""
        return [name for source in task.sources for name in self.names.get(f"{source}.{split}", ())]
