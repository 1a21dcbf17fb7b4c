"""Tables of pairs (.tsv, .txt, .log, .csv, .jsonl, .parquet) to the TSV files that a recipe names.

One mapper finds the columns (COLUMNS) and folds white space; each command maps the values."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from data_gen.generators import connectives
from data_gen.interchange.lines import RejectLog, read, scratch, written
from data_gen.reading.streams import base_name, expand_paths
from ernie2.strict import ConfigError

COLUMNS = {
    "sentence1": ("s1", "first"),
    "sentence2": ("s2", "second"),
    "marker": ("label", "y", "connective"),
    "query": (),
    "title": (),
    "clicks": ("clicked",),
    "shows": (),
}
"""Column -> its other names, in any case."""


def import_discovery(args: Namespace) -> None:
    """Sentence pairs with their connective to the TSV of data.marked_pairs."""
    columns, names, kept = (
        ("sentence1", "sentence2", "marker"),
        connectives.class_names(args.language),
        Counter(),
    )
    with _table(args, columns) as (file, rejects):
        for place, (first, second, marker) in _rows(args, columns, rejects):
            if args.language == "en" and _is_count(marker):  # a class of Discovery's list
                label = int(marker) if int(marker) < len(names) else None
            else:
                label = connectives.class_of(marker, args.language)
            if not first or not second:
                rejects.add(place, "empty_sentence", f"{first}\t{second}")
            elif label is None:
                rejects.add(place, "unknown_marker", marker)
            else:
                kept[names[label]] += 1
                file.write(f"{first}\t{second}\t{names[label]}\n")
        rejects.judge()
    least, most = min(kept.values()), max(kept.values())
    print(f"{kept.total():,} pairs of {len(kept)} connectives, {least:,} to {most:,} of each, in {args.to}")


def import_clicks(args: Namespace) -> None:
    """Click logs to the TSV of data.query_log."""
    counts: Counter[str] = Counter()
    with _table(args, ("query", "title", "clicked")) as (file, rejects), scratch(args.to) as db:
        db.execute("CREATE TABLE log (query TEXT, title TEXT, clicks INTEGER, shows INTEGER)")
        db.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", _clicks(args, rejects))
        rejects.judge()
        for query, title, clicks, shows in db.execute(
            "SELECT query, title, SUM(clicks), SUM(shows) FROM log GROUP BY query, title ORDER BY MIN(rowid)"
        ):
            strong = clicks >= max(1, args.min_rate * shows)
            kind = "strong" if strong else "weak" if not clicks and shows >= args.min_shows else "dropped"
            counts[kind] += 1
            if kind != "dropped":
                file.write(f"{query}\t{title}\t{int(strong)}\n")
        if counts["dropped"] == counts.total():
            raise ConfigError(f"--min-rate, --min-shows: no pair is left of {counts.total():,}; ask for less")
    print(f"{counts['strong']:,} strong and {counts['weak']:,} weak pairs in {args.to}")
    print(f"dropped by --min-rate and --min-shows: {counts['dropped']:,}")


def _clicks(args: Namespace, rejects: RejectLog) -> Iterator[tuple[str, str, int, int]]:
    """Query, title, clicks, shows; without shows a title was shown once, or as often as it was clicked."""
    for place, row in _rows(args, ("query", "title", "clicks", "shows"), rejects):
        query, title, clicks, shows = row
        if not query or not title:
            rejects.add(place, "empty_title" if query else "empty_query", "\t".join(row))
        elif not _is_count(clicks) or shows and not _is_count(shows):
            rejects.add(place, "count that is no whole number", "\t".join(row))
        elif shows and int(shows) < max(int(clicks), 1):
            rejects.add(place, "shown less often than clicked, or never", "\t".join(row))
        else:
            yield query, title, int(clicks), int(shows or max(int(clicks), 1))


def import_t2ranking(args: Namespace) -> None:
    """Graded relevance in T2Ranking's form to the TSV of data.query_log."""
    counts: Counter[int] = Counter()
    with _table(args, ("query", "title", "relevance")) as (file, rejects), scratch(args.to) as db:
        db.executescript("""
            CREATE TABLE judged (place TEXT, qid INTEGER, pid INTEGER, relevance INTEGER);
            CREATE TABLE queries (id INTEGER PRIMARY KEY, text TEXT);
            CREATE TABLE passages (id INTEGER PRIMARY KEY, text TEXT);
        """)
        for table, rows in (
            ("judged VALUES (?, ?, ?, ?)", _judgements(args, rejects)),
            ("queries VALUES (?, ?)", _texts(args.queries, "--queries", None)),
            ("passages VALUES (?, ?)", _texts(args.collection, "--collection", args.max_chars)),
        ):
            db.executemany(f"INSERT OR REPLACE INTO {table}", rows)
        for place, qid, pid, relevance, query, passage in db.execute(
            "SELECT judged.*, queries.text, passages.text FROM judged LEFT JOIN queries ON queries.id = qid "
            "LEFT JOIN passages ON passages.id = pid ORDER BY judged.rowid"
        ):
            if query and passage:
                counts[relevance] += 1
                file.write(f"{query}\t{passage}\t{relevance}\n")
            else:
                reason = "passage not in the collection" if query else "query not in the queries"
                rejects.add(place, reason, f"{qid} {pid}")
        rejects.judge()
    print(f"{counts[2]:,} strong and {counts[1]:,} weak pairs in {args.to}")


def _judgements(args: Namespace, rejects: RejectLog) -> Iterator[tuple[str, int, int, int]]:
    """Place, qid, pid and relevance of each judgement whose grade --grades names."""
    for line in read(expand_paths(args.qrels, "--qrels"), rejects):
        fields = line.text.split()
        if line.number == 1 and not fields[0].isdigit():
            rejects.seen -= 1  # a header
        elif len(fields) != 4 or not all(map(_is_count, fields)):
            rejects.add(f"{line.path}:{line.number}", "not qid, 0, pid, grade", line.text)
        elif int(fields[3]) in args.grades:
            qid, _, pid, grade = map(int, fields)
            yield f"{line.path}:{line.number}", qid, pid, args.grades[grade]


def _texts(patterns: Sequence[str], option: str, most: int | None) -> Iterator[tuple[int, str]]:
    """(id, text) of `id<TAB>text` lines, `most` characters of it; others, such as a header, are skipped."""
    for line in read(expand_paths(patterns, option), RejectLog(Path(), 1.0)):
        number, _, text = line.text.partition("\t")
        if _is_count(number):
            yield int(number), _folded(text)[:most]


@contextmanager
def _table(args: Namespace, header: Sequence[str]) -> Iterator[tuple[TextIO, RejectLog]]:
    """The TSV to write, with its header, and its rejects, which are printed at the end."""
    rejects = RejectLog(Path(f"{args.to}.rejects.jsonl"), args.max_reject_share)
    with rejects, written(args.to) as file:
        file.write("\t".join(header) + "\n")
        yield file, rejects
    if rejects.counts:
        print(rejects.summary())


def _rows(args: Namespace, columns: Sequence[str], rejects: RejectLog) -> Iterator[tuple[str, list[str]]]:
    """`file:line` and the texts of our columns, "" where shows are missing.

    Raises ConfigError where the first row of a file lacks a column; later ones are rejected."""
    for path in expand_paths(args.files, "file"):
        first = True
        for number, record in _records(path, args.columns, rejects):
            names = [next((name for name in (one, *COLUMNS[one]) if name in record), "") for one in columns]
            if all(names[:3]):
                yield f"{path}:{number}", [_folded(record.get(name)) for name in names]
            elif first:
                raise ConfigError(
                    f"{path}:{number}: found columns {', '.join(record)[:80]!r}, expected "
                    f"{','.join(columns)}; name the columns of a file without a header with --columns"
                )
            else:
                rejects.add(f"{path}:{number}", "wrong_columns", str(record))
            first = False


def _records(
    path: Path, columns: Sequence[str] | None, rejects: RejectLog
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and {column in lower case: value} of each row."""
    kind = Path(base_name(path)).suffix
    if kind == ".parquet":
        yield from _parquet_rows(path, rejects)
        return
    for line in read([path], rejects):
        try:
            if kind in (".jsonl", ".json"):
                yield line.number, {key.lower(): value for key, value in json.loads(line.text).items()}
                continue
            fields = next(csv.reader([line.text], strict=True)) if kind == ".csv" else line.text.split("\t")
            lower = [field.strip().lower() for field in fields]
            if columns is None or line.number == 1 and lower == columns:
                columns = lower
                rejects.seen -= 1  # a header
            else:
                yield line.number, dict(zip(columns, fields, strict=True))
        except (ValueError, RecursionError, AttributeError, csv.Error):
            rejects.add(f"{path}:{line.number}", "wrong_columns", line.text)


def _parquet_rows(path: Path, rejects: RejectLog) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(10_000)
        for number, record in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1):
            rejects.seen += 1
            yield number, record
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: damaged parquet file ({error}); copy it again") from None


def _is_count(text: str) -> bool:
    """Whether a text is a whole number that 64 bits hold."""
    return text.isascii() and text.isdigit() and len(text) < 19


def _folded(value: Any) -> str:
    """White space folded; half a surrogate pair, as JSON may hold one, as its code."""
    text = " ".join(str("" if value is None else value).split())
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
