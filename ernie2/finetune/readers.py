"""Fine-tuning data formats, read as Baidu and SQuAD publish them. No tensors here.

TSV: a header names the columns in any order; lines end at \\n (at \\r where the header does) and fields at \\t,
nothing is quoted, so that a text may hold any other separator. SQuAD JSON for reading comprehension
(`ernie2.finetune.squad`). Both also gzip-compressed, with or without a byte order mark. Every mistake is a ConfigError
naming file and line (or the place in the JSON).
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ernie2.finetune.squad import QuestionSample, read_questions
from ernie2.finetune.tagging import TaggedText, as_bio, read_tagged
from ernie2.finetune.task import COLUMNS_OF_KIND, FinetuneTask
from ernie2.strict import ConfigError, nearest

LabelUse = Literal["required", "optional", "ignored"]
UNKNOWN_LABEL = "-1"  # Baidu's converters write it where a test split has no labels


@dataclass(slots=True)
class TextSample:
    """A row of classification or regression."""

    where: str
    """`file:line`."""
    text_a: str
    text_b: str | None = None
    label: int | float | None = None
    """Class index, or the number of a regression; None where unknown."""
    qid: str | None = None
    """Question that the row belongs to (NLPCC-DBQA); rows of one question are ranked against each other."""
    line: int = 0
    """Its line in the file."""
    id: str | None = None
    """Field of the column `id`, where the file has one."""


@dataclass(slots=True)
class TaggedSample:
    """A row of tagging: one tag for each source token."""

    where: str
    tokens: TaggedText
    """The text with the character span of each source token."""
    tags: list[int] | None = None
    """Indices into the task's labels, one for each source token; None where unknown."""
    line: int = 0
    """Its line in the file."""
    id: str | None = None
    """Field of the column `id`, where the file has one."""


Sample = TextSample | TaggedSample | QuestionSample


@dataclass
class Split:
    """A data file as read."""

    name: str
    path: Path
    samples: list[Any]
    labelled: bool
    counts: Counter[str]
    """What was skipped or repaired, by reason."""


def find_file(data_dir: str | Path, name: str) -> Path | None:
    """The file `name` in `data_dir`, or the same with .gz added or removed; None when neither exists."""
    path = Path(data_dir) / name
    twin = path.with_name(path.name[:-3]) if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return next((candidate for candidate in (path, twin) if candidate.is_file()), None)


def read_split(path: Path, name: str, task: FinetuneTask, labels: LabelUse = "required") -> Split:
    """Reads one data file of a task.

    Args:
        path: .tsv (span: .json), each also .gz.
        name: name of the split, for logs and output files.
        task: decides the format (kind), the columns and the labels.
        labels: required: every row has a known label; optional: a file without labels (no column, or -1 in
            every row where -1 is no label) is read as unlabelled; ignored: labels are not looked at, and every line
            becomes a sample.

    Raises:
        ConfigError: naming file and line, what was found and the remedy.
    """
    counts: Counter[str] = Counter()
    samples: list[Any]
    if task.kind == "span":
        samples = list(read_questions(path, read_text(path), labels != "ignored", counts))
        bare = next((sample for sample in samples if not sample.references), None)
        labelled = labels != "ignored" and bare is None
        if labels == "required" and bare is not None and name != "train":
            raise ConfigError(
                f"{bare.where}: question '{bare.qid}' has no reference answers; {name} needs them"
            )
    else:
        rows = _read_rows(path, task, labels, counts)
        labelled = labels != "ignored" and _has_labels(rows, task, labels)
        if labelled:
            rows = _without_skipped(rows, task, counts)
        read = _read_tagged_row if task.kind == "tagging" else _read_text_row
        samples = [read(f"{path}:{row.line}", row, task, labelled, counts) for row in rows]
        if labels == "ignored" and counts["pairs with an empty text"]:
            bare = next(s for s in samples if not s.text_a.strip() or not s.text_b.strip())
            raise ConfigError(f"{bare.where}: an empty text in a pair; fill it or remove the line")
    if not samples:
        raise ConfigError(
            f"{path}: no samples in it; expected a header line and one sample a line, or SQuAD JSON"
        )
    return Split(name, path, samples, labelled, counts)


def read_text(path: Path) -> str:
    """The text of a file, .gz or not, byte order mark removed. Raises ConfigError with the line of a bad byte."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    kind = next((kind for start, kind in _OTHER_FILES.items() if data.startswith(start)), None)
    if kind is not None:
        raise ConfigError(f"{path}: {kind}, expected text in UTF-8; convert the file")
    try:
        text = data.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(
            f"{path}:{line}: a NUL character, so not text in UTF-8 (UTF-16, a binary file?); convert it"
        )
    return text


_OTHER_FILES = {
    b"\xff\xfe": "a UTF-16 file",
    b"\xfe\xff": "a UTF-16 file",
    b"\x1f\x8b": "a gzip file, which is read where its name ends in .gz",
    b"PK\x03\x04": "a zip or Excel file",
}


@dataclass(slots=True)
class _Row:
    """A line of a table: its number and the fields of our columns; None where the file has no such column."""

    line: int
    text_a: str = ""
    text_b: str | None = None
    label: str | None = None
    qid: str | None = None
    id: str | None = None


def _read_rows(path: Path, task: FinetuneTask, labels: LabelUse, counts: Counter[str]) -> list[_Row]:
    text = read_text(path)
    if "\r" in text.partition("\n")[0].rstrip("\r"):  # lines that end at \r, as on old Macintoshes
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.removesuffix("\n").split("\n")
    while len(lines) > 1 and not lines[-1].rstrip("\r"):
        lines.pop()
        counts["blank lines"] += 1
    header = [name.strip() for name in lines[0].split("\t")]
    columns = _columns(path, header, task, labels)
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.rstrip("\r").split("\t")
        if fields == [""] and len(header) > 1:  # in a file of one column it is an empty text
            if labels != "ignored":
                counts["blank lines"] += 1
                continue
            fields *= len(header)
        if len(fields) != len(header):
            raise ConfigError(
                f"{path}:{number}: found {len(fields)} tab-separated fields, expected {len(header)} as in the "
                f"header"
            )
        rows.append(_Row(number, **{key: fields[position] for key, position in columns.items()}))
    return rows


def _columns(path: Path, header: list[str], task: FinetuneTask, labels: LabelUse) -> dict[str, int]:
    """Our columns -> positions. A name in `columns:` is that column and no other; what is needed is there."""
    where = f"{path}:1: "
    if len(set(header)) != len(header):
        raise ConfigError(f"{where}a column name is given twice in the header: {', '.join(header)}")
    names = {key: task.columns.get(key, key) for key in COLUMNS_OF_KIND[task.kind]}
    free = set(header) - set(task.columns.values())
    columns = {}
    for key, name in names.items():
        if key in task.columns and name in header:
            columns[key] = header.index(name)
        elif key in free and (
            key not in task.columns or labels == "ignored"
        ):  # predict reads our own names too
            columns[key] = header.index(key)
    needed = {"text_a": True, "text_b": task.pair or "text_b" in task.columns, "label": labels == "required"}
    needed |= {key: key in task.columns and labels != "ignored" for key in ("qid", "id")}
    for key, name in names.items():
        if needed[key] and key not in columns:
            raise ConfigError(
                f"{where}no column '{name}' in the header, found: {', '.join(header)[:200]}; the first line names "
                f"the columns, parted by tabs ({', '.join(names)} in any order; no CSV or JSON lines), and "
                f"`columns:` of the task maps other names{_CONLL if task.kind == 'tagging' else ''}"
            )
    if task.pair is False and "text_b" in columns:
        raise ConfigError(
            f"{where}a second text in column '{names['text_b']}', but the task reads one (pair: false, or train "
            f"has no such column); remove the column, or train on pairs"
        )
    return columns


_CONLL = (
    "; a token and its tag on a line of their own (CoNLL) are not read: write a sentence a row, its tokens and "
    "its tags each joined by \\x02"
)


def _has_labels(rows: Sequence[_Row], task: FinetuneTask, labels: LabelUse) -> bool:
    if not rows or rows[0].label is None:
        return False
    if labels == "required" or task.kind == "regression" or UNKNOWN_LABEL in task.label_index():
        return True
    return any(row.label.strip() != UNKNOWN_LABEL for row in rows)


def _without_skipped(rows: Sequence[_Row], task: FinetuneTask, counts: Counter[str]) -> list[_Row]:
    kept = [row for row in rows if row.label.strip() not in task.skip_labels]
    counts["rows left out by skip_labels"] += len(rows) - len(kept)
    return kept


def _read_text_row(
    where: str, row: _Row, task: FinetuneTask, labelled: bool, counts: Counter[str]
) -> TextSample:
    label = _label(where, row.label.strip(), task) if labelled else None
    counts["pairs with an empty text"] += row.text_b is not None and not (
        row.text_a.strip() and row.text_b.strip()
    )
    return TextSample(where, row.text_a, row.text_b, label, row.qid, row.line, row.id)


def _label(where: str, found: str, task: FinetuneTask) -> int | float:
    if task.kind == "classification":
        index = task.label_index()
        if found not in index:
            raise ConfigError(
                f"{where}: label '{found}' is not one of the task's labels{nearest(found, index)}; {_KEYS}"
            )
        return index[found]
    try:
        value = float(found)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{where}: label '{found}' is not a number, which kind regression needs; {_KEYS}")
    return value


_KEYS = "`label_aliases:` maps other spellings, `skip_labels:` leaves rows of a label out"


def _read_tagged_row(
    where: str, row: _Row, task: FinetuneTask, labelled: bool, counts: Counter[str]
) -> TaggedSample:
    tokens, found = read_tagged(where, row.text_a, row.label if labelled else None, task.source_tokens)
    if found is None:
        return TaggedSample(where, tokens, None, row.line, row.id)
    index = task.label_index()
    tags = [tag if tag in index else as_bio(tag) for tag in found]
    for position, tag in enumerate(tags):
        if tag not in index:
            start, stop = tokens.spans[position]
            raise ConfigError(
                f"{where}: token {position + 1} ('{tokens.text[start:stop]}'): tag '{found[position]}' is not one "
                f"of the task's labels{nearest(tag, index)}; {_KEYS}"
            )
    counts["tags of another scheme read as B-, I-"] += sum(a != b for a, b in zip(tags, found))
    return TaggedSample(where, tokens, [index[tag] for tag in tags], row.line, row.id)
