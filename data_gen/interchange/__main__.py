"""`python -m data_gen.interchange COMMAND ...`: examples and pairs of other formats in and out; see
docs/interchange.md."""

from __future__ import annotations

import argparse
import csv
import json
import sqlite3
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from data_gen import interchange
from data_gen.generators import connectives
from data_gen.interchange.lines import RejectLog, read, scratch, written
from data_gen.reading.streams import base_name, expand_paths
from ernie2.config import ConfigError, cli
from ernie2.shards import LEVELS, SPLITS, ShardReader
from ernie2.tasks import load_tasks, select_tasks
from ernie2.tokenizer import Vocab

# ---- examples -----------------------------------------------------------------------------------------


def import_baidu(args: Namespace) -> None:
    """Baidu's text format to the shards of a task."""
    task = select_tasks([args.task], "--task")[0]
    labels = interchange.baidu_labels(task, args.language, args.labels)
    note = "pair label dropped" if labels is None else None
    parse = partial(interchange.parse_baidu, labels=labels)
    interchange.import_examples(args, task, parse, {"format": "baidu", "labels": labels}, note)


def import_jsonl(args: Namespace) -> None:
    """Examples as .jsonl to the shards of a task."""
    task = select_tasks([args.task], "--task")[0]
    interchange.import_examples(args, task, interchange.parse_jsonl, {"format": "jsonl"})


def export_baidu(args: Namespace) -> None:
    """The shards of a task to Baidu's text format."""
    reader = ShardReader(args.shards, args.split)
    if f"span_ids_{args.level}" not in reader.index["fields"]:
        raise ConfigError(f"{args.shards}: no masked LM and so no units, which this format needs")
    task = load_tasks().get(reader.index["task"])
    labels = args.labels or task and interchange.labels_of_baidu(task, reader.index["language"])
    line_of = partial(interchange.format_baidu, level=args.level, labels=labels)
    interchange.export_examples(reader, args.to, line_of)


def export_jsonl(args: Namespace) -> None:
    """The shards of a task to .jsonl."""
    reader = ShardReader(args.shards, args.split)
    vocab = None if args.ids_only else Vocab.load(args.vocab or args.shards.parent / "vocab.txt")
    if vocab is not None and vocab.digest != reader.index.get("vocab_digest"):
        raise ConfigError(f"--vocab: not the vocabulary of {args.shards}; name that one, or --ids-only")
    interchange.export_examples(reader, args.to, partial(interchange.format_jsonl, vocab=vocab))


# ---- tables of pairs to the TSV files that a recipe names ---------------------------------------------
#
# One mapper (`_rows`) finds the columns and folds white space; each command maps the values.

COLUMNS = {
    "sentence1": ("s1", "first"),
    "sentence2": ("s2", "second"),
    "marker": ("label", "y", "connective"),
    "clicks": ("clicked",),
}
"""Column -> other names that it may have, in any case."""


def import_discovery(args: Namespace) -> None:
    """Sentence pairs with their connective to the TSV of data.marked_pairs."""
    columns, kept = ("sentence1", "sentence2", "marker"), Counter()
    names = connectives.class_names(args.language)
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
    found = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("strong", "weak", "dropped"))
    print(f"pairs in {args.to}: {found}")


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
            known = ((one, *COLUMNS.get(one, ())) for one in columns)
            names = [next((name for name in these if name in record), "") for these in known]
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
        for number, record in enumerate(_parquet_rows(path), 1):
            rejects.seen += 1
            yield number, record
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


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(10_000):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: damaged parquet file ({error}); copy it again") from None


def _is_count(text: str) -> bool:
    """Whether a text is a whole number that 64 bits hold."""
    return text.isascii() and text.isdigit() and len(text) < 19


def _folded(value: Any) -> str:
    """White space folded; half a surrogate pair, as JSON may hold one, as its code."""
    text = " ".join(str("" if value is None else value).split())
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# ---- the command line ---------------------------------------------------------------------------------


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a share between 0 and 1")
    return float(text)


def _numbers(text: str) -> dict[int, int]:
    """`1=0,0=2`."""
    try:
        return {int(key): int(value) for key, value in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected numbers such as 1=0,0=2") from None


def _columns(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_gen.interchange", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, add_options in (
        (import_baidu, _import_options),
        (export_baidu, _export_options),
        (import_jsonl, _import_options),
        (export_jsonl, _export_options),
        (import_discovery, _pair_options),
        (import_clicks, _pair_options),
        (import_t2ranking, _pair_options),
    ):
        name = function.__name__.replace("_", "-")
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(function=function)
        add_options(command.add_argument, name)
    return parser


def _import_options(add: Callable, command: str) -> None:
    add("files", nargs="+", help="files or globs, plain, .gz, .bz2 or .zst")
    add("--to", type=Path, required=True, help="folder of shards")
    add("--task", required=True, help="task the examples are for: tasks/pretrain/<task>.yaml")
    add("--vocab", type=Path, required=True, help="vocabulary of the token ids")
    add("--dev", nargs="+", default=[], help="files of the dev split; default: --dev-share of all examples")
    add("--dev-share", type=_share, default=0.005, help="by a hash of the tokens; default 0.005")
    add("--language", choices=("zh", "en"), default="zh")
    add("--max-seq-len", type=int, default=512, help="longer examples are rejected; default 512")
    add("--seed", type=int, default=1, help="of the order; default 1")
    add("--keep-order", action="store_true", help="do not shuffle: the files are shuffled already")
    add("--max-reject-share", type=_share, default=0.01, help="most lines that may be bad; default 0.01")
    if command == "import-baidu":
        add("--labels", type=_numbers, help="Baidu's label = class of the task, for example 1=0,0=2")


def _export_options(add: Callable, command: str) -> None:
    add("shards", type=Path, help="<shards_dir>/<task>")
    add("--to", type=Path, required=True, help="file to write; gzip where it ends in .gz")
    add("--split", choices=SPLITS, default="train")
    if command == "export-baidu":
        add("--labels", type=_numbers, help="class of the task = Baidu's label; default: the class itself")
        add("--level", choices=LEVELS, default="word", help="units of seg_labels; default word")
    else:
        add("--vocab", type=Path, help="vocabulary; default <shards_dir>/vocab.txt")
        add("--ids-only", action="store_true", help="no tokens, ids only")


def _pair_options(add: Callable, command: str) -> None:
    add("--to", type=Path, required=True, help="TSV to write; gzip where it ends in .gz")
    add("--max-reject-share", type=_share, default=0.1, help="most rows that may be bad; default 0.1")
    if command == "import-t2ranking":
        for name in ("--qrels", "--queries", "--collection"):
            add(name, nargs="+", required=True, help="files or globs")
        add("--grades", type=_numbers, default="3=2,2=2,1=1", help="grade = relevance; default 3=2,2=2,1=1")
        add("--max-chars", type=int, default=500, help="kept of a passage; default 500")
        return
    add("files", nargs="+", help="files or globs")
    add("--columns", type=_columns, help="names of the columns of files without a header: a,b,c")
    if command == "import-discovery":
        add("--language", choices=("zh", "en"), default="en", help="list of connectives; default en")
    else:
        add("--min-rate", type=_share, default=0.0, help="least click-through rate; default: one click")
        add("--min-shows", type=int, default=1, help="least shows of an unclicked pair; default 1")


@cli
def main(argv: Sequence[str]) -> int:
    """Imports and exports examples and pairs of other formats."""
    args = _parser().parse_args(argv)
    try:
        args.function(args)
    except (OSError, sqlite3.OperationalError) as error:
        raise ConfigError(
            f"--to: {args.to} cannot be written ({error}); free some space, or name another place"
        ) from error
    return 0


if __name__ == "__main__":
    main()
