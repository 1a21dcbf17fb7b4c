"""SQuAD JSON, the format of reading comprehension: questions over passages. No tensors here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError, ValidationInfo

from ernie2.strict import ConfigError, describe


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
