"""SQuAD JSON, the format of reading comprehension: questions over passages. No tensors here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ernie2.strict import ConfigError


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
    """Character span [start, stop) of the first reference that is a span of the passage; None without one."""


def read_questions(
    path: Path, text: str, with_answers: bool, counts: Counter[str]
) -> Iterator[QuestionSample]:
    """The questions of a SQuAD file.

    Args:
        path: for messages.
        text: what the file holds.
        with_answers: read the reference answers; without, they may be whatever they are.
        counts: answers that were repaired or are no span of their passage are counted here.

    Raises:
        ConfigError: naming the place in the JSON."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        found = error.msg
        if found == "Extra data":
            found = "a second JSON value begins here (JSON lines, raw DuReader?)"
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {found}; expected one {_SQUAD}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}; expected {_SQUAD}") from None
    seen: set[str] = set()
    for a, article in enumerate(_get(tree, "data", list, f"{path}: top level")):
        for p, paragraph in enumerate(_get(article, "paragraphs", list, f"{path}: data[{a}]")):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            context = _get(paragraph, "context", str, where)
            for q, item in enumerate(_get(paragraph, "qas", list, where)):
                sample = _question(f"{where}.qas[{q}]", item, context, with_answers, counts)
                if sample.qid in seen:
                    raise ConfigError(
                        f"{sample.where}: question id '{sample.qid}' is used twice; ids name the answers"
                    )
                seen.add(sample.qid)
                yield sample


def _question(
    where: str, item: Any, context: str, with_answers: bool, counts: Counter[str]
) -> QuestionSample:
    question = _get(item, "question", str, where)
    sample = QuestionSample(where, str(_get(item, "id", (str, int), where)).strip(), question, context)
    for text, start in _answers(item.get("answers"), f"{where}.answers") if with_answers else ():
        if text.strip():
            sample.references.append(text)
        if sample.answer is None:
            sample.answer = locate_answer(context, text, start, counts)
    return sample


def _answers(found: Any, where: str) -> Iterator[tuple[str, int]]:
    """Text and start (-1 = not told) of each reference: in SQuAD's form, Hugging Face's, or bare texts."""
    if isinstance(found, dict) and isinstance(found.get("text"), list):
        texts, starts = found["text"], found.get("answer_start", [None] * len(found["text"]))
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise ConfigError(f"{where}: text and answer_start are not lists of the same length")
        found = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    found = [] if found in (None, "", {}) else [found] if isinstance(found, (str, dict)) else found
    if not isinstance(found, list):
        raise ConfigError(f"{where}: expected [{{text, answer_start}}, ...], found {_shown(found)}")
    for i, answer in enumerate(found):
        answer = {"text": answer} if isinstance(answer, str) else answer
        text, start = _get(answer, "text", str, f"{where}[{i}]"), answer.get("answer_start")
        number = isinstance(start, (int, float, str)) and not isinstance(start, bool)
        if start is not None and not (number and re.fullmatch(r"\s*-?\d{1,9}(\.0)?\s*", str(start))):
            wanted = "a whole number (-1: not known)"
            raise ConfigError(f"{where}[{i}].answer_start: expected {wanted}, found {_shown(start)}")
        yield text, -1 if start is None else int(float(start))


def locate_answer(context: str, text: str, start: int, counts: Counter[str]) -> tuple[int, int] | None:
    """Character span of an answer, repaired by search where `start` is wrong (CMRC 2018: -1, shifted).

    The occurrence nearest to `start` is taken; a final full stop that the passage does not have is dropped.
    None, and counted, where the passage does not hold the text."""
    if text and start >= 0 and context.startswith(text, start):
        return start, start + len(text)
    for wanted in (text, text.strip(), text.strip().rstrip("。.")):
        places = (
            [match.start() for match in re.finditer(f"(?={re.escape(wanted)})", context)] if wanted else []
        )
        if places:
            counts["answers found by search"] += 1
            first = min(places, key=lambda place: abs(place - max(start, 0)))
            return first, first + len(wanted)
    counts["answers that are no span of their passage"] += 1
    return None


def _get(node: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    if not isinstance(node, dict) or key not in node:
        found = "" if isinstance(node, dict) else f" (found {type(node).__name__}, not an object)"
        raise ConfigError(f"{where}: no key '{key}'{found}; expected {_SQUAD}")
    value = node[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {list: "a list", str: "text"}.get(kind, "text or a whole number")
        raise ConfigError(f"{where}.{key}: expected {wanted}, found {_shown(value)}")
    if isinstance(value, str) and _SURROGATE.search(value):
        raise ConfigError(f"{where}.{key}: half of a surrogate pair, which is no character; write it whole")
    return value


def _shown(value: Any) -> str:
    return f"{type(value).__name__}{'' if isinstance(value, (list, dict)) else f' {value!r}'[:60]}"


_SURROGATE = re.compile("[\ud800-\udfff]")
_SQUAD = (
    "SQuAD JSON {data: [{paragraphs: [{context, qas: [{id, question, answers: [{text, answer_start}]}]}]}]}"
)
