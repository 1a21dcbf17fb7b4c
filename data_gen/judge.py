"""Whether a run may go on with what is rejected, and where rejects are written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_gen.merge import summed
from data_gen.reading.formats import SOURCES
from data_gen.reading.rejects import RejectCounter
from data_gen.text.annotate import CHINESE_PAGE
from data_gen.work_folder import Read
from ernie2.config import Recipe
from ernie2.shards import SPLITS
from ernie2.strict import ConfigError
from ernie2.tasks import Task

ITEMS_BEFORE_JUDGING = 1_000
"""Documents or rows read before data.max_reject_share can stop a run that is still reading."""
LONG = 20
"""Lines of a document, on average, beyond which the ends of documents may be missing."""
MOST_CUT = 0.5
"""Share of documents that were cut off longer ones beyond which the ends of documents are taken to be
missing.
"""
BLANK_LINE = (
    "in a .txt file a document ends at a blank line: put one between documents, or write them as JSON "
    "objects "
    "with `text`, one a line (.jsonl)"
)
MOST_UNKNOWN = 0.5
"""Share of tokens that are [UNK] beyond which the vocabulary is taken for the wrong one."""


class Judge:
    """Stops a run whose input is mostly rejected (data.max_reject_share), mostly unknown to the vocabulary,
    or in another language.

    Args:
        recipe: The recipe.
        source: "documents", "pairs" or "marked_pairs".
        reading: Counts what the reading of files leaves out."""

    def __init__(self, recipe: Recipe, source: str, reading: RejectCounter) -> None:
        self._limit, self._source, self._reading, self._before = (
            recipe.data.max_reject_share,
            source,
            reading,
            reading.total,
        )
        self._vocab_file = recipe.model.vocab_file
        self._files: Counter[str] = Counter()
        self._rejects, self._tokens, self._unknown = RejectCounter(keep=3), 0, 0

    def add(self, read: dict[str, Any]) -> None:
        """Counts a block; `read` as in `data_gen.block_work.Done`."""
        self._files.update(read["files"])
        self._rejects.merge(RejectCounter.from_json(read["rejects"]))
        self._tokens, self._unknown = self._tokens + read["tokens"], self._unknown + read["unknown"]

    def check(self, least: int) -> None:
        """Raises ConfigError where of `least` or more items more than the limit is rejected, or nothing or
        nonsense is left."""
        rejected, seen = self._reading.total - self._before + self._rejects.total, self._files.total()
        items = seen + rejected
        if items < least:
            return
        if self._unknown > MOST_UNKNOWN * max(self._tokens, 1):
            raise ConfigError(
                f"model.vocab_file: {self._unknown / self._tokens:.0%} of the tokens are [UNK] with "
                f"{self._vocab_file}; name the vocabulary of this language, or take the file away and set "
                f"data.vocab_size to have one built"
            )
        if (chinese := self._rejects.notes[CHINESE_PAGE]) > seen / 2:
            raise ConfigError(
                f"data.language: en, but {chinese:,} of {seen:,} documents are Chinese; set data.language=zh"
            )
        if rejected <= self._limit * items and seen:
            return
        found = RejectCounter(keep=3)
        found.merge(self._reading)
        found.merge(self._rejects)
        reasons = "; ".join(
            f"{reason}: {count}, for example "
            + " | ".join(
                " ".join(": ".join(filter(None, row)).split()) for row in found.examples.get(reason, ())
            )
            for reason, count in found.counts.most_common(5)
        )
        raise ConfigError(
            f"data.max_reject_share: {rejected} of {items} {self._source} rejected, more than "
            f"{self._limit:g} of "
            f"them ({reasons or 'the files are empty'}); mend the input, or allow more"
        )

    def warnings(self) -> Iterator[str]:
        """A line for each file that is mostly left out."""
        for file, rejected in (self._reading.files + self._rejects.files).most_common():
            items = self._files[file] + rejected
            if rejected > self._limit * items:
                yield f"WARNING: {file}: {rejected:,} of {items:,} left out; rejects.jsonl says why"
        parts = self._reading.notes["long_document"] + self._rejects.notes["long_document"]
        if parts > MOST_CUT * self._files.total():
            first = (self._reading.examples | self._rejects.examples)["long_document"][0][0]
            yield (
                f"WARNING: {first}: a document of more than 4 MB, cut at line ends, as are {parts:,} of "
                f"{self._files.total():,} documents; {BLANK_LINE}"
            )


def write_rejects(path: Path, rows: list[dict[str, Any]], tasks: Sequence[str]) -> None:
    """Writes rejects, one JSON object a line; those of tasks that this run did not make are kept, where they
    still stand."""
    if path.is_dir():
        raise ConfigError(f"{path}: a folder of that name is in the way of the list of rejects; take it away")
    if path.exists():
        rows += [
            row for row in _rows_of(path) if row["task"] not in tasks and (path.parent / row["task"]).exists()
        ]
    rows.sort(key=lambda row: row["task"] or "")
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    tmp.replace(path)


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of tasks in an earlier list; what is no such row is passed over."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("task"), str):
            yield row


def check_splits(
    task: Task, notes: dict[str, list[dict[str, Any]]], recipe: Recipe, read: Callable[[], dict[str, Read]]
) -> None:
    """Raises ConfigError for a task without train or without dev examples.

    Args:
        task: The task.
        notes: Split -> what it made of each block.
        recipe: The recipe.
        read: Gives what each of the task's sources came to."""
    accepted = {split: sum(note["accepted"] for note in notes[split]) for split in SPLITS}
    empty = next((split for split in SPLITS if not accepted[split]), None)
    if empty is None:
        return
    reasons = Counter(summed(note["reasons"] for split in SPLITS for note in notes[split]))
    why = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common(3))
    raise ConfigError(
        f"task '{task.name}': no example in the {empty} split{f' (rejected: {why})' if why else ''}: "
        + "; ".join(_shortage(source, one, empty, recipe) for source, one in read().items())
    )


def _shortage(source: str, read: Read, empty: str, recipe: Recipe) -> str:
    """Why what was read of a source gives no example of a split, and what helps."""
    key, noun = SOURCES[source].key, "document" if source == "documents" else "row"
    items = read.documents - read.rejects.notes["near_duplicate"]
    mine = read.held_out if empty == "dev" else items - read.held_out
    share = f"data.dev_share ({recipe.data.dev_share:g})"
    files = ", ".join(f"{file}: {count:,}" for file, count in read.files.most_common(3))
    files += ", ..." * (len(read.files) > 3)
    lines = f"{read.lines:,} line{'s' * (read.lines != 1)}"
    what = f"{key} is {items:,} {noun}{'s' * (items != 1)} in {lines} ({files})"
    remedy = f"give more {noun}s"
    if noun == "document" and read.lines > LONG * items:
        remedy += f", or mark where they end: {BLANK_LINE}"
    if items == 1:
        return f"{what}, and one {noun} falls to one split as a whole, whatever {share} is; {remedy}"
    if not mine:
        change = "raise" if empty == "dev" else "lower"
        return (
            f"{what}, none of them in that split: a hash of their text holds out {share} of them; {change} "
            "it, or "
            f"{remedy}"
        )
    either = f"raise {share}" if empty == "dev" else "leave the task out of curriculum.stages"
    them = "it" if mine == 1 else "them"
    return (
        f"{what}, {mine:,} of them in that split, and the task makes nothing of {them}; {either}, or {remedy}"
    )
