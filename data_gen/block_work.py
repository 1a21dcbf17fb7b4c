"""The work on a block: annotating it once and running the generators on it.

Every block draws from its own random numbers (seed, task, source, block, split): what is made of it is the
same whichever process does it, and however often. What a block came to lies in the work folder when its
worker is done with it, so that an interrupted run need not do it again."""

from __future__ import annotations

import gc
import resource
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.blocks import Block, Raw, parse_block
from data_gen.engine import gc_paused
from data_gen.generators import load_generator
from data_gen.packing import Packed, Packer, assemble
from data_gen.reading.documents import TextOptions, is_dev
from data_gen.reading.rejects import RejectCounter, split_source
from data_gen.rows import check_rows
from data_gen.spill import write_spill
from data_gen.text.annotate import Annotator
from data_gen.text.segmenters import load_segmenter
from data_gen.text.tokens import Document
from data_gen.work_folder import blocks_room, write_note
from ernie2.config import Recipe
from ernie2.disk import file_digest
from ernie2.shards import SPLITS
from ernie2.strict import ConfigError
from ernie2.tasks import Task
from ernie2.tokenizer import Tokenizer, Vocab

BUCKET_TOKENS, MOST_BUCKET_TOKENS, MANY_BUCKETS = 3_000_000, 8_000_000, 1_500
"""Tokens of a shard, about. Likewise larger where there would be more than MANY_BUCKETS."""
MERGED_TOKENS = 12_500_000
"""Most tokens that a worker merges at a time, about: shards whose examples it reads together from the files
of all blocks.
"""
TOKENS_A_BYTE = 0.36
"""Tokens that one task makes of a byte of Chinese text, about."""
UNKNOWN_KEPT = 200
"""Texts that became [UNK] named for each block: the most frequent ones."""
_SOURCE_NUMBERS = {"documents": 0, "pairs": 1, "marked_pairs": 2}


@dataclass(frozen=True)
class Settings:
    """What a worker needs besides a block; small, and the key under which it keeps its annotator."""

    vocab_file: str
    lower_case: bool
    language: str
    segmenter: str
    dictionaries: tuple[str, ...]
    text: TextOptions
    dev_share: float
    max_seq_len: int
    seed: int
    input_bytes: tuple[tuple[str, int], ...]
    """Bytes that each task reads, which decide how many buckets its examples are parted into."""
    contents: str
    """Digest of the vocabulary and the dictionaries, so that a worker that lives on notices a change."""

    @classmethod
    def of(cls, recipe: Recipe, dictionaries: Sequence[Path], input_bytes: dict[str, int]) -> Settings:
        """The settings a recipe implies; `dictionaries` are data.entity_dicts, globs resolved."""
        data, files = recipe.data, [Path(recipe.model.vocab_file), *dictionaries]
        vocab_file, *names = (str(file.absolute()) for file in files)
        segmenter = load_segmenter(data.segmenter).name if data.language == "zh" else data.segmenter
        return cls(
            vocab_file,
            data.lower_case,
            data.language,
            segmenter,
            tuple(names),
            TextOptions.of(data, recipe.seed),
            data.dev_share,
            data.max_seq_len,
            recipe.seed,
            tuple(sorted(input_bytes.items())),
            " ".join(map(file_digest, files)),
        )

    def buckets_of(self, task: str, split: str) -> int:
        """Shards that a task's split is parted into."""
        tokens = self._tokens_of(task, split)
        return max(1, round(tokens / min(max(tokens / MANY_BUCKETS, BUCKET_TOKENS), MOST_BUCKET_TOKENS)))

    def buckets_at_once(self, task: str, split: str) -> int:
        """Shards that a worker merges at a time, at most."""
        return max(
            1, int(MERGED_TOKENS * self.buckets_of(task, split) / max(self._tokens_of(task, split), 1))
        )

    def _tokens_of(self, task: str, split: str) -> float:
        return dict(self.input_bytes)[task] * (self.dev_share if split == "dev" else 1) * TOKENS_A_BYTE


@dataclass
class Done:
    """What the main process has to know of a block at once; the rest is in its files."""

    source: str
    """As of the block."""
    size: int
    read: dict[str, Any]
    """What reading and annotating it came to: files, rejects, tokens, unknown."""
    spilled: int
    """Bytes of spill files."""
    shard_bytes: int
    """Bytes its examples will take in the shards, about."""
    seconds: float
    """Time it took, without the loading of dictionaries."""
    memory: int
    """Most bytes that the worker has held so far."""


_annotators: dict[tuple, Annotator] = {}
"""The one that this process has, by the settings that it depends on."""


def load(settings: Settings, vocab: Vocab) -> None:
    """Loads here and now what annotation needs, which takes half a second: processes forked afterwards have
    it too."""
    _annotator_of(settings, vocab)
    # what lives as long as the process is not looked at for cycles again, here and in processes forked
    gc.freeze()


def dictionary_notes(settings: Settings) -> Counter[str]:
    """What was left out of the dictionaries, by reason, as notes. Loads them where this process has not
    yet."""
    return Counter(
        {f"dictionary entries: {reason}": count for reason, count in _annotator_of(settings).skipped.items()}
    )


def named_entry(settings: Settings, number: int) -> tuple[str, str]:
    """A dictionary entry, and "entity" or "phrase"."""
    return _annotator_of(settings).named(number)


def found_by_file(settings: Settings, rows: Iterable[int]) -> list[tuple[str, int, int]]:
    """(dictionary, its entries, how many of them are among these numbers); one of several files counts in
    each."""
    return _annotator_of(settings).found_by_file(rows)


def _annotator_of(s: Settings, vocab: Vocab | None = None) -> Annotator:
    key = s.vocab_file, s.lower_case, s.language, s.segmenter, s.dictionaries, s.text.encoding, s.contents
    if key not in _annotators:
        _annotators.clear()
        _annotators[key] = _annotator(s, Vocab.load(s.vocab_file) if vocab is None else vocab)
    return _annotators[key]


def _annotator(s: Settings, vocab: Vocab) -> Annotator:
    return Annotator(
        Tokenizer(vocab, lower_case=s.lower_case), s.language, s.dictionaries, s.segmenter, s.text.encoding
    )


@gc_paused()
def work(block: Block, tasks: Sequence[Task], settings: Settings, folder: Path) -> Done:
    """Annotates a block once and runs tasks on it.

    Args:
        block: The block.
        tasks: Tasks of its source.
        settings: See there.
        folder: Work folder, see `data_gen.work_folder`."""
    s = settings
    annotator = _annotator_of(s)
    annotator.forget()
    annotator.rejects, begin = RejectCounter(), time.monotonic()
    rejects = annotator.rejects
    raws = parse_block(block, s.text, rejects)
    files = Counter(split_source(raw.source)[0] for raw in raws)
    for number in sorted(block.drop):
        rejects.note(raws[number].source, "near_duplicate", raws[number].text[:80])
    raws = [raw for number, raw in enumerate(raws) if number not in block.drop]
    aside = [is_dev(raw, s.dev_share) for raw in raws] if block.split == "train" else [False] * len(raws)
    items = _annotated([raw for raw, dev in zip(raws, aside, strict=True) if not dev], block, annotator)
    spilled = [_run(task, items, block, annotator.tokenizer.vocab, s, folder) for task in tasks]
    room = blocks_room(folder, block.source)
    unknown = annotator.take_unknown()
    write_note(
        room / f"{block.name}.hits.json",
        [[*annotator.take_hits().items()], unknown.most_common(UNKNOWN_KEPT)],
    )
    lines = sum(len(piece.data.splitlines()) for piece in block.pieces)
    read = {
        "size": block.size,
        "lines": lines,
        "files": dict(files),
        "rejects": rejects.to_json(),
        "tokens": _token_count(items),
        "unknown": unknown.total(),
    }
    held_out = (raw for raw, dev in zip(raws, aside, strict=True) if dev)
    dev_rows = [[getattr(raw, name) for name in raw.__slots__] for raw in held_out]
    write_note(room / f"{block.name}.json", {**read, "dev": dev_rows})
    sizes = (sum(sizes) for sizes in zip((0, 0), *spilled, strict=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Done(block.source, block.size, read, *sizes, time.monotonic() - begin, memory)


def _token_count(items: list) -> int:
    """Tokens of annotated documents or pairs, which are views of one table."""
    if not items:
        return 0
    return len((items[0].sentences if isinstance(items[0], Document) else items[0].query).tokens)


def _annotated(raws: list[Raw], block: Block, annotator: Annotator) -> list:
    """Documents or pairs that have tokens."""
    if block.source == "documents":
        found = annotator.documents(raws, block.split == "dev")
        full = [len(document.sentences) > 0 for document in found]
    else:
        found = annotator.pairs(raws, block.split == "dev")
        full = [len(pair.query) > 0 and len(pair.title) > 0 for pair in found]
    for one, has_tokens in zip(found, full, strict=True):
        if not has_tokens:
            annotator.rejects.add(one.source, "no_tokens")
    return [one for one, has_tokens in zip(found, full, strict=True) if has_tokens]


def _run(
    task: Task, items: list, block: Block, vocab: Vocab, settings: Settings, folder: Path
) -> tuple[int, int]:
    """Runs one task; returns the bytes of its spill and, about, of its share of the shards."""
    seeds = [
        settings.seed,
        task.task_id,
        _SOURCE_NUMBERS[block.source],
        block.number,
        SPLITS.index(block.split),
    ]
    packer = Packer(vocab.cls_id, vocab.sep_id, settings.max_seq_len, vocab.unk_id)
    generator = load_generator(task, settings.language)
    made = list(generator.generate(items, np.random.default_rng(seeds), packer)) if items else []
    for one in made:
        if not isinstance(one, Packed):
            raise ConfigError(
                f"task {task.name}: generator {task.generator} made a wrong example: got "
                f"{type(one).__name__}, "
                f"expected what packer.pack makes; packer.reject takes what cannot be used"
            )
    room, labels, spilled, taken = folder / task.name, [], 0, 0
    count = sum(map(len, made))
    if count:
        keys = np.random.default_rng([*seeds, 1]).integers(2**64, size=count, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        rows = assemble(made, packer, order)
        check_rows(rows, task, len(vocab))
        if not task.token_classes:
            rows.token_labels = None
        spill = room / f"{block.name}.spill"
        write_spill(spill, keys[order], rows, settings.buckets_of(task.name, block.split))
        spilled, taken = spill.stat().st_size, len(rows.codes) * (3 + 6 * task.has_masked_lm)
        if task.sentence_classes:
            labels = np.bincount(rows.labels, minlength=task.sentence_classes).tolist()
    write_note(
        room / f"{block.name}.json",
        {"accepted": count, "labels": labels, "reasons": dict(packer.reasons), "rejected": packer.rejected},
    )
    return spilled, taken
