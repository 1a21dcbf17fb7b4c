"""Tagged text: source tokens with character spans, tags to entities and back. No tensors here.

Everything is aligned by character offsets, never by counting tokens (ERNIE issue 520): a source token is a
span of the text, a tag belongs to a source token, an entity is a span of characters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ernie2.strict import ConfigError

SEPARATOR = "\x02"  # Baidu joins tokens, and tags, with it


class Entity(NamedTuple):
    """A named entity: type and character span [start, stop)."""

    type: str
    start: int
    stop: int


@dataclass(slots=True)
class TaggedText:
    """A text with the character span [start, stop) of each source token, in order."""

    text: str
    spans: list[tuple[int, int]]
    given: list[str] | None = None  # tokens as the file gives them, where it does; empty ones have no span


def read_tagged(
    where: str, text: str, label: str | None, cut: str | None = None
) -> tuple[TaggedText, list[str] | None]:
    """Reads a row of tagging: its text, and its tags (None where `label` is).

    Text: tokens joined by \\x02, or plain characters. Tags: joined by \\x02 or by spaces. Plain text takes
    one tag for each character, or each that is not white space, or each word between spaces: whichever count
    fits. Empty tokens are dropped with their tags. Plain text without tags is cut as `cut` says
    (`FinetuneTask.source_tokens`; default: words)."""
    given = text.split(SEPARATOR) if SEPARATOR in text else None
    if given:
        joined = join_tokens(given)
        text, spans = joined.text, joined.spans
        ways = {"tokens": spans}
    else:
        characters = [(i, i + 1) for i in range(len(text))]
        visible = [span for span in characters if not text[span[0]].isspace()]
        spaced = [match.span() for match in re.finditer(r"\S+", text)]
        ways = {"characters": characters, "visible": visible, "spaces": spaced}
        spans = ways.get(cut) or [match.span() for match in _WORD.finditer(text)]
    tags = None
    if label is not None:
        tags = label.split(SEPARATOR) if SEPARATOR in label else label.split()
        spans = next((spans for spans in ways.values() if len(spans) == len(tags)), None)
        if spans is None:
            counts = " or ".join(dict.fromkeys(str(len(spans)) for spans in ways.values()))
            raise ConfigError(
                f"{where}: found {len(tags)} tags for {counts} tokens; text and tags must be equally long"
            )
        tags = [tag for (start, stop), tag in zip(spans, tags) if stop > start]
    return TaggedText(text, [(start, stop) for start, stop in spans if stop > start], given), tags


# Letters and digits below U+2E80 make words; Chinese, Japanese, Korean characters, punctuation stand alone.
_WORD = re.compile("(?:(?![\u2e80-\U0010ffff])[^\\W_])+|\\S")


def cut_of(texts: Sequence[TaggedText]) -> str:
    """What raw text has to be cut into so that it is like these: see `read_tagged`, cut."""
    tokens = [text.text[start:stop] for text in texts for start, stop in text.spans]
    letters = [len(token) for token in tokens if _is_letter(token[0])]
    if sum(length > 1 for length in letters) > len(letters) / 2:
        return "words"
    return "characters" if any(token.isspace() for token in tokens) else "visible"


_SCHEMES = {"B": "B", "S": "B", "U": "B", "I": "I", "M": "I", "E": "I", "L": "I"}


def as_bio(tag: str) -> str:
    """B-X or I-X for a tag of BIOES, BMES or BILOU, also with an underscore (B_PER); any other as it is."""
    prefix, mark, kind = tag[:1], tag[1:2], tag[2:]
    return f"{_SCHEMES[prefix]}-{kind}" if prefix in _SCHEMES and mark in ("-", "_") and kind else tag


def join_tokens(tokens: Sequence[str]) -> TaggedText:
    """Joins source tokens to a text, side by side.

    Where a row holds whole words ("EU rejects"), a space goes between two that would run together."""
    words = any(len(token) > 1 and all(map(_is_letter, token)) for token in tokens)
    text, spans, before = "", [], ""
    for token in tokens:
        if words and token and before and _is_letter(before[-1]) and _is_letter(token[0]):
            text += " "
        spans.append((len(text), len(text) + len(token)))
        text, before = text + token, token
    return TaggedText(text, spans)


def entities_of(tags: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[Entity]:
    """Entities of a tag sequence (O, B-X, I-X; `spans`: characters of each token), as conlleval counts them:
    one begins at B-X, and at I-X that continues none of type X; it goes on as long as I-X follow."""
    found: list[list] = []  # [type, start, stop]
    inside = False
    for tag, (start, stop) in zip(tags, spans, strict=True):
        if inside and tag.startswith("I-") and tag[2:] == found[-1][0]:
            found[-1][2] = stop
        elif tag != "O":
            found.append([tag[2:], start, stop])
        inside = tag != "O"
    return [Entity(*entity) for entity in found]


def _is_letter(character: str) -> bool:
    # Chinese, Japanese and Korean characters are alphanumeric to Python, but stand without spaces.
    return character.isalnum() and ord(character) < 0x2E80
