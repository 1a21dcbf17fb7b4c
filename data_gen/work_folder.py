"""The work folder beside the shards: what an interrupted run has finished, kept for the next one.

    <shards_dir>/.lock                          held by the run at work
    <shards_dir>/.work/blocks.<source>/<block>.json    what reading and annotating a block came to
                                                and <block>.hits.json: numbers of the dictionary entries found
    <shards_dir>/.work/<task>/<block>.json      what a task made of it, with <block>.spill, its examples
    <shards_dir>/.work/<task>/shards/           shards being merged
    <shards_dir>/.work/<task>/merged/           what each of them holds
    <shards_dir>/.work/<name>/origin.json       what the above depends on

A .json file is written when the work it tells of is done. The folder is gone when all shards are."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_gen.reading.rejects import RejectCounter, split_source
from ernie2.disk import lock
from ernie2.shards import SPLITS
from ernie2.strict import ConfigError, make_folder
from ernie2.tasks import Task

WORK = ".work"


def blocks_room(work: Path, source: str) -> Path:
    """Folder of what reading and annotating the blocks of a source came to."""
    return work / f"blocks.{source}"


def write_note(path: Path, value: Any) -> None:
    """Writes JSON under another name first: a file that has its name is whole. Not synced: power loss costs
    the work."""
    tmp = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")
    tmp.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    tmp.replace(path)


def read_note(path: Path) -> Any:
    """What write_note wrote; None where there is no such file, or none that can be read (after a power
    loss)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def locked(shards: Path) -> Iterator[None]:
    """Keeps other runs out of a shards folder. Raises ConfigError where one is at work."""
    make_folder(shards, "data.shards_dir")
    try:
        held = lock(shards / ".lock")
    except OSError as error:
        raise ConfigError(
            f"data.shards_dir: {shards} cannot be written ({error.strerror}); name another folder"
        ) from None
    if isinstance(held, str):
        raise ConfigError(
            f"{shards}: another run is making shards there ({held}); wait for it, stop it, "
            f"or name another data.shards_dir"
        )
    with held:
        yield


def open_room(room: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """Makes a folder of the work folder ready; throws away what depends on something else than `origin`.

    Returns:
        The origin of the finished work that was thrown away, or None where there was none."""
    path = room / "origin.json"
    before = read_note(path)
    if before != json.loads(json.dumps(origin)):
        had_work = len(list(room.glob("*.json"))) > 1
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        write_note(path, origin)
        return before if had_work else None
    for left in room.rglob(
        "*.tmp"
    ):  # of a process that was killed while it wrote a note, among the shards too
        left.unlink(missing_ok=True)
    return None


def remove_files(paths: Iterable[Path]) -> None:
    """Takes files away that are of no more use; what resists is left to `sweep`."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def sweep(work: Path, finished: Iterable[str]) -> None:
    """Takes away the rooms of tasks whose shards are finished, and the work folder where no other task's is
    left."""
    for name in finished:
        shutil.rmtree(work / name, ignore_errors=True)
    if work.exists() and all(room.name.startswith("blocks.") for room in work.iterdir()):
        shutil.rmtree(work)


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
        names: Source and split, as in names["documents.train"] -> its blocks, in order."""

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
        """What a task made of each block of a split: accepted, labels, reasons. Read once, so all of them
        have to be done."""
        key = task.name, split
        if key not in self._made:
            notes = [
                read_note(self._work / task.name / f"{name}.json") for name in self._names_of(task, split)
            ]
            self._made[key] = [
                {what: note[what] for what in ("accepted", "labels", "reasons")} for note in notes
            ]
        return self._made[key]

    def spills(self, task: Task, split: str) -> list[Path]:
        """Spill files of the blocks of a split that hold examples of a task."""
        return [
            self._work / task.name / f"{name}.spill"
            for name, note in zip(self._names_of(task, split), self.made(task, split), strict=True)
            if note["accepted"]
        ]

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
