"""Cutting files of any size into pieces: raw bytes of whole documents or rows, drawn in turn from all files.

This runs in one process for all workers, so it only looks for line ends and the marks between documents;
nothing is decoded. The pieces depend on the files and the options alone. Memory: up to `OPEN_FILES` files are
open at a time, each with about one piece, or one document of up to 4 MB."""

from __future__ import annotations

import functools
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_gen.reading.cleaning import TextOptions, load_simplifier
from data_gen.reading.cutting import FileCutter, Piece
from data_gen.reading.formats import SOURCES, check_header, read_head
from data_gen.reading.rejects import RejectCounter
from data_gen.reading.streams import (
    DOCUMENT_KINDS,
    Stream,
    base_name,
    check_encoding,
    expand_paths,
    is_document_file,
)
from ernie2.strict import ConfigError

OPEN_FILES = 32


def read_pieces(
    paths: Iterable[str | Path],
    source: str,
    options: TextOptions,
    rejects: RejectCounter,
    piece_bytes: int = 64_000,
) -> Iterator[Piece]:
    """Pieces of all files, of about `piece_bytes`: smaller at the end of a file, larger where a document is.
    All files advance in proportion to their size; with more than `OPEN_FILES` they take turns in an order
    drawn from `options.seed`.

    Args:
        paths: Files, folders, globs.
        source: "documents" (.txt, .jsonl, WikiExtractor), "pairs" (query log) or "marked_pairs".
        options: Encoding and seed; also checked here, before any work is done.
        rejects: Counts `unreadable_file`, `damaged_file` (what could be read is used), `line_too_long`, and
            notes `empty_file`, `bom`, `cr_line_ends`, `long_document`.

    Raises:
        ConfigError: a file named in full is missing, of unknown kind or without its header; unknown encoding;
            missing package; no file is readable or none holds anything."""
    encoding = check_encoding(options.encoding)
    if options.simplify:
        load_simplifier()
    files = expand_paths(paths, SOURCES[source].name)
    for file in files:
        _check(file, source, encoding)
    cut = functools.partial(
        FileCutter, source=source, encoding=encoding, rejects=rejects, piece_bytes=piece_bytes
    )
    shares = _share_out(files, options.seed)
    lanes = [_lane(share, cut, rejects, piece_bytes / 2) for share in shares]
    before, found = rejects.total, False
    turns = [(next(lane)[0], number) for number, lane in enumerate(lanes)]
    heapq.heapify(turns)
    while turns:
        _, number = turns[0]
        try:
            progress, piece = next(lanes[number])
        except StopIteration:
            heapq.heappop(turns)
        else:
            heapq.heapreplace(turns, (progress, number))
            found = True
            yield piece
    if not found:
        raise _nothing_read(files, source, rejects, rejects.total > before)


def _nothing_read(files: Sequence[Path], source: str, rejects: RejectCounter, damaged: bool) -> ConfigError:
    """Why no piece was found."""
    problem = "no usable row below the header"
    if damaged:
        why = [f"{where}: {text}" for rows in rejects.examples.values() for where, text in rows if text]
        problem = f"nothing could be read ({'; '.join(why[:3])}); mend the files or name others"
    elif source == "documents":
        problem = (
            "no document in it; documents are lines of text with a blank line between them, or JSON "
            "objects with `text`, one a line"
        )
    names = ", ".join(map(str, files[:5])) + " ..." * (len(files) > 5)
    return ConfigError(f"{SOURCES[source].name} {names}: {problem}")


def _check(file: Path, source: str, encoding: str) -> None:
    """Finds mistakes in names and headers before the long work begins. Raises ConfigError."""
    if not SOURCES[source].headers:
        if is_document_file(file) or "." not in base_name(file).lstrip("."):
            return
        raise ConfigError(
            f"corpus {file}: unknown kind of file; use {DOCUMENT_KINDS} (text as .txt, archives unpacked)"
        )
    try:
        stream = Stream(file)
    except OSError:
        return  # counted when its turn comes
    head, _ = read_head(stream)
    stream.close()
    if head:
        check_header(str(file), source, head, encoding)


def _share_out(files: Sequence[Path], seed: int) -> list[list[tuple[Path, int]]]:
    """Files with their sizes, in up to OPEN_FILES lanes of about the same length, read one beside the
    other."""
    sized = [(file, max(os.path.getsize(file), 1) if os.path.exists(file) else 1) for file in files]
    if len(files) <= OPEN_FILES:
        return [[one] for one in sized]
    lanes, lengths = [[] for _ in range(OPEN_FILES)], np.zeros(OPEN_FILES, np.int64)
    for row in np.random.default_rng(seed).permutation(len(files)).tolist():
        lane = lengths.argmin()
        lanes[lane].append(sized[row])
        lengths[lane] += sized[row][1]
    return lanes


def _lane(
    files: Sequence[tuple[Path, int]],
    cut: Callable[[str], FileCutter],
    rejects: RejectCounter,
    half_piece: float,
) -> Iterator[tuple[float, Piece | None]]:
    """Pieces of files that are read one after the other. Before each comes the place of the middle of the one
    behind it, as a share of the bytes on disk, about; the first is that of no piece."""
    total, before = sum(size for _, size in files), 0
    ahead = min(half_piece, total / 2)
    yield ahead / total, None
    for path, size in files:
        try:
            cutter = cut(str(path))
        except OSError as error:
            rejects.add(str(path), "unreadable_file", error.strerror or str(error))
        else:
            for piece in cutter.pieces():
                yield (before + cutter.on_disk(ahead)) / total, piece
        before += size
