"""Sentence pairs with their connective, of Discovery or one's own, to the TSV that `data.marked_pairs` names.

Discovery (Sileo et al. 2019) has been given out in several forms, all read here:
    DiscoveryBase/, DiscoveryBig/, DiscoveryHard/   folders with s1.train, s2.train, labels.train (also dev, test)
    train.tsv, dev.tsv, test.tsv                    header with sentence1, sentence2, label (and idx), no quoting
    .parquet, .jsonl, .csv of the Hugging Face hub  columns sentence1, sentence2, label (a number of the list of 174)
One's own files: .tsv, .csv or .jsonl with those columns, or with s1, s2, marker; --columns where there is no header.

A connective is known whatever its case, with `_` for spaces, with or without its comma: Discovery's `as_a_result,` is
`as a result`. Rows whose connective is not in the list of the language are rejected, and the connectives counted.
Discovery's sentences are tokenised, parted by two spaces: white space is folded.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_gen.generators import connectives
from data_gen.interchange.lines import Line, RejectLog, names_columns, read, written
from data_gen.reading.streams import base_name, expand_paths
from ernie2.strict import ConfigError

HEADER = ("sentence1", "sentence2", "marker")
NAMES = ({"sentence1", "s1", "first"}, {"sentence2", "s2", "second"}, {"marker", "label", "y", "connective"})
"""Names of the columns that are known, in lower case."""
FOLDER_SPLITS = ("train", "dev", "valid", "test")
MOST_UNKNOWN = 10_000
"""Different unknown connectives that are counted."""

Row = tuple[Path, int, Sequence[Any]]


def import_pairs(patterns: Sequence[str], to: Path, language: str, columns: Sequence[str] | None = None,
                 max_reject_share: float = 0.1, out: Callable[[str], None] = print) -> Counter[str]:
    """Writes the pairs of files, in their order, as `sentence1<TAB>sentence2<TAB>marker`.

    Args:
        patterns: Files, globs, folders of Discovery.
        to: The TSV to write, .gz too.
        language: Chooses the list of connectives.
        columns: Names of the columns of files without a header.
        max_reject_share: Most rows that may be rejected.
        out: Takes the lines of the report.

    Returns:
        Connective -> pairs.

    Raises:
        ConfigError: a file missing, of an unknown form or without the columns; too many rows rejected.
    """
    names, kept, unknown = connectives.class_names(language), Counter(), Counter()
    with RejectLog(Path(f"{to}.rejects.jsonl"), max_reject_share) as rejects, written(to) as file:
        file.write("\t".join(HEADER) + "\n")
        for path, number, fields in _rows(patterns, columns, rejects):
            first, second = (" ".join(str(text or "").split()) for text in fields[:2])
            label = _class(fields[2], language, len(names))
            if not first or not second:
                rejects.add(path, number, "empty_sentence", f"{first}\t{second}")
            elif label is None:
                rejects.add(path, number, "unknown_marker", str(fields[2]))
                if str(fields[2]) in unknown or len(unknown) < MOST_UNKNOWN:
                    unknown[str(fields[2])] += 1
            else:
                kept[names[label]] += 1
                file.write(f"{first}\t{second}\t{names[label]}\n")
        rejects.judge()
    out(f"{kept.total():,} pairs of {len(kept)} connectives, {min(kept.values()):,} to {max(kept.values()):,} of each, in {to}")
    if unknown:
        out("unknown connectives: " + ", ".join(f"{name!r} {count:,}" for name, count in unknown.most_common(20)))
    if rejects.counts:
        out(f"rejected: {rejects.reasons()}; all are in {rejects.path}")
    return kept


def _class(marker: Any, language: str, classes: int) -> int | None:
    """Class of a marker: its name, or (of Discovery) its number in the list."""
    text = str(marker if marker is not None else "").strip()
    if language == "en" and text.isascii() and text.isdigit():
        return int(text) if int(text) < classes else None
    return connectives.class_of(text, language) if text else None


def _rows(patterns: Sequence[str], columns: Sequence[str] | None, rejects: RejectLog) -> Iterator[Row]:
    for pattern in patterns:
        if Path(pattern).is_dir():
            yield from _parallel_files(Path(pattern), rejects)
            continue
        for path in expand_paths([pattern], "file"):
            name = base_name(path)
            if name.endswith(".parquet"):
                yield from _parquet(path, rejects)
            elif name.endswith((".jsonl", ".json")):
                yield from _objects(read([path], rejects), rejects)
            elif name.endswith((".tsv", ".csv", ".txt")):
                yield from _table(path, name.endswith(".csv"), columns, rejects)
            else:
                raise ConfigError(f"{path}: unknown kind of file; use .tsv, .csv, .txt, .jsonl or .parquet, or a folder with "
                                  f"s1.train, s2.train and labels.train")


def _parallel_files(folder: Path, rejects: RejectLog) -> Iterator[Row]:
    """The three files of each split of a Discovery folder, line by line."""
    found = [split for split in FOLDER_SPLITS if (folder / f"s1.{split}").exists()]
    if not found:
        raise ConfigError(f"{folder}: no s1.train, s2.train and labels.train in this folder; name files instead")
    for split in found:
        paths = [folder / f"{name}.{split}" for name in ("s1", "s2", "labels")]
        files = [path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [] for path in paths]
        lengths = {len(lines) for lines in files}
        if len(lengths) > 1:
            raise ConfigError(f"{paths[0]}: {' and '.join(path.name for path in paths)} have {sorted(lengths)} lines; they "
                              f"must have equally many: copy them again")
        for number, fields in enumerate(zip(*files, strict=True), 1):
            if any(fields):
                rejects.seen += 1
                yield paths[0], number, fields


def _parquet(path: Path, rejects: RejectLog) -> Iterator[Row]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"{path}: .parquet needs the package pyarrow (pip install pyarrow); or save it as .jsonl") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        places = _places(file.schema_arrow.names, str(path))
        number = 0
        for batch in file.iter_batches(10_000, columns=[file.schema_arrow.names[i] for i in places]):
            wanted = [file.schema_arrow.names[i] for i in places]
            for fields in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True):
                number += 1
                rejects.seen += 1
                yield path, number, fields
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: damaged parquet file ({error}); copy it again") from None


def _objects(lines: Iterable[Line], rejects: RejectLog) -> Iterator[Row]:
    for line in lines:
        try:
            record = json.loads(line.text)
            record = {str(key).lower(): value for key, value in record.items()}
            yield line.path, line.number, [next(record[name] for name in sorted(names) if name in record) for names in NAMES]
        except (ValueError, RecursionError, AttributeError):
            rejects.add(line.path, line.number, "not a JSON object", line.text)
        except StopIteration:
            rejects.add(line.path, line.number, "wrong_columns", line.text)


def _table(path: Path, quoted: bool, columns: Sequence[str] | None, rejects: RejectLog) -> Iterator[Row]:
    """Rows of a table; its first line is the header unless `columns` are given; a first line that repeats them is one too."""
    rows = _quoted(path, rejects) if quoted else ((line.number, line.text.split("\t")) for line in read([path], rejects))
    places, width = (_places(columns, "--columns"), len(columns)) if columns else (None, 0)
    first = True
    for number, fields in rows:
        is_header = first and (places is None or names_columns(fields, columns))
        first = False
        if is_header:
            rejects.seen -= 1
            places, width = places or _places(fields, f"{path}:{number}"), len(fields)
        elif len(fields) != width:
            rejects.add(path, number, "wrong_columns", "\t".join(fields))
        else:
            yield path, number, [fields[place] for place in places]


def _quoted(path: Path, rejects: RejectLog) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file; a quoted field may go over several lines, which count as one."""
    lines = csv.reader(line.text + "\n" for line in read([path], rejects))
    try:
        before = rejects.seen
        for fields in lines:
            rejects.seen = before + 1
            yield lines.line_num, fields
            before = rejects.seen  # a header does not count
    except csv.Error as error:
        raise ConfigError(f"{path}:{lines.line_num}: not CSV ({error}); save it as .tsv or .jsonl") from None


def _places(columns: Sequence[str], where: str) -> list[int]:
    """Where the three columns are. Raises ConfigError where one is not found."""
    lower = [str(column).strip().lower() for column in columns]
    places = [next((i for i, column in enumerate(lower) if column in names), -1) for names in NAMES]
    if min(places) < 0:
        raise ConfigError(f"{where}: found columns {', '.join(lower)[:80]!r}, expected {', '.join(HEADER)} (or s1, s2, label); "
                          f"for a file without a header name its columns: --columns {','.join(HEADER)}")
    return places
