"""Fine-tuning data formats, read as Baidu and SQuAD publish them. No tensors here.

TSV: a header names the columns in any order; lines end at \\n only and fields at \\t only, nothing is quoted, so that
a text may hold any other separator. SQuAD v1.1 JSON for reading comprehension. Both also gzip-compressed, with or
without a byte order mark. Every mistake is a ConfigError naming file and line (or the place in the JSON).
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ernie2.finetune_task import FinetuneTask
from ernie2.strict import ConfigError, nearest
from ernie2.tagging import TaggedText, read_tagged

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


@dataclass(slots=True)
class TaggedSample:
    """A row of tagging: one tag for each source token."""

    where: str
    tokens: TaggedText
    """The text with the character span of each source token."""
    tags: list[int] | None = None
    """Indices into the task's labels, one for each source token; None where unknown."""


@dataclass(slots=True)
class QuestionSample:
    """A question over a passage."""

    where: str
    """`file: place in the JSON`."""
    qid: str
    question: str
    context: str
    references: list[str] = field(default_factory=list)
    """Every reference answer as written, for the metrics."""
    answer: tuple[int, int] | None = None
    """Character span [start, stop) of the first usable reference; None where no reference is a span of the passage."""


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
        labels: required: every row has a known label; optional: a file without labels (no column, or -1 in every row)
        is
            read as unlabelled; ignored: labels are not looked at.

    Raises:
        ConfigError: naming file and line, what was found and the remedy.
    """
    counts: Counter[str] = Counter()
    if task.kind == "span":
        samples: list[Any] = list(_read_questions(path, counts))
        labelled = labels != "ignored" and all(sample.references for sample in samples)
        if labels == "required" and not labelled:
            bare = next((sample for sample in samples if not sample.references), None)
            if bare is not None and name != "train":
                raise ConfigError(f"{bare.where}: question '{bare.qid}' has no reference answers; {name} needs them")
    else:
        rows = _rows(path, task, counts)
        columns = next(rows)
        labelled = _has_labels(path, columns, labels)
        read = _read_tagged_row if task.kind == "tagging" else _read_text_row
        table = list(rows)
        if labelled and labels == "optional" and all(row["label"].strip() == UNKNOWN_LABEL for _, row in table):
            labelled = False
        samples = [read(f"{path}:{line}", row, task, labelled) for line, row in table]
    if not samples:
        raise ConfigError(f"{path}: no samples in it; expected a header line and one sample a line, or SQuAD JSON")
    return Split(name, path, samples, labelled, counts)


def read_text(path: Path) -> str:
    """The text of a file, .gz or not, byte order mark removed. Raises ConfigError with the line of a bad byte."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from None


def _rows(path: Path, task: FinetuneTask, counts: Counter[str]) -> Iterator[Any]:
    """Yields the column names once, then (line number, {column: field}) for each row."""
    lines = read_text(path).split("\n")
    header = [name.strip() for name in lines[0].rstrip("\r").split("\t")]
    ours = {task.columns.get(column, column): column for column in ("text_a", "text_b", "label", "qid")}
    if len(set(header)) != len(header):
        raise ConfigError(f"{path}:1: a column name is given twice in the header: {', '.join(header)}")
    columns = [ours.get(name, name) for name in header]
    if "text_a" not in columns:
        wanted = task.columns.get("text_a", "text_a")
        raise ConfigError(
            f"{path}:1: no column '{wanted}' in the header, found: {', '.join(header)[:200]}; the first line names the "
            f"columns (text_a, text_b, label, qid in any order), and `columns:` of the task maps other names"
        )
    yield columns
    last = len(lines) - 1
    for number, line in enumerate(lines[1:], start=2):
        line = line.rstrip("\r")
        if not line:
            counts["blank lines"] += number <= last
            continue
        fields = line.split("\t")
        if len(fields) != len(columns):
            raise ConfigError(
                f"{path}:{number}: found {len(fields)} tab-separated fields, expected {len(columns)} as in the header"
            )
        yield number, dict(zip(columns, fields))


def _has_labels(path: Path, columns: list[str], labels: LabelUse) -> bool:
    if labels == "required" and "label" not in columns:
        raise ConfigError(f"{path}:1: no column 'label' in the header, found: {', '.join(columns)[:200]}")
    return labels != "ignored" and "label" in columns


def _read_text_row(where: str, row: dict[str, str], task: FinetuneTask, labelled: bool) -> TextSample:
    label = _label(where, row["label"].strip(), task) if labelled else None
    return TextSample(where, row["text_a"], row.get("text_b"), label, row.get("qid"))


def _label(where: str, found: str, task: FinetuneTask) -> int | float:
    if task.kind == "classification":
        index = task.label_index()
        if found not in index:
            raise ConfigError(f"{where}: label '{found}' is not one of the task's labels{nearest(found, index)}")
        return index[found]
    try:
        value = float(found)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{where}: label '{found}' is not a number, which kind regression needs")
    return value


def _read_tagged_row(where: str, row: dict[str, str], task: FinetuneTask, labelled: bool) -> TaggedSample:
    tokens, tags = read_tagged(where, row["text_a"], row["label"] if labelled else None)
    if tags is None:
        return TaggedSample(where, tokens)
    index = task.label_index()
    for position, tag in enumerate(tags):
        if tag not in index:
            start, stop = tokens.spans[position]
            raise ConfigError(
                f"{where}: token {position + 1} ('{tokens.text[start:stop]}'): tag '{tag}' is not one of the task's "
                f"labels{nearest(tag, index)}"
            )
    return TaggedSample(where, tokens, [index[tag] for tag in tags])


def _read_questions(path: Path, counts: Counter[str]) -> Iterator[QuestionSample]:
    try:
        tree = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    seen: set[str] = set()
    for a, article in enumerate(_get(path, tree, "data", list, "top level")):
        for p, paragraph in enumerate(_get(path, article, "paragraphs", list, f"data[{a}]")):
            place = f"data[{a}].paragraphs[{p}]"
            context = _get(path, paragraph, "context", str, place)
            for q, item in enumerate(_get(path, paragraph, "qas", list, place)):
                sample = _question(path, f"{place}.qas[{q}]", item, context, counts)
                if sample.qid in seen:
                    raise ConfigError(f"{sample.where}: question id '{sample.qid}' is used twice; ids name the answers")
                seen.add(sample.qid)
                yield sample


def _question(path: Path, place: str, item: Any, context: str, counts: Counter[str]) -> QuestionSample:
    question = _get(path, item, "question", str, place)
    qid = item.get("id")
    if not isinstance(qid, (str, int)):
        raise ConfigError(f"{path}: {place}: no key 'id'")
    sample = QuestionSample(f"{path}: {place}", str(qid).strip(), question, context)
    for i, answer in enumerate(item.get("answers") or []):
        text = _get(path, answer, "text", str, f"{place}.answers[{i}]")
        sample.references.append(text)
        if sample.answer is None:
            sample.answer = locate_answer(context, text, answer.get("answer_start", -1), counts)
    return sample


def locate_answer(context: str, text: str, start: Any, counts: Counter[str]) -> tuple[int, int] | None:
    """Character span of an answer, repaired by search where `start` is wrong (CMRC 2018 holds -1 and shifted offsets).

    The occurrence nearest to `start` is taken; a final full stop that the passage does not have is dropped. None, and
    counted, where the passage does not hold the text.
    """
    start = start if isinstance(start, int) else -1
    if text and start >= 0 and context.startswith(text, start):
        return start, start + len(text)
    for wanted in (text, text.strip(), text.strip().rstrip("。.")):
        places = [i for i in range(len(context) - len(wanted) + 1) if context.startswith(wanted, i)] if wanted else []
        if places:
            counts["answers found by search"] += 1
            first = min(places, key=lambda place: abs(place - max(start, 0)))
            return first, first + len(wanted)
    counts["answers that are no span of their passage"] += 1
    return None


def _get(path: Path, node: Any, key: str, kind: type, place: str) -> Any:
    if not isinstance(node, dict) or key not in node:
        raise ConfigError(
            f"{path}: {place}: no key '{key}'; expected SQuAD JSON (data, paragraphs, context, qas, question, id)"
        )
    if not isinstance(node[key], kind):
        raise ConfigError(f"{path}: {place}.{key}: expected {kind.__name__}, found {type(node[key]).__name__}")
    return node[key]
