"""Click logs to the query log of `data.query_log`: `query<TAB>title<TAB>clicked`, one row for each query and title.

Read: TSV with a header that names the columns `query`, `title`, and of these what is there:
    clicked   1 or 0: a row for each time the title was shown
    clicks    how often it was clicked
    shows     how often it was shown (at least as often as it was clicked; without it once, or as often as it was clicked)
Rows of the same query and title are added up, wherever they stand. Then a pair is
    strong (clicked 1)   clicked at least once; with --min-rate R: clicks / shows >= R
    weak (clicked 0)     shown at least --min-shows times and never clicked
and dropped, counted, where neither holds. White space at the ends and between words is folded before rows are compared.

Memory: the rows are parted by query into temporary files of about 16 MB (500 files at most, so larger ones from 8 GB on),
which are added up one after the other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_gen.interchange.lines import Buckets, RejectLog, bucket_count, names_columns, read, unpacked_bytes, written
from data_gen.reading.streams import expand_paths
from ernie2.strict import ConfigError

HEADER = ("query", "title", "clicked")
COUNTS = ("clicked", "clicks", "shows")
PART_BYTES = 16_000_000


class Row(NamedTuple):
    """Query, title, clicks and shows of a row."""

    query: str
    title: str
    clicks: int
    shows: int


def import_clicks(patterns: Sequence[str], to: Path, columns: Sequence[str] | None = None, min_rate: float | None = None,
                  min_shows: int = 1, max_reject_share: float = 0.1, out: Callable[[str], None] = print) -> Counter[str]:
    """Adds up click logs and writes the query log.

    Args:
        patterns: Files or globs.
        to: The TSV to write, .gz too.
        columns: Names of the columns of files without a header.
        min_rate: Least click-through rate of strong pairs; None: one click is enough.
        min_shows: Least shows of a weak pair.
        max_reject_share: Most rows that may be rejected.
        out: Takes the lines of the report.

    Returns:
        "strong", "weak", and the reasons for which pairs were dropped -> pairs.

    Raises:
        ConfigError: a file missing or without the columns, too many rows rejected, no pair left.
    """
    if min_rate is not None and not 0 < min_rate <= 1:
        raise ConfigError(f"--min-rate: found {min_rate}, expected a share above 0 and up to 1")
    files, counts = expand_paths(patterns, "click log"), Counter()
    with (RejectLog(Path(f"{to}.rejects.jsonl"), max_reject_share) as rejects, written(to) as file,
          Buckets(Path(f"{to}.parts"), bucket_count(unpacked_bytes(files), PART_BYTES)) as buckets):
        for row in _rows(files, columns, rejects):
            digest = hashlib.blake2b(row.query.encode("utf-8", "replace"), digest_size=8).digest()
            buckets.put(int.from_bytes(digest, "big") * buckets.count >> 64, "\t".join(map(str, row)))
        rejects.judge()
        file.write("\t".join(HEADER) + "\n")
        for part in buckets.parts():
            for query, title, clicks, shows in _added_up(part):
                kind = _kind(clicks, shows, min_rate, min_shows)
                counts[kind] += 1
                if kind in ("strong", "weak"):
                    file.write(f"{query}\t{title}\t{int(kind == 'strong')}\n")
    if not counts["strong"] and not counts["weak"]:
        raise ConfigError(f"--min-rate, --min-shows: no pair is left of {counts.total():,}; ask for less")
    out(f"{counts['strong']:,} strong and {counts['weak']:,} weak pairs in {to}")
    for kind, count in counts.items():
        if kind not in ("strong", "weak"):
            out(f"dropped: {kind}: {count:,}")
    if rejects.counts:
        out(f"rejected: {rejects.reasons()}; all are in {rejects.path}")
    return counts


def _kind(clicks: int, shows: int, min_rate: float | None, min_shows: int) -> str:
    if clicks and (min_rate is None or clicks >= min_rate * shows):
        return "strong"
    if clicks:
        return f"clicked in less than {min_rate:g} of the shows"
    return "weak" if shows >= min_shows else f"shown less than {min_shows} times, not clicked"


def _added_up(part: Sequence[str]) -> Iterator[Row]:
    """Each query and title once, in the order of their first rows."""
    sums: dict[tuple[str, str], list[int]] = {}
    for line in part:
        query, title, clicks, shows = line.split("\t")
        both = sums.setdefault((query, title), [0, 0])
        both[0] += int(clicks)
        both[1] += int(shows)
    for (query, title), (clicks, shows) in sums.items():
        yield Row(query, title, clicks, shows)


def _rows(files: Sequence[Path], columns: Sequence[str] | None, rejects: RejectLog) -> Iterator[Row]:
    for path in files:
        names, first = _names(columns, "--columns") if columns else None, True
        for line in read([path], rejects):
            fields = line.text.split("\t")
            is_header = first and (names is None or names_columns(fields, names))
            first = False
            if is_header:
                rejects.seen -= 1
                names = names or _names(fields, line.source)
            elif len(fields) != len(names):
                rejects.add(path, line.number, "wrong_columns", line.text)
            else:
                row = _row(dict(zip(names, fields, strict=True)))
                if isinstance(row, str):
                    rejects.add(path, line.number, row, line.text)
                else:
                    yield row


def _names(columns: Sequence[str], where: str) -> list[str]:
    """The columns in lower case. Raises ConfigError where one is missing that is needed."""
    names = [column.strip().lower() for column in columns]
    if not {"query", "title"} <= set(names) or not {"clicked", "clicks"} & set(names):
        raise ConfigError(f"{where}: found columns {', '.join(names)[:80]!r}, expected query, title, and clicked or clicks (and "
                          f"shows); for a file without a header name its columns: --columns query,title,clicks,shows")
    return names


def _row(fields: dict[str, str]) -> Row | str:
    """The row, or what is wrong with it."""
    query, title = (" ".join(fields[name].split()) for name in ("query", "title"))
    if not query or not title:
        return "empty_title" if query else "empty_query"
    numbers = {name: fields[name].strip() for name in COUNTS if name in fields}
    if not all(number.isascii() and number.isdigit() for number in numbers.values()):
        return "count that is no whole number"
    if numbers.get("clicked", "0") not in ("0", "1"):
        return "clicked is neither 0 nor 1"
    clicks = int(numbers.get("clicks", numbers.get("clicked", "0")))
    shows = int(numbers["shows"]) if "shows" in numbers else max(clicks, 1)
    if shows < max(clicks, 1):
        return "more clicks than shows" if clicks else "never shown"
    return Row(query, title, clicks, shows)
