"""Tagged text: source tokens with character spans, tags to entities and back. No tensors here.

Everything is aligned by character offsets, never by counting tokens (ERNIE issue 520): a source token is a span of the
text, a tag belongs to a source token, an entity is a span of characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ernie2.strict import ConfigError

SEPARATOR = "\x02"  # Baidu joins tokens, and tags, with it


@dataclass(frozen=True, slots=True)
class Entity:
    """A named entity: type and character span [start, stop)."""

    type: str
    start: int
    stop: int


@dataclass(slots=True)
class TaggedText:
    """A text with the character span [start, stop) of each source token, in order."""

    text: str
    spans: list[tuple[int, int]]


def read_tagged(where: str, text: str, label: str | None) -> tuple[TaggedText, list[str] | None]:
    """Reads a row of tagging.

    Text: tokens joined by \\x02, or plain characters. Tags: joined by \\x02 or by spaces. Plain text takes one tag for
    each character, or for each character that is not white space, or for each word between spaces: whichever count
    fits.

    Args:
        where: `file:line`, for messages.
        text: the text field.
        label: the tag field; None = unlabelled.

    Raises:
        ConfigError: when the tags fit none of these.
    """
    tags = None if label is None else label.split(SEPARATOR) if SEPARATOR in label else label.split()
    if SEPARATOR in text:
        tokens = join_tokens(text.split(SEPARATOR))
        choices = [tokens.spans]
    else:
        characters = [(i, i + 1) for i in range(len(text))]
        visible = [span for span in characters if not text[span[0]].isspace()]
        choices = [characters, visible, word_spans(text)]
        tokens = TaggedText(text, characters)
    if tags is None:
        return tokens, None
    for spans in choices:
        if len(spans) == len(tags):
            return TaggedText(tokens.text, spans), tags
    counts = " or ".join(str(count) for count in dict.fromkeys(len(spans) for spans in choices))
    raise ConfigError(f"{where}: found {len(tags)} tags for {counts} tokens; text and tags must be equally long")


def join_tokens(tokens: Sequence[str]) -> TaggedText:
    """Joins source tokens to a text.

    Characters stand side by side, as in the raw text they come from. Where a row holds whole words ("EU rejects"), a
    space goes between two neighbours that would otherwise run together.
    """
    words = any(len(token) > 1 and all(_is_letter(c) for c in token) for token in tokens)
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    position = 0
    for token in tokens:
        if words and parts and token and parts[-1] and _is_letter(parts[-1][-1]) and _is_letter(token[0]):
            parts.append(" ")
            position += 1
        parts.append(token)
        spans.append((position, position + len(token)))
        position += len(token)
    return TaggedText("".join(parts), spans)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Character spans of the words between white space."""
    spans, position = [], 0
    for word in text.split():
        start = text.index(word, position)
        position = start + len(word)
        spans.append((start, position))
    return spans


def entities_of(tags: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[Entity]:
    """Entities of a tag sequence, as conlleval counts them.

    An entity begins at B-X, and also at I-X that continues no entity of type X; it ends before the next tag that does
    not continue it.

    Args:
        tags: one tag (O, B-X, I-X) for each source token.
        spans: character span of each source token.
    """
    entities: list[Entity] = []
    current: list | None = None  # [type, start, stop]
    for tag, (start, stop) in zip(tags, spans, strict=True):
        kind = tag[2:] if tag != "O" else None
        if current is not None and tag.startswith("I-") and kind == current[0]:
            current[2] = stop
            continue
        if current is not None:
            entities.append(Entity(*current))
        current = None if kind is None else [kind, start, stop]
    if current is not None:
        entities.append(Entity(*current))
    return entities


def _is_letter(character: str) -> bool:
    # Chinese, Japanese and Korean characters are alphanumeric to Python, but stand without spaces.
    return character.isalnum() and ord(character) < 0x2E80
