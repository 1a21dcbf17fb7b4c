"""Lines of user dictionaries in the forms in which people have them: words, and what stands beside them.

A TAB always ends the word. Without one the form is that of the file, what nearly all its lines have: `word
tag`, jieba's `word [frequency] [tag]`, HanLP's `word tag frequency`, LAC's `word/tag`, CSV. Where it cannot
be told, the run stops with file and line."""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_gen.reading.cleaning import clean_text
from data_gen.reading.streams import base_name, read_lines
from ernie2.config import ConfigError

__all__ = ["TAGS", "read_words"]

LEVEL_TAGS: dict[str, bool | None] = {
    **dict.fromkeys(
        (
            "nr nr1 nr2 nrf nrfg nrj nrt ns nsf nt ntc ntcb ntcf ntch nth nto nts ntu nw nz person place "
            "organisation "
            "organization product entity per loc org PER LOC ORG"
        ).split(),
        True,
    ),
    **dict.fromkeys("i l j phrase".split(), False),
}
"""Tags that say what an entry is: True an entity (person, place, organisation, work, other proper noun),
False a phrase (idiom, fixed expression, abbreviation). Of jieba, ICTCLAS, HanLP and LAC, and plain words."""
TAGS = {
    **dict.fromkeys(
        (
            "a ad ag al an b bg bl c cc d df dg dl e eng f g gb gc gg gi gm gp h k m mg mq n nb nf ng nh ni "
            "nis nl nm nn nx o p "
            "pba pbei q qt qv r rg rr ry rz s t tg u ud ug uj ul uv uz v vd vf vg vi vl vn vq vshi vx vyou "
            "w x xc xe xs xu xx y "
            "yg z zg time TIME"
        ).split()
    ),
    **LEVEL_TAGS,
}
"""All known tags; None is a part of speech, whose entry is what the file's name says."""
NEVER_WORDS = frozenset("nr nrf nrfg nrj nrt ns nsf nz".split())
"""Tags that end no English entry; `windows nt` is one."""
MOST, FEW = 0.75, 0.1
"""Share of a file's lines from which on such lines are columns, up to which they are words as they stand."""
ALL_LINES, ONE_IN = 20_000, 17
"""Lines of a file that are all looked at to tell its form; one in so many of those behind them."""
HEADERS = frozenset(
    (
        "word words name names term entity entry text tag tags type label pos nature category freq "
        "frequency count "
        "词 词语 词汇 名称 实体 词性 标签 类型 类别 词频 频率 频次"
    ).split()
)

_MARKED = re.compile(r"[,;|/\s]")
_SEPARATED = re.compile(r"[,;|/]")
_JSON = re.compile(r'\s*[{\[]\s*(["{\[]|$)')
_ODD_NUMBER = re.compile(r"[0-9][0-9,.eE]*")  # that is no number of ours


class _Columns(NamedTuple):
    """What a line without a TAB may hold.

    Attributes:
        mark: What stands between the columns: one of `,;|/` or a space.
        word: The word, if they are columns.
        tags: Tags; some may be unknown ones.
        number: A frequency, or the end of the word: a number that stands behind it, before the tag; else "".
    """

    mark: str
    word: str
    tags: Sequence[str]
    number: str = ""

    @property
    def sure(self) -> bool:
        """Whether these are columns whatever the rest of the file has."""
        if not self.tags or not all(tag in TAGS for tag in self.tags):
            return False
        several = len(self.tags) > 1 or bool(self.number)
        return self.tags[0] in NEVER_WORDS or (several or len(self.tags[0]) > 1) and _is_chinese(self.word)


class _Form(NamedTuple):
    """How a file's lines without a TAB are to be read: columns, True; words, False; it cannot be told, None.

    Attributes:
        marks: Verdict for lines with a tag (CSV: a tag or a number), by what stands between the columns.
        numbers: Verdict for a number behind the word and a space.
        mark: What stands between the columns of most lines; "" where most have none."""

    marks: dict[str, bool | None]
    numbers: bool | None
    mark: str


def read_words(path: Path, encoding: str, skipped: Counter[str]) -> Iterator[tuple[str, bool]]:
    """Words of a dictionary, and whether each is an entity; they may be of any length, and repeat.

    Args:
        path: The file, plain or compressed.
        encoding: Of a file that is not UTF-8.
        skipped: Counts "header" (of a table).

    Raises:
        ConfigError: missing, damaged or wrongly encoded file, no entry; an unknown tag, a form that cannot be
        told."""
    default, empty, lines = not path.name.startswith("phrase"), True, _Lines(path, encoding)
    for number, line in read_lines(path, encoding):
        word, _, tag = line.partition("\t")
        level = TAGS.get(tag)
        # Nearly all lines are a plain word, with a known tag or without one.
        if lines.plain and (match := lines.plain(line)) and (match[2] is None or match[2] in TAGS):
            word, level = match[1], TAGS.get(match[2])
        elif not word.isalnum() or tag and tag not in TAGS or lines.is_csv:
            if line.startswith("#") or not line.strip():
                continue
            entry = lines.entry(line, f"{path}:{number}", empty)
            if entry is None:
                skipped["header"] += 1
                continue
            word, level = entry
        empty = False
        yield word, default if level is None else level
    if empty:
        raise ConfigError(
            f"dictionary {path}: no entry in it; write one `word [tag]` a line, or take it out of data."
            f"entity_dicts"
        )


class _Lines:
    """Makes entries of the lines of one file. What form they have is looked up when it first matters.

    Attributes:
        is_csv: By the file's name.
        plain: For speed: matches the usual line of a file whose lines are columns (group 1: word, 2: tag)."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._path, self._encoding = path, encoding
        self.plain: Callable[[str], re.Match | None] | None = None
        self.is_csv = base_name(path).lower().endswith(".csv")

    def entry(self, line: str, source: str, is_first: bool) -> tuple[str, bool | None] | None:
        """Word and level of a line (None: that of the file); None for the header of a table."""
        if is_first and _is_header(line, 1 if self.is_csv else 2):
            return None
        if "\t" in line:
            word, *rest = (field.strip() for field in line.split("\t"))
            if (columns := _spaced(word.split() or [""])) and columns.sure and columns.number:
                raise _doubt(line, f"{columns.number} {columns.tags[0]}", "frequency and a tag", source)
            return _of_fields([word, *rest], source)
        if _JSON.match(line):
            raise ConfigError(f"{source}: a dictionary in JSON; write one `word<TAB>tag` a line")
        if not self.is_csv and not _MARKED.search(line):
            return clean_text(line), None
        mark = self._form.mark or "," * self.is_csv
        if mark == "/":
            return _of_slashes(line, source)
        if mark not in ("", " "):
            return _of_fields(_csv_fields(line, mark, source), source)
        return self._doubtful(line, _columns(line), source)

    @functools.cached_property
    def _form(self) -> _Form:
        form = _form_of(
            line
            for number, line in read_lines(self._path, self._encoding)
            if number < ALL_LINES or number % ONE_IN == 0
        )
        if form.mark:
            mark = re.escape(form.mark)
            number = "" if form.mark == "/" or form.mark == " " and not form.numbers else f"(?:{mark}[0-9]+)?"
            self.plain = re.compile(rf"(\w+){number}(?:{mark}([A-Za-z]+[12]?))?").fullmatch
        return form

    def _doubtful(self, line: str, columns: _Columns | None, source: str) -> tuple[str, bool | None]:
        """Entry of a line in a file without marks, which may have columns all the same."""
        if self._form.mark == " ":
            _check_fits(line, columns, source)
        if columns is None:
            return _clean(line), None
        word, level = columns.word, None
        if columns.tags:
            verdict = columns.sure or self._form.marks[columns.mark]
            if verdict is None:
                raise _doubt(line, columns.tags[-1], "tag", source)
            if not verdict:
                return _clean(line), None
            level = _level(columns.tags, source)
        elif columns.mark != " ":
            if self._form.marks[columns.mark] is None:
                raise _doubt(line, columns.mark, "separator", source)
            return _clean(line), None
        if columns.number:
            if self._form.numbers is None:
                raise _doubt(line, columns.number, "frequency", source)
            word += "" if self._form.numbers else f" {columns.number}"
        return _clean(word), level


def _check_fits(line: str, columns: _Columns | None, source: str) -> None:
    """In a file of `word frequency tag` a line of several fields that is none of these would be a word that
    is never found."""
    fields = columns.word.split() if columns else []
    odd = columns is None and " " in line.strip() or columns is not None and columns.mark != " "
    if (
        odd
        or len(fields) > 1
        and (fields[-1] in TAGS or _ODD_NUMBER.fullmatch(fields[-1]) and not _is_number(fields[-1]))
    ):
        raise ConfigError(
            f"{source}: {line.strip()[:60]!r} is not `word frequency tag` as the other lines are; write it "
            "so, or "
            f"put a TAB behind the word"
        )


def _form_of(lines: Iterator[str]) -> _Form:
    """The form of a file, by the shares of its lines."""
    total, marks, numbered, numbered_tagged, chinese, words = 0, Counter(), 0, 0, 0, set()
    for line in lines:
        if line.startswith("#") or not line.strip() or not total and _is_header(line, 2):
            continue
        total += 1
        columns = _columns(line) if _MARKED.search(line) and "\t" not in line else None
        if columns is None:
            continue
        marks[columns.mark] += columns.mark != " " or bool(columns.tags)
        if columns.number:
            numbered, numbered_tagged = numbered + 1, numbered_tagged + bool(columns.tags)
            chinese += _is_chinese(columns.word)
            words.add(columns.word)
    total = max(total, 1)
    share = numbered / total
    if marks[" "] > FEW * total:
        share = max(share, numbered_tagged / marks[" "])
    numbers = _verdict(share)
    if chinese < numbered / 2:  # Boeing 747
        numbers = None if numbers else False
    elif numbers and len(words) < (1 - FEW) * numbered:  # 波音 747, 波音 737
        numbers = None
    if numbers:  # jieba's form, where a line may have the one and not the other
        marks[" "] += numbered - numbered_tagged
    verdicts = {mark: _verdict(marks[mark] / total) for mark in ",;|/ "}
    return _Form(verdicts, numbers, next((mark for mark in verdicts if verdicts[mark]), ""))


def _verdict(share: float) -> bool | None:
    return True if share >= MOST else False if share <= FEW else None


def _columns(line: str) -> _Columns | None:
    """What may be columns of a line without a TAB; None where there are none."""
    fields = line.split()
    if not _SEPARATED.search(line):
        return _spaced(fields)
    for mark in ",;|":
        if mark in line:
            word, *rest = _csv_fields(line, mark)
            rest = [field for field in rest if field]
            tags = [field for field in rest if not _is_number(field)]
            if word and rest and all(_is_tag(tag, word) for tag in tags):
                return _Columns(mark, word, tags)
    if "/" in line:
        words, _, tags = zip(*(field.rpartition("/") for field in fields))
        if all(word and _is_tag(tag, word) for word, tag in zip(words, tags)):
            return _Columns("/", _joined(words), tags)
    return _spaced(fields)


def _spaced(fields: list[str]) -> _Columns | None:
    """What may be columns with spaces between them: number, tag, number tag, or tag number behind the
    word."""
    tags, last = [], fields[-1]
    while len(fields) > 2 and _is_number(fields[-1]) and _is_tag(fields[-2], fields[-3]):
        *fields, tag, _ = fields
        tags.insert(0, tag)
    if tags:
        return _Columns(" ", " ".join(fields), tags)
    numbered = len(fields) > 2 and _is_number(fields[-2])
    if len(fields) > 1 and _is_tag(last, fields[-3 if numbered else -2]):
        *fields, tag = fields
        tags = [tag]
    number = fields.pop() if len(fields) > 1 and _is_number(fields[-1]) else ""
    return _Columns(" ", " ".join(fields), tags, number) if tags or number else None


def _csv_fields(line: str, mark: str, source: str = "") -> list[str]:
    """Fields of a line. One with a broken quote: raises ConfigError where there is a source; else it is one
    field."""
    if '"' not in line:
        return [field.strip() for field in line.split(mark)]
    try:
        fields = next(csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True))
    except csv.Error as error:
        if source:
            raise ConfigError(
                f"{source}: no line of a CSV file ({error}): {line[:60]!r}; mend its quotes"
            ) from None
        return [line]
    return [field.strip() for field in fields]


def _is_header(line: str, least: int) -> bool:
    """Whether a line names columns, `least` of them or more."""
    names = [name.strip('"').lower() for name in re.split(r"[,;|\s]+", line.strip())]
    return len(names) >= least and HEADERS.issuperset(names) and names[-1] not in TAGS


def _of_fields(fields: Sequence[str], source: str) -> tuple[str, bool | None]:
    """Word and level of a row of columns."""
    word, *rest = fields
    tags = [field for field in rest if field and not _is_number(field)]
    return _clean(word), _level(tags[:1], source)


def _of_slashes(line: str, source: str) -> tuple[str, bool | None]:
    """Word and level of an entry of LAC's: `word/tag`, or several that are one entry, some with a tag."""
    words, tags = [], []
    for field in line.split():
        word, _, tag = field.rpartition("/")
        has_tag = bool(word) and tag.isascii() and tag.isalnum()
        words.append(word if has_tag else field)
        tags += [tag] if has_tag else []
    return clean_text(_joined(words)), _level(tags, source) if len(tags) == len(words) else None


def _level(tags: Sequence[str], source: str) -> bool | None:
    """The level that tags agree on. Raises ConfigError for one that is unknown."""
    for tag in tags:
        if tag not in TAGS:
            near = difflib.get_close_matches(tag.lower(), sorted(LEVEL_TAGS), 1, 0.75)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"{source}: unknown tag {tag!r}; {hint}known: {', '.join(sorted(LEVEL_TAGS))}, and parts "
                f"of speech, as in jieba and LAC"
            )
    levels = {TAGS[tag] for tag in tags}
    return levels.pop() if len(levels) == 1 else None


def _doubt(line: str, part: str, what: str, source: str) -> ConfigError:
    return ConfigError(
        f"{source}: is {part!r} in {line[:60]!r} a {what}, or part of the word? The other lines do not "
        f"tell; put a TAB behind the word, here and in lines like this one"
    )


def _is_tag(text: str, word: str) -> bool:
    """Whether a field may be the tag of a word: a known one, or Latin letters behind Chinese."""
    return text in TAGS or text.isascii() and text.isalpha() and _is_chinese(word)


def _is_number(text: str) -> bool:
    return text[0].isdigit() and text.isascii() and text.replace(".", "", 1).isdigit()


def _is_chinese(word: str) -> bool:
    """Whether a word ends in no Latin, Greek or Cyrillic letter, digit or mark."""
    return word[-1:] >= "\u2e80"


def _joined(words: Sequence[str]) -> str:
    return ("" if any(map(_is_chinese, words)) else " ").join(words)


def _clean(word: str) -> str:
    return clean_text(" ".join(word.split()))
