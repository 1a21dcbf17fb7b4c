"""Graded relevance in the form of T2Ranking to the query log of `data.query_log`: `query<TAB>title<TAB>relevance`.

T2Ranking (arXiv 2304.03679; huggingface.co/datasets/THUIR/T2Ranking) has, all TSV without quoting:
    collection.tsv        pid, passage           2.3 million, 3.7 GB
    queries.train.tsv     qid, query             258,042
    qrels.train.tsv       qid, 0, pid, grade     1,613,421, TREC's form; grades 0 to 3
each with or without a header line. Of MS MARCO and others in the same three files: ids must be whole numbers.

Grades become classes by --grades, default 3=strong,2=strong,1=weak,0=none: T2Ranking's own lists of relevant passages
(qrels.retrieval.*) hold grades 2 and 3; a passage of grade 1 was found for the query and does not answer it, as a title
that was shown and not clicked; grade 0 has nothing to do with the query, and the paper's class 2 is a random title, which
the generator draws. These labels are annotated relevance, not clicks.

Memory: the judgements as numbers (about 50 bytes each) and the queries judged. The collection is read once; the passages that
are judged go to temporary files of 20,000 or more judgements each, which are then joined one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_gen.interchange.lines import MOST_BUCKETS, Buckets, RejectLog, read, written
from data_gen.reading.streams import expand_paths

HEADER = ("query", "title", "relevance")
RELEVANCE = {"strong": 2, "weak": 1, "none": None}
DEFAULT_GRADES = {3: "strong", 2: "strong", 1: "weak", 0: "none"}
BUCKET_ROWS = 20_000


def import_graded(qrels: Sequence[str], queries: Sequence[str], collection: Sequence[str], to: Path,
                  grades: dict[int, str] | None = None, max_chars: int = 500, max_reject_share: float = 0.1,
                  out: Callable[[str], None] = print) -> Counter[str]:
    """Joins judgements, queries and passages, and writes the query log in the order of the judgements.

    Args:
        qrels: Files of judgements.
        queries: Files of queries.
        collection: Files of passages.
        to: The TSV to write, .gz too.
        grades: Grade -> "strong", "weak" or "none".
        max_chars: Characters kept of a passage.
        max_reject_share: Most judgements that may be rejected.
        out: Takes the lines of the report.

    Returns:
        "strong", "weak" -> pairs written; "none" -> judgements left out.

    Raises:
        ConfigError: a file missing, too many judgements that cannot be read or lack their query or passage.
    """
    grades = DEFAULT_GRADES if grades is None else grades
    with RejectLog(Path(f"{to}.rejects.jsonl"), max_reject_share) as rejects:
        unused, rows, places = _judgements(expand_paths(qrels, "--qrels"), grades, rejects)
        texts = _queries(expand_paths(queries, "--queries"), rows[:, 0])
        counts = _join(rows, places, texts, expand_paths(collection, "--collection"), to, max_chars, rejects)
    counts["none"] = unused
    out(f"{counts['strong']:,} strong and {counts['weak']:,} weak pairs in {to}; {unused:,} judgements of a grade that is no "
        f"class")
    if rejects.counts:
        out(f"rejected: {rejects.reasons()}; all are in {rejects.path}")
    return counts


def _judgements(files: Sequence[Path], grades: dict[int, str],
                rejects: RejectLog) -> tuple[int, np.ndarray, list[tuple[int, Path]]]:
    """How many are of no class; int64 (N, 4) of qid, pid, relevance and line; and at which row each file begins."""
    unused, rows, places, total = 0, [], [], 0
    chunks: list[np.ndarray] = []
    for path in files:
        places.append((total + len(rows), path))
        for line in read([path], rejects):
            fields = line.text.split()
            if line.number == 1 and not fields[0].isdigit():
                rejects.seen -= 1  # a header
                continue
            numbers = [int(field) for field in fields if field.isascii() and field.isdigit() and len(field) < 19]
            if len(numbers) != 4 or len(fields) != 4:
                rejects.add(path, line.number, "not qid, 0, pid, grade", line.text)
            elif numbers[3] not in grades:
                rejects.add(path, line.number, "grade that --grades does not name", line.text)
            elif (relevance := RELEVANCE[grades[numbers[3]]]) is None:
                unused += 1
            else:
                rows.append((numbers[0], numbers[2], relevance, line.number))
            if len(rows) >= 100_000:
                chunks.append(np.array(rows, np.int64))
                total, rows = total + len(rows), []
    chunks.append(np.array(rows, np.int64).reshape(-1, 4))
    return unused, np.concatenate(chunks), places


def _queries(files: Sequence[Path], judged: np.ndarray) -> dict[int, str]:
    """Text of every query that is judged."""
    wanted = set(np.unique(judged).tolist())
    return {number: _folded(text) for number, text in _numbered(files) if number in wanted}


def _numbered(files: Sequence[Path]) -> Iterator[tuple[int, str]]:
    """(id, text) of `id<TAB>text` lines; lines that are none, such as a header, are passed over."""
    for line in read(files, RejectLog(None, 1.0)):
        number, tab, text = line.text.partition("\t")
        if tab and number.isascii() and number.isdigit() and len(number) < 19:
            yield int(number), text


def _join(rows: np.ndarray, places: list[tuple[int, Path]], queries: dict[int, str], collection: Sequence[Path], to: Path,
          max_chars: int, rejects: RejectLog) -> Counter[str]:
    """Writes query, passage and relevance of each row; rejects rows without one. Returns kind -> rows written."""
    kinds, counts = {relevance: kind for kind, relevance in RELEVANCE.items()}, Counter()
    in_bucket = max(BUCKET_ROWS, -(-len(rows) // MOST_BUCKETS))
    by_pid = np.argsort(rows[:, 1], kind="stable")
    pids = rows[by_pid, 1]
    with written(to) as file, Buckets(Path(f"{to}.parts"), max(-(-len(rows) // in_bucket), 1)) as buckets:
        for pid, text in _numbered(collection):
            first, last = np.searchsorted(pids, [pid, pid + 1])
            passage = _folded(text[:2 * max_chars])[:max_chars] if first < last else ""
            for row in by_pid[first:last].tolist():
                buckets.put(row // in_bucket, f"{row}\t{passage}")
        file.write("\t".join(HEADER) + "\n")
        starts = [start for start, _ in places]
        for number, part in enumerate(buckets.parts()):
            passages = dict(line.split("\t", 1) for line in part)
            for row in range(number * in_bucket, min((number + 1) * in_bucket, len(rows))):
                qid, pid, relevance, line = rows[row].tolist()
                query, passage = queries.get(qid), passages.get(str(row))
                if query and passage:
                    file.write(f"{query}\t{passage}\t{relevance}\n")
                    counts[kinds[relevance]] += 1
                    continue
                path = places[int(np.searchsorted(starts, row, side="right")) - 1][1]
                rejects.add(path, line, "passage not in the collection" if query else "query not in the queries", f"{qid} {pid}")
        rejects.judge()
    return counts


def _folded(text: str) -> str:
    return " ".join(text.split())
