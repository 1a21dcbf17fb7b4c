"""Blocks, what one worker treats at a time, and how the input is cut into them. They depend on the input
alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from data_gen.reading.documents import RawDocument, RawMarkedPair, RawPair, TextOptions, parse
from data_gen.reading.pieces import Piece
from data_gen.reading.rejects import RejectCounter

BLOCK_BYTES, MOST_BLOCK_BYTES, MANY_BLOCKS = (64_000, 1_000_000), 8_000_000, 4_000
"""Smallest and largest block, UTF-8 bytes: a corpus makes 16 or more blocks where it is large enough. One
that would make more than MANY_BLOCKS makes larger ones: every shard is gathered from every block."""
PIECES_A_BLOCK = 16

Raw = RawDocument | RawPair | RawMarkedPair
_RAW_TYPES = {"documents": RawDocument, "pairs": RawPair, "marked_pairs": RawMarkedPair}


@dataclass
class Block:
    """What one worker treats at a time; all of the dev split or what is left of the corpus without it.

    Attributes:
        source: "documents", "pairs" or "marked_pairs". split: "train": pieces of the input, whose dev
        documents are set aside. "dev": documents that were set aside. number: Counts from 0 within source and
        split. pieces: Raw input; empty for dev. items: Documents or pairs of a dev block. size: Bytes. drop:
        Numbers of the documents of the pieces that are left out as near-duplicates."""

    source: str
    split: str
    number: int
    pieces: list[Piece] = field(default_factory=list)
    items: list[Raw] = field(default_factory=list)
    size: int = 0
    drop: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.source}.{self.split}.{self.number:06d}"


def block_bytes_for(input_bytes: int) -> int:
    """Bytes of a block, from the size of the input alone."""
    smallest, usual = BLOCK_BYTES
    return min(
        max(input_bytes // 16, smallest), max(usual, min(input_bytes // MANY_BLOCKS, MOST_BLOCK_BYTES))
    )


def group_pieces(pieces: Iterable[Piece], source: str, block_bytes: int) -> Iterator[Block]:
    """Blocks of pieces in their order."""
    block = Block(source, "train", 0)
    for piece in pieces:
        block.pieces.append(piece)
        block.size += len(piece.data)
        if block.size >= block_bytes:
            yield block
            block = Block(source, "train", block.number + 1)
    if block.pieces:
        yield block


def group_dev(files: Iterable[dict[str, Any]], source: str, block_bytes: int) -> Iterator[Block]:
    """Blocks of what the train blocks set aside. `files`: what their workers left, in the order of the
    blocks."""
    block = Block(source, "dev", 0)
    for made in files:
        for row in made["dev"]:
            block.items.append(_RAW_TYPES[source](*row))
            block.size += sum(len(text.encode("utf-8", "replace")) for text in row if isinstance(text, str))
            if block.size >= block_bytes:
                yield block
                block = Block(source, "dev", block.number + 1)
    if block.items:
        yield block


def parse_block(block: Block, text: TextOptions, rejects: RejectCounter) -> list[Raw]:
    """The documents or pairs of a block, in order."""
    if block.items:
        return block.items
    return [item for piece in block.pieces for item in parse(piece, text, rejects)]
