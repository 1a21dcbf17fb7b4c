"""Blocks, what one worker treats at a time: cutting the input into them, annotating one, running the generators on it.

Blocks depend on the input alone, and every block draws from its own random numbers (seed, task, block, split): what is
made of it is the same whichever process does it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_gen.annotate import Annotator
from data_gen.documents import RawDocument, RawPair, RejectCounter, is_dev, read_documents, read_pairs
from data_gen.generators import load_generator
from data_gen.packing import Packer, Rejected
from data_gen.spill import write_spill
from ernie2.config import Recipe
from ernie2.shards import SPLITS, Example, check_example, file_digest
from ernie2.tasks import Task
from ernie2.tokenizer import Tokenizer, Vocab

BLOCK_BYTES = (64_000, 1_000_000)
"""Smallest and largest block of documents, UTF-8 bytes; a corpus makes 16 or more blocks where it is large enough."""
BLOCK_PAIRS = 2_000
BLOCK_DOCUMENTS = 8
"""Fewest documents in a block (several are needed for pairs across documents), unless they are huge."""


@dataclass(frozen=True)
class Settings:
    """What a worker needs to annotate; small, and the key under which it keeps its annotator."""

    vocab_file: str
    lower_case: bool
    language: str
    segmenter: str
    encoding: str
    dictionaries: tuple[str, ...]
    dev_share: float
    max_seq_len: int
    seed: int
    contents: str
    """Digest of the vocabulary and the dictionaries, so that a worker that lives on notices a change."""

    @classmethod
    def of(cls, recipe: Recipe, dictionaries: Sequence[Path]) -> Settings:
        """The settings a recipe implies; `dictionaries` are data.entity_dicts, globs resolved."""
        data, files = recipe.data, [Path(recipe.model.vocab_file), *dictionaries]
        vocab_file, *names = (str(file.absolute()) for file in files)
        return cls(vocab_file, data.lower_case, data.language, data.segmenter, data.encoding, tuple(names),
                   data.dev_share, data.max_seq_len, recipe.seed, " ".join(map(file_digest, files)))


@dataclass
class Block:
    """Raw documents or pairs that one worker treats at a time; all train or all dev."""

    source: str
    split: str
    number: int
    items: list[RawDocument | RawPair]
    size: int


@dataclass
class Made:
    """What one task made of one block."""

    task: str
    split: str
    path: Path | None
    accepted: int = 0
    rejects: list[tuple[str, str, str]] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)


def read_blocks(source: str, paths: Sequence[Path], recipe: Recipe, block_bytes: int,
                rejects: RejectCounter) -> Iterator[Block]:
    """Groups what the readers yield into blocks of one split each.

    Args:
        source: "documents" or "pairs".
        paths: Input files.
        recipe: For encoding and dev_share.
        block_bytes: Text in a block of documents.
        rejects: Counts what the readers cannot use.
    """
    reader = {"documents": read_documents, "pairs": read_pairs}[source]
    full = _documents_full if source == "documents" else _pairs_full
    blocks = {split: Block(source, split, 0, [], 0) for split in SPLITS}
    for item in reader(paths, encoding=recipe.data.encoding, rejects=rejects):
        split = "dev" if is_dev(item, recipe.data.dev_share) else "train"
        block = blocks[split]
        block.items.append(item)
        block.size += _size(item)
        if full(block, block_bytes):
            yield block
            blocks[split] = Block(source, split, block.number + 1, [], 0)
    yield from (block for block in blocks.values() if block.items)


def _documents_full(block: Block, block_bytes: int) -> bool:
    return block.size >= block_bytes and (len(block.items) >= BLOCK_DOCUMENTS or block.size >= 16 * block_bytes)


def _pairs_full(block: Block, block_bytes: int) -> bool:
    return len(block.items) >= BLOCK_PAIRS


def _size(item: RawDocument | RawPair) -> int:
    lines = item.paragraphs if isinstance(item, RawDocument) else [item.query, item.title]
    return sum(len(line.encode("utf-8")) + 1 for line in lines)


def block_bytes_for(input_bytes: int) -> int:
    """Bytes of a block of documents, from the size of the input alone."""
    return min(max(input_bytes // 16, BLOCK_BYTES[0]), BLOCK_BYTES[1])


@functools.lru_cache(maxsize=1)
def _annotator(settings: Settings) -> tuple[Annotator, Vocab]:
    vocab = Vocab.load(settings.vocab_file)
    tokenizer = Tokenizer(vocab, lower_case=settings.lower_case)
    annotator = Annotator(tokenizer, settings.language, settings.dictionaries, settings.segmenter, settings.encoding)
    return annotator, vocab


@dataclass
class Done:
    """What came of a block: what each task made, and what reading and annotating left out."""

    size: int
    made: list[Made]
    rejects: RejectCounter


def work(block: Block, tasks: Sequence[Task], settings: Settings, folder: Path) -> Done:
    """Annotates a block once and runs the tasks of its source on it; spills their examples into `folder`."""
    annotator, vocab = _annotator(settings)
    annotator.rejects = rejects = RejectCounter()
    packer = Packer(vocab.cls_id, vocab.sep_id, settings.max_seq_len)
    annotate = annotator.document if block.source == "documents" else annotator.pair
    items = []
    for raw in block.items:
        item = annotate(raw, settings.dev_share)
        if item.sentences if block.source == "documents" else len(item.query) and len(item.title):
            items.append(item)
        else:
            rejects.add(raw.source, "no_tokens")
    mine = [task for task in tasks if task.source == block.source]
    made = [_run(task, items, block, packer, len(vocab), settings, folder) for task in mine]
    return Done(block.size, made, rejects)


def _run(task: Task, items: list, block: Block, packer: Packer, vocab_size: int, settings: Settings,
         folder: Path) -> Made:
    seeds = [settings.seed, task.task_id, block.number, SPLITS.index(block.split)]
    made, examples = Made(task.name, block.split, None), []
    generator = load_generator(task, settings.language)
    for item in generator.generate(items, np.random.default_rng(seeds), packer) if items else []:
        if isinstance(item, Rejected):
            made.reasons[item.reason] += 1
            if made.reasons[item.reason] <= 3:
                made.rejects.append((item.source, item.reason, item.text[:80]))
            continue
        examples.append(_checked(item, task, vocab_size))
    if examples:
        keys = np.random.default_rng([*seeds, 1]).integers(2**64, size=len(examples), dtype=np.uint64)
        made.path = folder / f"{task.name}.{block.split}.{block.number:06d}"
        made.accepted = len(examples)
        write_spill(made.path, examples, keys)
    return made


def _checked(example: Example, task: Task, vocab_size: int) -> Example:
    """The example with the fields its task's heads need, no others. Raises ConfigError where it breaks the contract."""
    check_example(example, task, vocab_size)
    return Example(example.token_ids, example.sentence_ids, example.span_ids if task.has_masked_lm else None,
                   example.token_labels if task.token_classes else None,
                   int(example.sentence_label) if task.sentence_classes else None)
