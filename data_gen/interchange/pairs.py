"""Sentences with their connective, click logs and judged passages, to the TSV files that a recipe names.

One reader maps the columns of a table to the names we use; .tsv, .txt, .csv, .jsonl, .parquet, and
Discovery's folders.

Discovery (Sileo et al. 2019) is given out as folders DiscoveryBase/, DiscoveryBig/, DiscoveryHard/ with
s1.train, s2.train and labels.train; as train.tsv with sentence1, sentence2, label; and on the Hugging Face
hub, where the label is a number of the list of 174. A connective is known whatever its case, with `_` for
spaces, with or without its comma: Discovery's `as_a_result,` is `as a result`. Its sentences are tokenized,
two spaces between words: white space is folded.

A click log has `query`, `title`, and of `clicked` (1 or 0: a row for each time the title was shown), `clicks`
(how often it was clicked) and `shows` (how often it was shown; without it as often as clicked) what is there.
Rows of the same query and title are added up. A pair is strong (clicked 1) if clicked at least once, with
--min-rate R in at least that share of the shows; weak (clicked 0) if shown at least --min-shows times and
never clicked; else dropped.

T2Ranking (arXiv 2304.03679; huggingface.co/datasets/THUIR/T2Ranking) has collection.tsv (pid, passage; 3.7
GB), queries.train.tsv (qid, query) and qrels.train.tsv (qid, 0, pid, grade; TREC's form), each with or
without a header. Its own lists of relevant passages hold grades 2 and 3; a passage of grade 1 was found for
the query and does not answer it, as a title that was shown and not clicked; grade 0 has nothing to do with
the query, and the paper's class 2 is a random title, which the generator draws.

Sums and joins are made by SQLite in a file beside the output: memory does not grow with the input."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from data_gen.generators import connectives
from data_gen.interchange.lines import RejectLog, is_number, read, scratch, written
from data_gen.reading.streams import base_name, expand_paths
from ernie2.strict import ConfigError

Row = tuple[Path, int, dict[str, Any]]
"""File, line, and what stands in the columns that have a name of ours."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table: our name of each -> the names it may have in a file, in lower case; groups of
    which at least one column is needed; both for messages, with a value of --columns."""

    names: dict[str, set[str]]
    needed: tuple[set[str], ...]
    expected: str
    example: str


SENTENCES = Columns(
    {
        "sentence1": {"sentence1", "s1", "first"},
        "sentence2": {"sentence2", "s2", "second"},
        "marker": {"marker", "label", "y", "connective"},
    },
    ({"sentence1"}, {"sentence2"}, {"marker"}),
    "sentence1, sentence2, marker (or s1, s2, label)",
    "sentence1,sentence2,marker",
)
COUNTS = ("clicked", "clicks", "shows")
CLICKS = Columns(
    {name: {name} for name in ("query", "title", *COUNTS)},
    ({"query"}, {"title"}, {"clicked", "clicks"}),
    "query, title, and clicked or clicks (and shows)",
    "query,title,clicks,shows",
)
FOLDER_SPLITS = ("train", "dev", "valid", "test")
MOST_UNKNOWN = 10_000
"""Different unknown connectives that are counted."""
RELEVANCE = {"strong": 2, "weak": 1, "none": None}


def import_discovery(args: Namespace) -> None:
    """Sentence pairs with their connective to the TSV of data.marked_pairs."""
    names, kept, unknown = connectives.class_names(args.language), Counter(), Counter()
    with _table(args, tuple(SENTENCES.names)) as (file, rejects):
        for path, number, row in _rows(args.files, SENTENCES, args.columns, rejects):
            first, second = _folded(row["sentence1"]), _folded(row["sentence2"])
            label = _class(row["marker"], args.language, len(names))
            if not first or not second:
                rejects.add(path, number, "empty_sentence", f"{first}\t{second}")
            elif label is None:
                marker = str(row["marker"])
                rejects.add(path, number, "unknown_marker", marker)
                if marker in unknown or len(unknown) < MOST_UNKNOWN:
                    unknown[marker] += 1
            else:
                kept[names[label]] += 1
                file.write(f"{first}\t{second}\t{names[label]}\n")
        rejects.judge()
        least, most = min(kept.values()), max(kept.values())
        print(
            f"{kept.total():,} pairs of {len(kept)} connectives, {least:,} to {most:,} of each, in {args.to}"
        )
        if unknown:
            found = (f"{name!r} {count:,}" for name, count in unknown.most_common(20))
            print(f"unknown connectives: {', '.join(found)}")


def _class(marker: Any, language: str, classes: int) -> int | None:
    """Class of a marker: its name, or (of Discovery) its number in the list."""
    text = str(marker if marker is not None else "").strip()
    if language == "en" and is_number(text):
        return int(text) if int(text) < classes else None
    return connectives.class_of(text, language) if text else None


def import_clicks(args: Namespace) -> None:
    """Click logs to the TSV of data.query_log."""
    if args.min_rate is not None and not 0 < args.min_rate <= 1:
        raise ConfigError(f"--min-rate: found {args.min_rate}, expected a share above 0 and up to 1")
    counts: Counter[str] = Counter()
    with _table(args, ("query", "title", "clicked")) as (file, rejects), scratch(args.to) as db:
        db.execute("CREATE TABLE log (query TEXT, title TEXT, clicks INTEGER, shows INTEGER)")
        db.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", _clicks(args.files, args.columns, rejects))
        rejects.judge()
        for query, title, clicks, shows in db.execute(
            "SELECT query, title, SUM(clicks), SUM(shows) FROM log GROUP BY query, title ORDER BY MIN(rowid)"
        ):
            kind = _kind(clicks, shows, args.min_rate, args.min_shows)
            counts[kind] += 1
            if kind in RELEVANCE:
                file.write(f"{query}\t{title}\t{int(kind == 'strong')}\n")
        if not counts["strong"] and not counts["weak"]:
            raise ConfigError(f"--min-rate, --min-shows: no pair is left of {counts.total():,}; ask for less")
        print(f"{counts['strong']:,} strong and {counts['weak']:,} weak pairs in {args.to}")
        for kind in counts.keys() - RELEVANCE.keys():
            print(f"dropped: {kind}: {counts[kind]:,}")


def _kind(clicks: int, shows: int, min_rate: float | None, min_shows: int) -> str:
    if clicks and (min_rate is None or clicks >= min_rate * shows):
        return "strong"
    if clicks:
        return f"clicked in less than {min_rate:g} of the shows"
    return "weak" if shows >= min_shows else f"shown less than {min_shows} times, not clicked"


def _clicks(
    patterns: Sequence[str], columns: Sequence[str] | None, rejects: RejectLog
) -> Iterator[tuple[str, str, int, int]]:
    """Query, title, clicks and shows of each row."""
    for path, number, row in _rows(patterns, CLICKS, columns, rejects):
        query, title = _folded(row["query"]), _folded(row["title"])
        counts = {name: _folded(row[name]) for name in COUNTS if name in row}
        clicks = _count(counts.get("clicks", counts.get("clicked", "0")))
        shows = _count(counts["shows"]) if "shows" in counts else max(clicks, 1)
        fault = "empty_query" if not query else "empty_title" if not title else _fault(counts, clicks, shows)
        if fault:
            rejects.add(path, number, fault, f"{query}\t{title}\t" + "\t".join(counts.values()))
        else:
            yield query, title, clicks, shows


def _count(text: str) -> int:
    return int(text) if is_number(text) else -1


def _fault(counts: dict[str, str], clicks: int, shows: int) -> str | None:
    if not all(map(is_number, counts.values())):
        return "count that is no whole number"
    if counts.get("clicked", "0") not in ("0", "1"):
        return "clicked is neither 0 nor 1"
    if shows < max(clicks, 1):
        return "more clicks than shows" if clicks else "never shown"
    return None


def import_t2ranking(args: Namespace) -> None:
    """Graded relevance in T2Ranking's form to the TSV of data.query_log."""
    counts: Counter[int | None] = Counter()
    with _table(args, ("query", "title", "relevance")) as (file, rejects), scratch(args.to) as db:
        db.executescript("""
            CREATE TABLE judged (file TEXT, line INTEGER, qid INTEGER, pid INTEGER, relevance INTEGER);
            CREATE TABLE queries (id INTEGER PRIMARY KEY, text TEXT);
            CREATE TABLE passages (id INTEGER PRIMARY KEY, text TEXT);
        """)
        db.executemany(
            "INSERT INTO judged VALUES (?, ?, ?, ?, ?)",
            _judgements(args.qrels, args.grades, rejects, counts),
        )
        for name, key, files, most in (
            ("queries", "qid", args.queries, None),
            ("passages", "pid", args.collection, args.max_chars),
        ):
            db.execute(f"CREATE INDEX by_{key} ON judged ({key})")
            db.executemany(
                f"INSERT OR REPLACE INTO {name} SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM judged WHERE "
                f"{key} = ?1)",
                _numbered(expand_paths(files, "--queries" if most is None else "--collection"), most),
            )
        for path, line, qid, pid, relevance, query, passage in db.execute(
            "SELECT judged.*, queries.text, passages.text FROM judged LEFT JOIN queries ON queries.id = qid "
            "LEFT JOIN passages ON passages.id = pid ORDER BY judged.rowid"
        ):
            if query and passage:
                counts[relevance] += 1
                file.write(f"{query}\t{passage}\t{relevance}\n")
            else:
                reason = "passage not in the collection" if query else "query not in the queries"
                rejects.add(Path(path), line, reason, f"{qid} {pid}")
        rejects.judge()
        strong, weak, unused = (counts[relevance] for relevance in RELEVANCE.values())
        print(
            f"{strong:,} strong and {weak:,} weak pairs in {args.to}; {unused:,} judgements of a grade that "
            "is no class"
        )


def _judgements(
    files: Sequence[str], grades: dict[int, str], rejects: RejectLog, counts: Counter[int | None]
) -> Iterator[tuple[str, int, int, int, int]]:
    """File, line, qid, pid and relevance of each judgement that is of a class; counts the others."""
    for line in read(expand_paths(files, "--qrels"), rejects):
        fields = line.text.split()
        if line.number == 1 and not fields[0].isdigit():
            rejects.seen -= 1  # a header
        elif len(fields) != 4 or not all(map(is_number, fields)):
            rejects.add(line.path, line.number, "not qid, 0, pid, grade", line.text)
        elif int(fields[3]) not in grades:
            rejects.add(line.path, line.number, "grade that --grades does not name", line.text)
        elif (relevance := RELEVANCE[grades[int(fields[3])]]) is None:
            counts[None] += 1
        else:
            yield str(line.path), line.number, int(fields[0]), int(fields[2]), relevance


def _numbered(files: Sequence[Path], most: int | None) -> Iterator[tuple[int, str]]:
    """(id, text) of `id<TAB>text` lines, `most` characters of it; lines that are none, such as a header, are
    skipped."""
    for line in read(files, RejectLog(None, 1.0)):
        number, _, text = line.text.partition("\t")
        if is_number(number):
            yield int(number), _folded(text)[:most]


@contextmanager
def _table(args: Namespace, header: Sequence[str]) -> Iterator[tuple[TextIO, RejectLog]]:
    """The TSV to write, its header written, and its rejects, which are reported at the end."""
    rejects = RejectLog(Path(f"{args.to}.rejects.jsonl"), args.max_reject_share)
    with rejects, written(args.to) as file:
        file.write("\t".join(header) + "\n")
        yield file, rejects
    if rejects.counts:
        print(f"rejected: {rejects.reasons()}; all are in {rejects.path}")


def _rows(
    patterns: Sequence[str], columns: Columns, given: Sequence[str] | None, rejects: RejectLog
) -> Iterator[Row]:
    """Rows of files, the columns under our names; `given`: those of files without a header."""
    for pattern in patterns:
        if columns is SENTENCES and Path(pattern).is_dir():
            yield from _folder_rows(Path(pattern), rejects)
            continue
        for path in expand_paths([pattern], "file"):
            kind = Path(base_name(path)).suffix
            if kind in (".jsonl", ".json"):
                yield from _object_rows(path, columns, rejects)
            elif kind == ".parquet":
                yield from _table_rows(path, _parquet(path, rejects), columns, None, rejects)
            elif kind == ".csv":
                yield from _table_rows(path, _quoted(path, rejects), columns, given, rejects)
            elif kind in ("", ".tsv", ".txt", ".log"):
                lines = ((line.number, line.text.split("\t")) for line in read([path], rejects))
                yield from _table_rows(path, lines, columns, given, rejects)
            else:
                raise ConfigError(
                    f"{path}: unknown kind of file; use .tsv, .csv, .txt, .jsonl or .parquet, or (of "
                    "Discovery) a "
                    f"folder with s1.train, s2.train and labels.train"
                )


def _table_rows(
    path: Path,
    rows: Iterable[tuple[int, Sequence[Any]]],
    columns: Columns,
    given: Sequence[str] | None,
    rejects: RejectLog,
) -> Iterator[Row]:
    """Rows of a table. Its first line is the header, unless columns are given; one that repeats them is one
    too."""
    places, width = (_places(given, columns, "--columns"), len(given)) if given else (None, 0)
    first = True
    for number, fields in rows:
        if first and (places is None or _lower(fields) == _lower(given)):
            rejects.seen -= number > 0  # a header is no row
            places, width = _places(fields, columns, f"{path}:{number}"), len(fields)
        elif len(fields) != width:
            rejects.add(path, number, "wrong_columns", "\t".join(map(str, fields)))
        else:
            yield path, number, {name: fields[place] for name, place in places.items()}
        first = False


def _places(fields: Sequence[str], columns: Columns, where: str) -> dict[str, int]:
    """Our names -> where these columns are. Raises ConfigError where one is not found."""
    lower = _lower(fields)
    found = {
        name: [i for i, one in enumerate(lower) if one in known] for name, known in columns.names.items()
    }
    places = {name: at[0] for name, at in found.items() if at}
    if not all(group & places.keys() for group in columns.needed):
        raise ConfigError(
            f"{where}: found columns {', '.join(lower)[:80]!r}, expected {columns.expected}; for a file "
            "without a "
            f"header name its columns: --columns {columns.example}"
        )
    return places


def _lower(fields: Sequence[Any]) -> list[str]:
    return [str(field).strip().lower() for field in fields]


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


def _parquet(path: Path, rejects: RejectLog) -> Iterator[tuple[int, Sequence[Any]]]:
    """The names of the columns, as line 0, and the rows."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path}: .parquet needs the package pyarrow (pip install pyarrow); or save it as .jsonl"
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        yield 0, file.schema_arrow.names
        for batch in file.iter_batches(10_000):
            for fields in zip(*(column.to_pylist() for column in batch.columns)):
                rejects.seen += 1
                yield rejects.seen, fields
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: damaged parquet file ({error}); copy it again") from None


def _object_rows(path: Path, columns: Columns, rejects: RejectLog) -> Iterator[Row]:
    for line in read([path], rejects):
        try:
            record = {str(key).lower(): value for key, value in json.loads(line.text).items()}
        except (ValueError, RecursionError, AttributeError):
            rejects.add(path, line.number, "not a JSON object", line.text)
            continue
        found = {name: sorted(known & record.keys()) for name, known in columns.names.items()}
        row = {name: record[keys[0]] for name, keys in found.items() if keys}
        if all(group & row.keys() for group in columns.needed):
            yield path, line.number, row
        else:
            rejects.add(path, line.number, "wrong_columns", line.text)


def _folder_rows(folder: Path, rejects: RejectLog) -> Iterator[Row]:
    """The three files of each split of a Discovery folder, line by line."""
    splits = [split for split in FOLDER_SPLITS if (folder / f"s1.{split}").exists()]
    if not splits:
        raise ConfigError(
            f"{folder}: no s1.train, s2.train and labels.train in this folder; name files instead"
        )
    for split in splits:
        paths = [folder / f"{name}.{split}" for name in ("s1", "s2", "labels")]
        texts = [path.read_text("utf-8", "replace") if path.exists() else "" for path in paths]
        files = [text.split("\n") for text in texts]
        lengths = {len(lines) for lines in files}
        if len(lengths) > 1:
            raise ConfigError(
                f"{paths[0]}: {' and '.join(path.name for path in paths)} have {sorted(lengths)} lines; "
                "they must "
                f"have equally many: copy them again"
            )
        for number, fields in enumerate(zip(*files, strict=True), 1):
            if any(fields):
                rejects.seen += 1
                yield paths[0], number, dict(zip(SENTENCES.names, fields, strict=True))


def _folded(value: Any) -> str:
    """White space folded; half a surrogate pair, as JSON may hold one, spelt out."""
    text = " ".join(str("" if value is None else value).split())
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
