"""Cleaning of text: odd characters, white space, left-overs of HTML, width of letters, traditional
characters.

What comes out has no control, zero-width or broken characters; its only white space is a single space inside
a line and the line feeds, of which there are as many as before."""

from __future__ import annotations

import functools
import html
import html.entities
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_gen.reading.rejects import TEXT_CHARS, RejectCounter
from ernie2.strict import ConfigError

_KINDS = {
    "control_character": "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f",
    # Soft hyphen, zero-width, direction marks, byte-order mark inside a text, interlinear annotation.
    "invisible_character": "\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc",
    "broken_character": "\ufffd-\uffff\ud800-\udfff\ufdd0-\ufdef",
    "line_break": "\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029",
    "odd_space": "\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000",
}
_BECOME_SPACES = ("line_break", "odd_space")
_ODD = re.compile(f"[{''.join(_KINDS.values())}]")
_KIND_OF = {kind: re.compile(f"[{characters}]") for kind, characters in _KINDS.items()}

_WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ]+")
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}

_BLOCK_TAGS = frozenset(
    "br hr p div li ul ol dl dt dd tr table tbody thead tfoot caption h1 h2 h3 h4 h5 h6 center blockquote "
    "section article header footer nav form title head body html figure figcaption pre option select "
    "fieldset poem gallery".split()
)
_CELL_TAGS = frozenset(["td", "th"])
_WIKI_TAGS = frozenset(
    "br hr ref references nowiki noinclude includeonly onlyinclude templatestyles poem gallery".split()
)
_SURE_TAGS = frozenset(
    "td th br hr p div li ul ol dl dt dd tr table tbody thead h1 h2 h3 h4 h5 h6 center blockquote span "
    "font strong em sub sup img iframe wbr nobr ref references nowiki noinclude includeonly onlyinclude "
    "templatestyles".split()
)
# Tags whose names are also words that people put between angle brackets (`mv <source> <path>`, `a<b>c`) are
# taken for tags only with an attribute, as an end tag, or where their end tag is in the same text.
_OTHER_TAGS = frozenset(
    "a b i u s q small big tt del ins cite abbr code kbd var mark input button label script style link "
    "meta object embed param video audio source col colgroup noscript textarea bdo ruby rb rt rp strike "
    "area map svg path math".split()
)
_ALL_TAGS = _SURE_TAGS | _BLOCK_TAGS | _OTHER_TAGS

_ATTRIBUTES = r"""(?:\s+[\w:.-]+(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))?)*"""
_TAG = re.compile(
    rf"<(/?)([A-Za-z][A-Za-z0-9]{{0,14}})({_ATTRIBUTES})\s*(/?)>|<!DOCTYPE[^<>]*>|<\?xml[^<>]*>"
)
_END_TAG = re.compile(r"</([A-Za-z][A-Za-z0-9]{0,14})\s*>")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&nbsp(?![A-Za-z0-9=])")
_HIDDEN_ELEMENTS = {"<!--": "-->", "<script": "</script>", "<style": "</style>"}


@dataclass(frozen=True)
class TextOptions:
    """How text is read and cleaned; small and hashable. The fields are those of `data` in the recipe; `seed`
    decides the order in which many files are read."""

    encoding: str = "utf-8"
    strip_html: bool = True
    normalise_width: bool = False
    simplify: bool = False
    min_chars: int = 0
    max_chars: int | None = None
    seed: int = 0

    @classmethod
    def of(cls, data: Any, seed: int = 0) -> TextOptions:
        """The options that the `data` section of a recipe implies."""
        names = ("encoding", "strip_html", "normalise_width", "simplify", "min_chars", "max_chars")
        return cls(*(getattr(data, name) for name in names), seed)


Note = Callable[[str, int, int, str], None]
"""Takes what was changed: the name of the note, how many characters (lines of `traditional`, runs of
`full_width`), the index of the line of the first of them, and what it looks like there."""


def clean_lines(text: str, options: TextOptions, note: Note = lambda *_: None) -> str:
    """A text of many lines, cleaned line by line; their number stays.

    Raises ConfigError where the package for `options.simplify` is missing."""
    text = _tidy(text, note)
    if options.normalise_width and not text.isascii() and (first := _WIDE.search(text)):
        note("full_width", len(_WIDE.findall(text)), *_place(text, first.start()))
        text = _WIDE.sub(lambda run: run[0].translate(_NARROW), text)
    if options.simplify and (simple := load_simplifier()(text)) != text:
        lines = text.split("\n")
        changed = [row for row, (old, new) in enumerate(zip(lines, simple.split("\n"))) if old != new]
        note("traditional", len(changed), changed[0], lines[changed[0]])
        text = simple
    return text


def clean_noted(text: str, options: TextOptions, rejects: RejectCounter, source: Callable[[int], str]) -> str:
    """`clean_lines`, its changes noted; `source` says where the line of an index comes from."""
    return clean_lines(
        text, options, lambda kind, count, row, example: rejects.note(source(row), kind, example, count)
    )


def clean_text(text: str) -> str:
    """A short text by itself, such as a word."""
    if _looks_clean(text) and "  " not in text:
        return text.strip(" ")
    return _tidy(text, lambda *_: None)


def _place(text: str, place: int) -> tuple[int, str]:
    """Index of the line of a place in a text, and what it looks like there."""
    start, end = text.rfind("\n", 0, place) + 1, text.find("\n", place)
    example = text[max(place - 10, start) : end if end >= 0 else None]
    return text.count("\n", 0, place), example[:TEXT_CHARS]


def _looks_clean(line: str) -> bool:
    """Whether no odd character is in it: three times as fast as the expression, which takes two printable
    ones for odd."""
    return line.isprintable() and "\ufffd" not in line and "\ufffc" not in line


def _tidy(text: str, note: Note) -> str:
    """Takes out odd characters and makes all white space inside a line single spaces."""
    if count := text.count("\r\n"):
        note("crlf", count, *_place(text, text.index("\r\n")))
        text = text.replace("\r\n", "\n")
    odd = Counter() if _looks_clean(text.replace("\n", "")) else Counter(_ODD.findall(text))
    for kind, pattern in _KIND_OF.items() if odd else ():
        if mine := [character for character in odd if pattern.match(character)]:
            count = sum(odd[character] for character in mine)
            note(kind, count, *_place(text, min(map(text.index, mine))))
            for character in mine:
                text = text.replace(character, " " if kind in _BECOME_SPACES else "")
    if odd or "  " in text or " \n" in text or "\n " in text or text[:1] == " " or text[-1:] == " ":
        before, place = text, max(text.find("  "), 0)
        while "  " in text:
            text = text.replace("  ", " ")
        text = text.replace(" \n", "\n").replace("\n ", "\n").strip(" ")
        if len(text) < len(before):
            note("white_space", len(before) - len(text), *_place(before, place))
    return text


@functools.lru_cache(maxsize=1)
def load_simplifier() -> Callable[[str], str]:
    """Turns traditional characters into simplified ones. Raises ConfigError where OpenCC is missing."""
    try:
        import opencc
    except ImportError:
        raise ConfigError(
            "data.simplify: needs the package opencc (pip install opencc); or set data.simplify=false"
        ) from None
    return opencc.OpenCC("t2s").convert


def strip_html(text: str, line_break: str = "\n") -> tuple[str, int]:
    """Takes tags and comments out and puts characters for entities; `<` and `&` that are no HTML stay.

    `clean_lines` has to follow, for what entities stand for. `line_break` takes the place of a tag that
    begins or ends a block, or breaks a line. Returns the text, and how many tags, comments and entities were
    in it."""
    count = 0
    if "<" in text:
        for start, end in _HIDDEN_ELEMENTS.items():
            if start in text and end in text:
                last = text.rindex(end) + len(end)  # no further, so that the time stays linear
                kept, cut = re.subn(f"{start}.*?{end}", "", text[:last], flags=re.DOTALL)
                text, count = kept + text[last:], count + cut
        text, tags = _without_tags(text, line_break, _SURE_TAGS, _ALL_TAGS)
        count += tags
    for _ in range(3):  # an ampersand can be escaped as well: &amp;nbsp;
        if not (found := sum(entity != _character(entity) for entity in _ENTITY.findall(text))):
            break
        text = _ENTITY.sub(lambda match: _character(match[0]), text)
        count += found
    if count and "<" in text:
        # WikiExtractor escapes what it leaves; other tags that were escaped were meant to be read.
        text, tags = _without_tags(text, line_break, _WIKI_TAGS, _WIKI_TAGS)
        count += tags
    return text, count


def _character(entity: str) -> str:
    """What an entity stands for. By itself unescape makes something of `&notin`, but also of
    `&notanything;`."""
    known = entity[1] == "#" or entity.rstrip(";")[1:] + ";" in html.entities.html5
    return html.unescape(entity.rstrip(";") + ";") if known else entity


def _without_tags(text: str, line_break: str, sure: frozenset[str], known: frozenset[str]) -> tuple[str, int]:
    ended = {name.lower() for name in _END_TAG.findall(text)} if "</" in text else ()
    count = 0

    def instead(match: re.Match) -> str:
        nonlocal count
        name = (match[2] or "").lower()
        if name:
            certain = name in sure or match[1] or match[4] or "=" in match[3]
            if name not in known or not (certain or name in ended and not match[3]):
                return match[0]
        count += 1
        return line_break if name in _BLOCK_TAGS else " " if name in _CELL_TAGS else ""

    return _TAG.sub(instead, text), count
