"""Lines of user dictionaries in the forms in which people have them: words, and what stands beside them.

A TAB always ends the word. Without one the form is that of the file, what nearly all its lines have: `word
tag`, jieba's `word [frequency] [tag]`, HanLP's `word tag frequency`, LAC's `word/tag`, CSV. Where it cannot
be told, the run stops with file and line."""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_gen.reading.cleaning import clean_text
from data_gen.reading.streams import base_name, read_lines
from ernie2.strict import ConfigError, closest

_ENTITY_TAGS = (
    "nr nr1 nr2 nrf nrfg nrj nrt ns nsf nt ntc ntcb ntcf ntch nth nto nts ntu nw nz person place "
    "organisation organization product entity per loc org PER LOC ORG"
).split()
_PHRASE_TAGS = "i l j phrase".split()
_OTHER_TAGS = (
    "a ad ag al an b bg bl c cc d df dg dl e eng f g gb gc gg gi gm gp h k m mg mq n nb nf ng nh ni nis "
    "nl nm nn nx o p pba pbei q qt qv r rg rr ry rz s t tg u ud ug uj ul uv uz v vd vf vg vi vl vn vq "
    "vshi vx vyou w x xc xe xs xu xx y yg z zg time TIME"
).split()
# Of jieba, ICTCLAS, HanLP and LAC, and plain words: True for an entity (person, place, organisation, work,
# other proper noun), False for a phrase (idiom, fixed expression, abbreviation), None for a part of speech,
# whose entry is what the file's name says.
TAGS: dict[str, bool | None] = {
    **dict.fromkeys(_OTHER_TAGS),
    **dict.fromkeys(_ENTITY_TAGS, True),
    **dict.fromkeys(_PHRASE_TAGS, False),
}
_NAME_TAGS = frozenset("nr nrf nrfg nrj nrt ns nsf nz".split())  # end no English entry; `windows nt` is one
_HEADERS = frozenset(
    "word words name names term entity entry text tag tags type label pos nature category freq frequency "
    "count 词 词语 词汇 名称 实体 词性 标签 类型 类别 词频 频率 频次".split()
)
# Share of a file's lines from which on such lines are columns, up to which they are words as they stand.
MOST, FEW = 0.75, 0.1
# Lines of a file that are all looked at to tell its form; one in so many of those behind them.
ALL_LINES, ONE_IN = 20_000, 17

_NUMBER = r"[0-9]+(?:\.[0-9]*)?"
_TAG = "[A-Za-z]+[12]?"
_HANLP = re.compile(rf"(.+?)((?: {_TAG} {_NUMBER})+)")
_JIEBA = re.compile(rf"(.+?)(?: ({_NUMBER}))?(?: ({_TAG}))?")
_LAC = re.compile(r"(.+)/([A-Za-z0-9]+)|(.+)")
_IS_NUMBER = re.compile(_NUMBER).fullmatch
_ODD_END = re.compile(rf".* (?!{_NUMBER}$)(?:[0-9][0-9,.eE]*|{'|'.join(TAGS)})")
_MARKED = re.compile(r'[,;|/\s"]')
_JSON = re.compile(r'\s*[{\[]\s*(["{\[]|$)')


class _Columns(NamedTuple):
    """What a line without a TAB may hold: a word, tags (some may be unknown), and a number, which is a
    frequency or the end of the word; `mark` stands between them: one of `,;|/` or a space."""

    mark: str
    word: str
    tags: Sequence[str]
    number: str = ""

    @property
    def sure(self) -> bool:
        """Whether these are columns whatever the rest of the file has."""
        if not self.tags or not all(tag in TAGS for tag in self.tags):
            return False
        several = len(self.tags) > 1 or bool(self.number) or len(self.tags[0]) > 1
        return self.tags[0] in _NAME_TAGS or several and _is_chinese(self.word)


class _Form(NamedTuple):
    """How a file's lines without a TAB are to be read: as columns, True; as words, False; or it cannot be
    told, None. `marks`: lines with a tag (CSV: a tag or a number), by what stands between the columns;
    `numbers`: a number behind the word and a space; `mark`: what stands between the columns of most lines."""

    marks: dict[str, bool | None]
    numbers: bool | None
    mark: str


def read_words(path: Path, encoding: str, skipped: Counter[str]) -> Iterator[tuple[str, bool]]:
    """Words of a dictionary, and whether each is an entity; they may be of any length, and repeat. `encoding`
    is that of a file that is not UTF-8; `skipped` counts "header" (of a table).

    Raises:
        ConfigError: missing, damaged or wrongly encoded file, no entry; an unknown tag, a form that cannot be
            told."""
    default, empty = not path.name.startswith("phrase"), True
    is_csv = base_name(path).lower().endswith(".csv")
    form = functools.cache(lambda: _form_of(path, encoding, is_csv))
    for number, line in read_lines(path, encoding):
        if line.startswith("#") or not line.strip():
            continue
        if empty and _is_header(line, is_csv):
            skipped["header"] += 1
            continue
        word, level = line, None
        if "\t" in line:
            word, level = _of_fields(line.split("\t"), f"{path}:{number}")
        elif not line.isalnum():
            word, level = _entry(line, form, f"{path}:{number}")
        empty = False
        yield word, default if level is None else level
    if empty:
        raise ConfigError(
            f"dictionary {path}: no entry in it; write one `word [tag]` a line, or take it out of "
            "data.entity_dicts"
        )


def _entry(line: str, form: Callable[[], _Form], source: str) -> tuple[str, bool | None]:
    """Word and level (None: that of the file) of a line without a TAB."""
    if _JSON.match(line):
        raise ConfigError(f"{source}: a dictionary in JSON; write one `word<TAB>tag` a line")
    if not _MARKED.search(line):
        return clean_text(line), None
    marks, numbers, mark = form()
    if mark == "/":
        words, tags = _slashes(line)
        return _joined(words), _level(tags, source) if all(tags) else None
    if mark in (",", ";", "|"):
        try:
            return _of_fields(_csv_fields(line, mark), source)
        except csv.Error as error:
            raise ConfigError(
                f"{source}: no line of a CSV file ({error}): {line[:60]!r}; mend its quotes"
            ) from None
    columns = _columns(line)
    # In a file of columns a line of several fields that is none would be a word that is never found.
    if mark == " " and (
        _ODD_END.fullmatch(columns.word) or columns.mark != " " if columns else " " in line.strip()
    ):
        raise ConfigError(
            f"{source}: {line.strip()[:60]!r} is not `word frequency tag` as the other lines are; write it "
            "so, or put a TAB behind the word"
        )
    if columns is None:
        return clean_text(line), None
    if columns.tags or columns.mark != " ":
        part = columns.tags[-1] if columns.tags else columns.mark
        if not _told(columns.sure or marks[columns.mark], part, line, source):
            return clean_text(line), None
    word = columns.word
    if columns.number and not _told(numbers, columns.number, line, source):
        word += f" {columns.number}"
    return clean_text(word), _level(columns.tags, source)


def _told(verdict: bool | None, part: str, line: str, source: str) -> bool:
    if verdict is None:
        raise ConfigError(
            f"{source}: is {part!r} in {line[:60]!r} a column, or part of the word? The other lines do not "
            "tell; put a TAB behind the word, here and in lines like this one"
        )
    return verdict


def _form_of(path: Path, encoding: str, is_csv: bool) -> _Form:
    """The form of a file, by the shares of its lines."""
    total, marks, numbered = 0, Counter(), []
    for row, line in read_lines(path, encoding):
        if row > ALL_LINES and row % ONE_IN or line.startswith("#") or not line.strip():
            continue
        if not total and _is_header(line):
            continue
        total += 1
        columns = _columns(line) if _MARKED.search(line) and "\t" not in line else None
        if columns:
            marks[columns.mark] += columns.mark != " " or bool(columns.tags)
            numbered += [columns] if columns.number else []
    share, tagged = len(numbered) / max(total, 1), sum(bool(columns.tags) for columns in numbered)
    if marks[" "] > FEW * total:
        share = max(share, tagged / marks[" "])
    numbers = _verdict(share)
    if sum(_is_chinese(columns.word) for columns in numbered) < len(numbered) / 2:  # Boeing 747
        numbers = None if numbers else False
    elif numbers and len({columns.word for columns in numbered}) < (1 - FEW) * len(numbered):
        numbers = None  # 波音 747, 波音 737
    if numbers:  # jieba's form, where a line may have the one and not the other
        marks[" "] += len(numbered) - tagged
    verdicts = {mark: _verdict(marks[mark] / max(total, 1)) for mark in ",;|/ "}
    return _Form(verdicts, numbers, next((mark for mark in verdicts if verdicts[mark]), "," * is_csv))


def _verdict(share: float) -> bool | None:
    return True if share >= MOST else False if share <= FEW else None


def _columns(line: str) -> _Columns | None:
    """What may be columns of a line without a TAB; None where there are none."""
    line = " ".join(line.split())
    for mark in ",;|":
        try:
            word, *rest = filter(None, _csv_fields(line, mark))
        except (csv.Error, ValueError):
            continue
        tags = [field for field in rest if not _IS_NUMBER(field)]
        if rest and all(_is_tag(tag, word) for tag in tags):
            return _Columns(mark, word, tags)
    if "/" in line:
        words, tags = _slashes(line)
        if all(tag and _is_tag(tag, word) for word, tag in zip(words, tags)):
            return _Columns("/", _joined(words), tags)
    if match := _HANLP.fullmatch(line):
        tags = match[2].split()[::2]
        if all(_is_tag(tag, match[1]) for tag in tags):
            return _Columns(" ", match[1], tags)
    word, number, tag = _JIEBA.fullmatch(line).groups()
    if tag and not _is_tag(tag, word):
        return None
    return _Columns(" ", word, [tag] if tag else [], number or "") if tag or number else None


def _csv_fields(line: str, mark: str) -> list[str]:
    """Fields of a line. Raises csv.Error for a broken quote."""
    if '"' not in line:
        return [field.strip() for field in line.split(mark)]
    rows = csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True)
    return [field.strip() for field in next(rows)]


def _slashes(line: str) -> tuple[list[str], list[str]]:
    """LAC's form: words, and the tag of each, "" where it has none."""
    found = [_LAC.fullmatch(field) for field in line.split()]
    return [match[1] or match[3] for match in found], [match[2] or "" for match in found]


def _joined(words: Sequence[str]) -> str:
    return clean_text(("" if any(map(_is_chinese, words)) else " ").join(words))


def _is_header(line: str, is_csv: bool = False) -> bool:
    """Whether a line names columns, two or more where it is no CSV."""
    names = [name.strip('"').lower() for name in re.split(r"[,;|\s]+", line.strip())]
    return len(names) >= 2 - is_csv and _HEADERS.issuperset(names) and names[-1] not in TAGS


def _of_fields(fields: Sequence[str], source: str) -> tuple[str, bool | None]:
    """Word and level of a row of columns."""
    word, *rest = map(str.strip, fields)
    tags = [field for field in rest if field and not _IS_NUMBER(field)]
    return clean_text(word), _level(tags[:1], source)


def _level(tags: Sequence[str], source: str) -> bool | None:
    """The level that tags agree on. Raises ConfigError for one that is unknown."""
    for tag in tags:
        if tag not in TAGS:
            known = sorted(_ENTITY_TAGS + _PHRASE_TAGS)
            raise ConfigError(
                f"{source}: unknown tag {tag!r}{closest(tag.lower(), known)} known: {', '.join(known)}, and "
                "parts of speech, as in jieba and LAC"
            )
    levels = {TAGS[tag] for tag in tags}
    return levels.pop() if len(levels) == 1 else None


def _is_tag(text: str, word: str) -> bool:
    """A known tag, or Latin letters behind Chinese."""
    return text in TAGS or text.isascii() and text.isalpha() and _is_chinese(word)


def _is_chinese(word: str) -> bool:
    """Whether a word ends in no Latin, Greek or Cyrillic letter, digit or mark."""
    return word[-1:] >= "\u2e80"
