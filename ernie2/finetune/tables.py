"""Tables of text as rows of fields, read line by line: TSV, CSV, JSON lines, CoNLL; .gz as they are.

No tensors here."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ernie2.finetune.tagging import SEPARATOR
from ernie2.strict import ConfigError, describe

STDIN = Path("-")
ENCODING = "convert the file to UTF-8 text (from GBK, UTF-16 or Excel; a gzip file's name ends in .gz)"


def form_of(path: Path) -> str:
    """How a file is written, by its name: tsv, csv, jsonl, conll, json."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lstrip(".").lower()
    return {"bio": "conll", "bmes": "conll", "bioes": "conll", "ndjson": "jsonl"}.get(suffix, suffix)


Table = Iterator[tuple[int, list[str]]]  # the header, then the rows, each behind the number of its line


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends; a byte order mark is dropped. Raises ConfigError."""
    try:
        if path == STDIN:
            stream: Any = sys.stdin.buffer
        else:
            stream = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
        with stream:
            for number, line in enumerate(_split(stream), 1):
                try:
                    text = line.decode("utf-8")
                    bad = line.find(b"\0")
                except UnicodeDecodeError as error:
                    bad = error.start
                if bad >= 0:
                    raise ConfigError(f"{path}:{number}: not UTF-8 (byte 0x{line[bad]:02x}); {ENCODING}")
                yield number, text.lstrip("\ufeff") if number == 1 else text
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _split(stream: Any) -> Iterator[bytes]:
    """Lines of a binary file, which end at \\n, or at \\r where the first one does (old Macintoshes)."""
    first = next(stream, b"").removesuffix(b"\n").removesuffix(b"\r")
    yield from (lines := first.split(b"\r"))
    for line in stream:
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        yield from line.split(b"\r") if len(lines) > 1 else [line]


def tsv_table(path: Path, keep_blank: bool, counts: Counter[str]) -> Table:
    """Blank lines at the end are left out; of predict those between are rows of nothing."""
    lines, blank = _lines(path), []
    number, line = next(lines, (1, ""))
    header = [name.strip() for name in line.split("\t")]
    yield number, header
    for number, line in lines:
        if not line:
            blank.append(number)
            continue
        for empty in blank:
            if keep_blank or len(header) == 1:  # in a file of one column it is an empty text
                yield empty, [""] * len(header)
            else:
                counts["blank lines"] += 1
        blank = []
        yield number, line.split("\t")
    counts["blank lines"] += len(blank)


def csv_table(path: Path, keep_blank: bool, counts: Counter[str]) -> Table:
    """Fields may be quoted and hold line ends; a row has the number of its last line."""
    reader = csv.reader((f"{line}\n" for _, line in _lines(path)), strict=True)
    try:
        yield 1, [name.strip() for name in next(reader, [""])]
        for row in reader:
            if row or keep_blank:
                yield reader.line_num, row
            counts["blank lines"] += not row
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def jsonl_table(path: Path, keep_blank: bool, counts: Counter[str]) -> Table:
    """The first object's keys are the header; values are texts or numbers, a label may be a list of texts."""
    header: list[str] = []
    for number, line in _lines(path):
        if not line.strip():
            counts["blank lines"] += 1
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ConfigError(f"{path}:{number}: found {describe(row)}, expected an object of columns")
        if not header:
            header = list(row)
            yield number, header
        if missing := [key for key in header if key not in row]:
            raise ConfigError(f"{path}:{number}: no key '{missing[0]}', which the first object has")
        yield number, [_field(row[key], f"{path}:{number}: {key}") for key in header]
    if not header:
        yield 1, [""]


def _field(value: Any, where: str) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return SEPARATOR.join(value)
    if isinstance(value, str) or isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ConfigError(f"{where}: found {describe(value)}, expected a text, a number or a list of texts")


def conll_rows(path: Path, tagged: bool) -> Iterator[tuple[int, str, str]]:
    """Sentences of a token a line, its tag in the last column; blank lines and -DOCSTART- stand between.

    Yields the line, tokens and tags, each joined by SEPARATOR; without `tagged` a token may be alone."""
    tokens: list[list[str]] = []
    start = 1
    for number, line in itertools.chain(_lines(path), [(0, "")]):
        fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            if len(fields) < 2 and tagged:
                raise ConfigError(f"{path}:{number}: found '{line[:40]}', expected a token and its tag")
            start = start if tokens else number
            tokens.append(fields)
        elif tokens:
            text, tags = (SEPARATOR.join(row[column] for row in tokens) for column in (0, -1))
            yield start, text, tags
            tokens = []
