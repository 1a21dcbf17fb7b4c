"""Fine-tuning data formats, read as Baidu and SQuAD publish them, also gzip-compressed. No tensors here.

TSV: a header names the columns in any order; lines end at \\n (at \\r where the header does) and fields at
\\t, nothing is quoted, so that a text may hold any other separator. CSV: the same, quoted as spreadsheets do.
JSONL: an object a line. SQuAD JSON for reading comprehension; CoNLL (a token and its tag a line) for tagging.
Every mistake is a ConfigError naming file and line (or the place in the JSON)."""

from __future__ import annotations

import contextlib
import functools
import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ValidationError, ValidationInfo

from ernie2.finetune.tables import ENCODING, conll_rows, csv_table, form_of, jsonl_table, tsv_table
from ernie2.finetune.tagging import SEPARATOR, TaggedText, as_bio, read_tagged
from ernie2.finetune.task import COLUMNS_OF_KIND, FinetuneTask
from ernie2.strict import ConfigError, describe, nearest

LabelUse = Literal["required", "optional", "ignored"]
UNKNOWN_LABEL = "-1"  # Baidu's converters write it where a test split has no labels
_KEYS = "`label_aliases:` maps other spellings, `skip_labels:` leaves rows of a label out"
_CONLL = "a token a line (CoNLL) is read from .conll, .bio, .bioes and .bmes files"


@dataclass(slots=True)
class TextSample:
    """A row of classification or regression."""

    where: str  # file:line
    text_a: str
    text_b: str | None = None
    label: Any = None
    """Class index, or the number of a regression; None where unknown. While reading: what the file says."""
    qid: str | None = None  # rows of one question are ranked against each other (NLPCC-DBQA)
    line: int = 0
    id: str | None = None  # field of the column `id`, where the file has one


@dataclass(slots=True)
class TaggedSample:
    """A row of tagging: one tag for each source token."""

    where: str
    tokens: TaggedText
    tags: list[int] | None = None  # indices into the task's labels; None where unknown
    line: int = 0
    id: str | None = None


@dataclass(slots=True)
class QuestionSample:
    """A question over a passage."""

    where: str  # file: place in the JSON
    qid: str
    question: str
    context: str
    references: list[str] = field(default_factory=list)  # all of them as written, for the metrics
    answer: tuple[int, int] | None = None
    """Character span [start, stop) of the first reference that is a span of the passage; None without one."""


@dataclass
class Split:
    """A data file as read."""

    name: str
    path: Path
    samples: list[Any]
    labelled: bool
    counts: Counter[str]  # what was skipped, repaired or cut, by reason
    features: list[Any] = field(default_factory=list)  # its sequences, once tokenised
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # tokens of each sequence


def find_file(data_dir: str | Path, name: str) -> Path | None:
    """The file `name` in `data_dir`, or the same with .gz added or removed; None when neither exists."""
    path = Path(data_dir) / name
    twin = path.with_name(path.name[:-3]) if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return next((candidate for candidate in (path, twin) if candidate.is_file()), None)


def read_split(path: Path, name: str, task: FinetuneTask, labels: LabelUse = "required") -> Split:
    """Reads one data file of a task.

    labels: required: every row has a known label; optional: a file without labels (no column, or -1 in every
    row where -1 is no label) is read as unlabelled; ignored: labels are not looked at, every line becomes a
    sample. Raises ConfigError naming file and line, what was found and the remedy."""
    counts: Counter[str] = Counter()
    if task.kind == "span":
        samples: list[Any] = list(read_questions(path, read_text(path), labels != "ignored", counts))
        samples = [simplified(sample) for sample in samples] if task.simplify else samples
        bare = next((sample for sample in samples if not sample.references), None)
        labelled = labels != "ignored" and bare is None
        if labels == "required" and bare is not None and name != "train":
            raise ConfigError(
                f"{bare.where}: question '{bare.qid}' has no reference answers; {name} needs them"
            )
    else:
        samples = list(read_rows(path, task, labels, counts))
        labelled = labels != "ignored" and bool(samples) and samples[0].label is not None
        if labels == "optional" and task.kind != "regression" and UNKNOWN_LABEL not in task.label_index():
            labelled = labelled and any(row.label.strip() != UNKNOWN_LABEL for row in samples)
        if labelled:
            rows, samples = samples, [row for row in samples if row.label.strip() not in task.skip_labels]
            counts["rows left out by skip_labels"] += len(rows) - len(samples)
        if task.kind == "tagging":
            samples = [tagged(row, task, labelled, counts) for row in samples]
        else:
            samples = [replace(row, label=_label(row, task) if labelled else None) for row in samples]
    if not samples:
        wanted = "a header line and one sample a line, or SQuAD JSON"
        raise ConfigError(f"{path}: no samples in it ({dict(+counts)}); expected {wanted}")
    single = task.kind == "tagging" and all(len(sample.tokens.spans) == 1 for sample in samples)
    if single and len(samples) > 1 and counts["blank lines"]:
        raise ConfigError(f"{path}: every line holds a single token; {_CONLL}")
    return Split(name, path, samples, labelled, counts)


def read_text(path: Path) -> str:
    """The text of a file, .gz or not, without byte order mark. Raises ConfigError: the line of a bad byte."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text, bad = data.decode("utf-8"), data.find(b"\0")
    except UnicodeDecodeError as error:
        bad = error.start
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if bad >= 0:
        where = f"{path}:{data.count(10, 0, bad) + 1}"
        raise ConfigError(f"{where}: not UTF-8 (byte 0x{data[bad]:02x}); {ENCODING}")
    return text.lstrip("\ufeff")


def read_rows(path: Path, task: FinetuneTask, labels: LabelUse, counts: Counter[str]) -> Iterator[TextSample]:
    """The rows of a file as written, one after the other; `path` may be STDIN. Raises ConfigError."""
    if form_of(path) == "conll":
        for line, tokens, tags in conll_rows(path, labels != "ignored"):
            yield TextSample(f"{path}:{line}", tokens, label=tags, line=line)
        return
    read = {"csv": csv_table, "jsonl": jsonl_table}.get(form_of(path), tsv_table)
    table = read(path, labels == "ignored", counts)
    _, header = next(table)
    columns = _columns(path, header, task, labels)
    for number, fields in table:
        if len(fields) != len(header):
            found = f"found {len(fields)} fields, expected {len(header)} as in the header"
            raise ConfigError(f"{path}:{number}: {found}")
        named = {key: fields[position] for key, position in columns.items()}
        texts = {key: named[key] for key in ("text_a", "text_b") if key in named}
        if len(texts) > 1 and not all(text.strip() for text in texts.values()):
            counts["pairs with an empty text"] += 1
            if labels == "ignored":
                raise ConfigError(f"{path}:{number}: an empty text in a pair; fill it or remove the line")
        if task.drop_spaces:
            named |= {key: text.replace(" ", "") for key, text in texts.items()}
        yield TextSample(f"{path}:{number}", line=number, **named)


def _columns(path: Path, header: list[str], task: FinetuneTask, labels: LabelUse) -> dict[str, int]:
    """Our columns -> positions. A name in `columns:` is that column and no other; what is needed is there."""
    where, mapped, keys = f"{path}:1: ", task.columns, COLUMNS_OF_KIND[task.kind]
    if len(set(header)) != len(header):
        raise ConfigError(f"{where}a column name comes twice in the header: {', '.join(header)}")
    columns: dict[str, int] = {}
    for key in keys:
        # predict reads our own names too, but a mapped one wins
        ours = key not in mapped.values() and (key not in mapped or labels == "ignored")
        for name in ([key] if ours else []) + [mapped.get(key)]:
            columns |= {key: header.index(name)} if name in header else {}
    needed = {"text_a": True, "text_b": task.pair or "text_b" in mapped, "label": labels == "required"}
    needed |= {key: key in mapped and labels != "ignored" for key in ("qid", "id")}
    missing = next((mapped.get(key, key) for key in keys if needed[key] and key not in columns), None)
    if missing is not None:
        raise ConfigError(
            f"{where}no column '{missing}' in the header, found: {', '.join(header)[:200]}; the first line "
            f"names the columns ({', '.join(keys)} in any order), separated by tabs (.csv: by commas), "
            f"and `columns:` of the task maps other names{f'; {_CONLL}' if task.kind == 'tagging' else ''}"
        )
    if task.pair is False and "text_b" in columns:
        raise ConfigError(
            f"{where}a second text in column '{header[columns['text_b']]}', but the task reads one (pair: "
            f"false, or train has no such column); remove the column, or train on pairs"
        )
    return columns


def _label(row: TextSample, task: FinetuneTask) -> int | float | tuple[int, ...]:
    found, index = row.label.strip(), task.label_index()
    if task.multi_label:
        parts = [part.strip() for part in found.replace(SEPARATOR, ",").split(",") if part.strip()]
        if unknown := [part for part in parts if part not in index]:
            wanted = f"one of the task's labels{nearest(unknown[0], index)}"
            raise ConfigError(f"{row.where}: label '{unknown[0]}' is not {wanted}; {_KEYS}")
        return tuple(sorted({index[part] for part in parts}))
    if task.kind == "classification":
        if found in index:
            return index[found]
        wanted = f"one of the task's labels{nearest(found, index)}"
    else:
        wanted = "a number, which kind regression needs"
        with contextlib.suppress(ValueError):
            if math.isfinite(value := float(found)):
                return value
    raise ConfigError(f"{row.where}: label '{found}' is not {wanted}; {_KEYS}")


def tagged(row: TextSample, task: FinetuneTask, labelled: bool, counts: Counter[str]) -> TaggedSample:
    """A row's text as source tokens, its label as a tag for each. Raises ConfigError naming the token."""
    tokens, found = read_tagged(row.where, row.text_a, row.label if labelled else None, task.source_tokens)
    index, tags = task.label_index(), None if found is None else []
    for position, tag in enumerate(found or ()):
        known = tag if tag in index else as_bio(tag)
        if known not in index:
            start, stop = tokens.spans[position]
            raise ConfigError(
                f"{row.where}: token {position + 1} ('{tokens.text[start:stop]}'): tag '{tag}' is not one of "
                f"the task's labels{nearest(known, index)}; {_KEYS}"
            )
        counts["tags of another scheme read as B-, I-"] += tag != known
        tags.append(index[known])
    return TaggedSample(row.where, tokens, tags, row.line, row.id)


# SQuAD JSON


def _answer_list(found: Any, info: ValidationInfo) -> Any:
    """SQuAD's list of answers out of that, Hugging Face's section of lists, one answer, or bare texts."""
    if not info.context["with_answers"] or found in (None, "", {}):
        return []
    if isinstance(found, dict) and isinstance(texts := found.get("text"), list):
        starts = found.get("answer_start", [None] * len(texts))
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise ValueError("text and answer_start are not lists of the same length")
        return [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    if not isinstance(found, list):
        return [found] if isinstance(found, (str, dict)) else found
    return [{"text": one} if isinstance(one, str) else one for one in found]


def _id(found: Any) -> Any:
    return str(found).strip() if type(found) in (int, str) else found


class _Answer(BaseModel):
    text: str
    answer_start: Annotated[int, BeforeValidator(lambda found: -1 if found is None else str(found))] = -1


class _Question(BaseModel):
    id: Annotated[str, BeforeValidator(_id)]
    question: str
    answers: Annotated[list[_Answer], BeforeValidator(_answer_list)] = []


class _Paragraph(BaseModel):
    context: str
    qas: list[_Question]


class _Article(BaseModel):
    paragraphs: list[_Paragraph]


class _File(BaseModel):
    data: list[_Article]


def read_questions(
    path: Path, text: str, with_answers: bool, counts: Counter[str]
) -> Iterator[QuestionSample]:
    """The questions of a SQuAD file; counts answers that were repaired or are no span of their passage."""
    seen: set[str] = set()
    for a, article in enumerate(_parse(path, text, with_answers).data):
        for p, paragraph in enumerate(article.paragraphs):
            for q, item in enumerate(paragraph.qas):
                where = f"{path}: data[{a}].paragraphs[{p}].qas[{q}]"
                if item.id in seen:
                    raise ConfigError(f"{where}: question id '{item.id}' is used twice; ids name the answers")
                seen.add(item.id)
                texts = [answer.text for answer in item.answers if answer.text.strip()]
                spans = (
                    locate_answer(paragraph.context, one.text, one.answer_start, counts)
                    for one in item.answers
                )
                span = next((span for span in spans if span is not None), None)
                yield QuestionSample(where, item.id, item.question, paragraph.context, texts, span)


def _parse(path: Path, text: str, with_answers: bool) -> _File:
    try:
        return _File.model_validate_json(text, context={"with_answers": with_answers})
    except ValidationError as error:
        wrong = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in wrong["loc"])
    reasons = {"missing": "no such key", "model_type": "expected an object"}
    reason = reasons.get(wrong["type"], wrong["msg"]).replace("Input should be", "expected")
    reason = reason.replace("trailing", "JSON lines? trailing")
    found = f", found {describe(wrong['input'])}"[:80] if reason.startswith("expected") else ""
    raise ConfigError(
        f"{path}: {place.removeprefix('.')}{': ' if place else ''}{reason}{found}; expected one SQuAD JSON "
        "{data: [{paragraphs: [{context, qas: [{id, question, answers: [{text, answer_start}]}]}]}]}"
    )


def simplified(sample: QuestionSample) -> QuestionSample:
    """A question in simplified characters, each at its place, so that spans stay; an answer that is a span is
    taken from the passage again. Raises ConfigError: OpenCC is missing."""
    context, question = to_simplified(sample.context), to_simplified(sample.question)
    references = [to_simplified(text) for text in sample.references]
    if sample.answer is not None:
        start, stop = sample.answer
        first = sample.context[start:stop]
        spans = {first: context[start:stop]}
        references = [spans.get(text, new) for text, new in zip(sample.references, references)]
    return replace(sample, context=context, question=question, references=references)


@functools.cache
def _opencc() -> Any:
    try:
        import opencc
    except ImportError:
        remedy = "pip install opencc, or convert the files and set simplify=false"
        raise ConfigError(f"simplify: needs the package opencc; {remedy}") from None
    return opencc.OpenCC("t2s")


def to_simplified(text: str) -> str:
    """Simplified characters, as many as there were: words where they keep their length, else by character."""
    whole = _opencc().convert(text)
    if len(whole) == len(text):
        return whole
    return "".join(one if len(one) == 1 else was for was, one in ((c, _opencc().convert(c)) for c in text))


def locate_answer(context: str, text: str, start: int, counts: Counter[str]) -> tuple[int, int] | None:
    """Character span of an answer, repaired by search where `start` is wrong (CMRC 2018: -1, shifted).

    The occurrence nearest to `start` is taken; a final full stop that the passage does not have is dropped.
    None, and counted, where the passage does not hold the text."""
    if text and start >= 0 and context.startswith(text, start):
        return start, start + len(text)
    for wanted in filter(None, (text, text.strip(), text.strip().rstrip("。."))):
        places = [match.start() for match in re.finditer(f"(?={re.escape(wanted)})", context)]
        if places:
            counts["answers found by search"] += 1
            first = min(places, key=lambda place: abs(place - max(start, 0)))
            return first, first + len(wanted)
    counts["answers that are no span of their passage"] += 1
    return None
