"""One run of data generation: blocks to spill files, spill files to shards, kept in a work folder all the
while.

Blocks and buckets that an interrupted run has finished are not done again."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.block_work import Settings, dictionary_notes, found_by_file, named_entry, work
from data_gen.blocks import PIECES_A_BLOCK, Block, block_bytes_for, group_dev, group_pieces, parse_block
from data_gen.engine import Call, Engine
from data_gen.judge import ITEMS_BEFORE_JUDGING, Judge, check_splits, write_rejects
from data_gen.merge import Merged, finish_task, merge_buckets, merge_notes, summed, thinning_of
from data_gen.progress import Progress
from data_gen.provenance import Inputs, blocks_origin, what_changed
from data_gen.reading.documents import TextOptions
from data_gen.reading.duplicates import duplicates, signatures
from data_gen.reading.pieces import read_pieces
from data_gen.reading.rejects import RejectCounter
from data_gen.text.segmenters import load_segmenter
from data_gen.work_folder import WORK, Notes, Read, blocks_room, open_room, remove_files, sweep
from ernie2.config import Recipe
from ernie2.shards import SPLITS
from ernie2.strict import ConfigError
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

Out = Callable[[str], None]
HITS_KEPT, JOINED_AMONG, UNKNOWN_NAMED = 200, 5_000, 50
"""Dictionary entries named in index.json: the most frequent ones, and of so many those that join several
words; texts that became [UNK]."""


@dataclass
class Job:
    """The making of the shards of some tasks."""

    recipe: Recipe
    tasks: list[Task]
    inputs: Inputs
    vocab: Vocab
    engine: Engine
    out: Out
    shards: Path
    settings: Settings
    block_bytes: dict[str, int]
    notes: Notes
    reading: dict[str, RejectCounter]
    """Source -> what the reading of its files left out."""
    warnings: list[str] = field(default_factory=list)
    """Said at the end."""

    @classmethod
    def of(
        cls, recipe: Recipe, tasks: list[Task], inputs: Inputs, vocab: Vocab, engine: Engine, out: Out
    ) -> Job:
        """The job of a recipe; nothing is touched on disk."""
        sources = [
            source
            for source in ("documents", "pairs", "marked_pairs")
            if inputs.paths(source) and any(source in task.sources for task in tasks)
        ]
        sizes = {source: inputs.total_bytes([source]) for source in sources}
        buckets = {
            task.name: sum(sizes.get(source, 0) for source in task.sources) for task in tasks
        }  # input bytes
        shards = Path(recipe.data.shards_dir)
        return cls(
            recipe,
            tasks,
            inputs,
            vocab,
            engine,
            out,
            shards,
            Settings.of(recipe, inputs.dictionaries, buckets),
            {source: block_bytes_for(size) for source, size in sizes.items()},
            Notes(shards / WORK),
            {source: RejectCounter() for source in sizes},
        )

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.shards / WORK

    def do(self, origins: dict[str, Any]) -> None:
        """Does all of it, and takes the work folder away. `origins`: task -> what its shards depend on."""
        self._open_rooms(origins, self.vocab.digest)
        self._make_blocks()
        self._merge()
        self._finish_all(origins)

    def _open_rooms(self, origins: dict[str, Any], vocab_digest: str) -> None:
        """Makes the work folder ready; says what is thrown away of an interrupted run, and why."""
        for source in self.block_bytes:
            open_room(
                blocks_room(self.work, source),
                blocks_origin(self.recipe, self.inputs, [source], vocab_digest),
            )
        for task in self.tasks:
            if (
                merge_notes(self._made(task)).exists() and not self._made(task).exists()
            ):  # finished once, and taken away since
                shutil.rmtree(self.work / task.name)
            before = open_room(self.work / task.name, origins[task.name])
            if before is not None:
                self.out(
                    f"{task.name}: interrupted work is thrown away: "
                    f"{what_changed(before, origins[task.name], self.inputs)}"
                )
        finished = sum(
            1
            for source in self.block_bytes
            for _ in blocks_room(self.work, source).glob("*.train.*.hits.json")
        )
        if finished:
            self.out(f"going on with interrupted work: {finished:,} blocks are done")

    def _make_blocks(self) -> None:
        """Annotates all blocks of what is not held out and runs the tasks on them."""
        with Progress(
            sum(self.inputs.total_bytes([source]) for source in self.block_bytes), self.out
        ) as progress:
            blocks = {source: self._train_blocks(source) for source in self.block_bytes}
            judges = {source: Judge(self.recipe, source, self.reading[source]) for source in blocks}
            calls = (
                self._train_calls(source, blocks[source], judge, progress) for source, judge in judges.items()
            )
            for done in self.engine.run(itertools.chain.from_iterable(calls)):
                judges[done.source].add(done.read)
                judges[done.source].check(ITEMS_BEFORE_JUDGING)
                progress.add(done.size)
                progress.estimate(done, self.engine.workers, self.shards)
            for judge in judges.values():
                judge.check(1)
                self.warnings += judge.warnings()

    def _train_blocks(self, source: str) -> Iterator[Block]:
        """Blocks of the input, near-duplicate documents marked where the recipe asks for it."""
        options = TextOptions.of(self.recipe.data, self.recipe.seed)

        def read() -> Iterator[Block]:
            size = self.block_bytes[source]
            pieces = read_pieces(
                self.inputs.paths(source), source, options, self.reading[source], -(-size // PIECES_A_BLOCK)
            )
            return group_pieces(pieces, source, size)

        if source != "documents" or not self.recipe.data.drop_near_duplicates:
            return read()
        self.out("looking for near-duplicate documents")
        folder = blocks_room(self.work, source)
        files = self.engine.run(partial(block_signatures, block, options, folder) for block in read())
        marks = duplicates([np.load(file, allow_pickle=False) for file in files])
        self.out(f"near-duplicate documents left out: {sum(int(one.sum()) for one in marks):,}")
        self.reading[source] = RejectCounter()  # the second reading counts again
        return (
            replace(block, drop=frozenset(np.flatnonzero(mark).tolist()))
            for block, mark in zip(read(), marks, strict=True)
        )

    def _train_calls(
        self, source: str, blocks: Iterable[Block], judge: Judge, progress: Progress
    ) -> Iterator[Call]:
        """Work on the blocks of the input that are not done yet; the others are counted."""
        for block, call in self._calls(blocks, f"{source}.train"):
            if call is not None:
                yield call
            else:
                judge.add(self.notes.block(block.name))
                progress.add(block.size, resumed=True)

    def _dev_calls(self) -> Iterator[Call]:
        """Work on the blocks of what was held out that are not done yet."""
        for source, block_bytes in self.block_bytes.items():
            notes = (self.notes.block(name) for name in self.notes.names[f"{source}.train"])
            for _, call in self._calls(group_dev(notes, source, block_bytes), f"{source}.dev"):
                if call is not None:
                    yield call

    def _calls(self, blocks: Iterable[Block], kind: str) -> Iterator[tuple[Block, Call | None]]:
        """Blocks of a kind with what is to be done; None where it is done already."""
        names = self.notes.names[kind] = []
        tasks = [task for task in self.tasks if kind.partition(".")[0] in task.sources]
        for block in blocks:
            names.append(block.name)
            missing = [task for task in tasks if not self.notes.is_made(task, block.name)]
            is_done = not missing and self.notes.block(block.name) is not None
            yield block, None if is_done else partial(work, block, missing, self.settings, self.work)

    def _merge(self) -> None:
        """Turns the spill files of every task into its shards, without their index; makes the dev blocks
        meanwhile."""
        unmerged = {task.name: len(self._unmerged(task, "train")) for task in self.tasks}
        # Deleting takes the disk's time, not the processor's: a thread does it meanwhile. All processes are
        # there already.
        with (
            Progress(sum(unmerged.values()), self.out, "merge", unit="shards") as progress,
            ThreadPoolExecutor(1) as aside,
        ):
            for done in self.engine.run(itertools.chain(self._dev_calls(), self._merge_calls("train"))):
                if isinstance(done, Merged):
                    progress.add(done.shards)
                    unmerged[done.task.name] -= done.shards
                    if not unmerged[done.task.name]:
                        aside.submit(remove_files, self.notes.spills(done.task, "train"))
            for task in self.tasks:
                check_splits(
                    task,
                    {split: self.notes.made(task, split) for split in SPLITS},
                    self.recipe,
                    lambda task=task: {
                        source: self.notes.read(source)
                        for source in self.block_bytes
                        if source in task.sources
                    },
                )
            for _ in self.engine.run(self._merge_calls("dev")):
                pass

    def _merge_calls(self, split: str) -> Iterator[Call]:
        """What is left to merge of a split. A task is looked at when its first call is asked for: others are
        merged meanwhile."""
        for task in self.tasks:
            made = self._made(task)
            for folder in (made, merge_notes(made)):
                (folder / split).mkdir(parents=True, exist_ok=True)
            parts = list(self._parts(task, split))
            if not parts:  # then the spill files may be gone
                continue
            spills = self.notes.spills(task, split)
            if gone := [
                path for path in spills if not path.exists()
            ]:  # a note of a shard was lost with the power
                raise ConfigError(
                    f"data.shards_dir: {gone[0]} is gone, and not all shards are made of it; take the folder "
                    f"{self.work / task.name} away and run the same command again: this task is made anew"
                )
            counts = {
                one: [note["labels"] for note in self.notes.made(task, one)]
                for one in dict.fromkeys(("train", split))
            }
            thinning = thinning_of(task, counts, split, spills)
            yield from (
                partial(merge_buckets, task, split, part, spills, thinning, made, len(self.vocab))
                for part in parts
            )

    def _parts(self, task: Task, split: str) -> Iterator[range]:
        """Buckets that are no shards yet, in parts that a worker merges at a time: small ones where there are
        few to share out."""
        left = self._unmerged(task, split)
        most = min(
            self.settings.buckets_at_once(task.name, split), max(1, len(left) // (4 * self.engine.workers))
        )
        while left:
            count = next(
                (i for i in range(1, min(most, len(left))) if left[i] != left[0] + i), min(most, len(left))
            )
            yield range(left[0], left[0] + count)
            left = left[count:]

    def _unmerged(self, task: Task, split: str) -> list[int]:
        """Buckets that are no shards yet."""
        notes = merge_notes(self._made(task)) / split
        return [
            number
            for number in range(self.settings.buckets_of(task.name, split))
            if not (notes / f"{number:05d}.json").exists()
        ]

    def _made(self, task: Task) -> Path:
        """Where the shards of a task are until all are there."""
        return self.work / task.name / "shards"

    def _finish_all(self, origins: dict[str, Any]) -> None:
        """Writes the vocabulary, the rejects and the indexes, and takes the work folder away."""
        if Path(self.recipe.model.vocab_file).resolve() != (self.shards / "vocab.txt").resolve():
            shutil.copyfile(self.recipe.model.vocab_file, self.shards / "vocab.txt")
        read = {source: self.notes.read(source) for source in self.block_bytes}
        write_rejects(
            self.shards / "rejects.jsonl", list(self._reject_rows(read)), [task.name for task in self.tasks]
        )
        for task in self.tasks:
            self._finish(
                task, [read[source] for source in task.sources if source in read], origins[task.name]
            )
        self._report(read)
        sweep(self.work, [task.name for task in self.tasks])

    def _finish(self, task: Task, read: list[Read], source: dict[str, Any]) -> None:
        """Writes the index of a task and gives its folder the name."""
        notes = {split: self.notes.made(task, split) for split in SPLITS}
        blocks = {
            "accepted": {split: sum(note["accepted"] for note in notes[split]) for split in SPLITS},
            "rejected": summed(note["reasons"] for split in SPLITS for note in notes[split]),
            "read_rejected": summed(
                [*(one.counts for one in self.reading.values()), *(one.rejects.counts for one in read)]
            ),
            "notes": summed(
                [
                    *(one.notes for one in self.reading.values()),
                    *(one.rejects.notes for one in read),
                    dictionary_notes(self.settings),
                ]
            ),
            "documents": sum(one.documents for one in read),
            "input_bytes": sum(one.size for one in read),
            "unknown_tokens": sum((one.unknown for one in read), Counter()).most_common(UNKNOWN_NAMED),
            **self._hits(sum((one.hits for one in read), Counter())),
        }
        index = finish_task(task, self._made(task), self.shards / task.name, len(self.vocab), blocks, source)
        self.out(
            f"{task.name}: {index['samples']['train']:,} train and {index['samples']['dev']:,} dev examples, "
            f"{sum(index['tokens'].values()) / 1e6:.2f} M tokens"
        )

    def _hits(self, hits: Counter) -> dict[str, Any]:
        """Dictionary entries found most often, of all and of those that join several words."""
        frequent = [
            [*named_entry(self.settings, number), count] for number, count in hits.most_common(JOINED_AMONG)
        ]
        joined = []
        if frequent and self.recipe.data.language == "zh":
            segmenter = load_segmenter(self.settings.segmenter)
            joined = [row for row in frequent if len(segmenter.stops(row[0])) > 1]
        return {
            "dictionaries": self._dictionaries(hits),
            "dictionary_hits_total": hits.total(),
            "dictionary_hits": frequent[:HITS_KEPT],
            "dictionary_hits_joined": joined[:HITS_KEPT],
        }

    def _dictionaries(self, hits: Counter) -> list[list[Any]]:
        """Rows of a dictionary file, its entries, and how many of them were found."""
        counts = {file: counts for file, *counts in found_by_file(self.settings, hits)}
        return [[str(path), *counts[str(path.absolute())]] for path in self.inputs.dictionaries]

    def _reject_rows(self, read: dict[str, Read]) -> Iterator[dict[str, Any]]:
        """What was left out, one row each, up to so many a reason: {task (null: the readers), file, line,
        reason, text}."""
        for counter in (*self.reading.values(), *(one.rejects for one in read.values())):
            yield from ({"task": None, **row} for row in counter.rows())
        for task in self.tasks:
            yield from self.notes.rejected(task)

    def _report(self, read: dict[str, Read]) -> None:
        """One line a reason."""
        counters = [*self.reading.values(), *(one.rejects for one in read.values())]
        for what, counts in (
            ("left out while reading", sum((one.counts for one in counters), Counter())),
            ("changed or set aside", sum((one.notes for one in counters), dictionary_notes(self.settings))),
        ):
            for reason, count in counts.most_common():
                self.out(f"{what}: {reason}: {count:,}")
        for task in self.tasks:
            reasons = Counter(
                summed(note["reasons"] for split in SPLITS for note in self.notes.made(task, split))
            )
            for reason, count in reasons.most_common():
                self.out(f"left out by {task.name}: {reason}: {count:,}")
        for source, one in read.items():
            self.out(f"{source.replace('_', ' ')} read: {one.documents:,}")
        for file, entries, found in self._dictionaries(sum((one.hits for one in read.values()), Counter())):
            self.out(f"dictionary {file}: {found:,} of {entries:,} entries found in the text")
            if not found:
                self.warnings.append(
                    f"WARNING: {file}: none of its {entries:,} entries is in the text: is it of this "
                    f"language and field, a `word [tag]` a line? See docs/data.md#dictionaries"
                )
        for line in self.warnings:
            self.out(line)


def block_signatures(block: Block, options: TextOptions, folder: Path) -> Path:
    """A file in the folder with the signatures of a block's documents, see `data_gen.reading.duplicates`."""
    path = folder / f"{block.name}.signatures.npy"
    np.save(path, signatures([raw.text for raw in parse_block(block, options, RejectCounter())]))
    return path
