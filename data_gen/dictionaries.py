"""User dictionaries of entities and phrases, jieba's own dictionary, and the matcher that finds entries in a sentence.

Which entry wins: the match that begins furthest left; of those that begin together the longest; a word that is both
entity and phrase is an entity. Matches never overlap. A match neither begins nor ends inside a token. In Chinese it
does not cut a word of jieba's own dictionary either (财政部 is not found in 财政|部门); it may cut a word that jieba
guessed, where the entry has three characters or more.
"""

from __future__ import annotations

import difflib
import functools
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_gen.documents import clean_text, expand_paths, read_lines
from ernie2.config import ConfigError

if TYPE_CHECKING:
    import jieba

ENTITY_TAGS = frozenset(["nr", "nrf", "nrj", "nrfg", "nrt", "ns", "nsf", "nt", "nz", "person", "place", "organisation",
                         "organization", "product", "entity", "per", "loc", "org"])
"""Tags of named entities: jieba's (person, place, organisation, other proper noun) and plain words."""
PHRASE_TAGS = frozenset(["i", "l", "j", "phrase"])
"""Tags of phrases: jieba's idiom, fixed expression and abbreviation, and the plain word."""

MODIFIER_TAGS = frozenset(["a", "b", "vn", "an"])
"""jieba's tags of words that may stand before a noun in a noun phrase: adjectives, nominal verbs and the like."""
MIN_CHARS = 2

_EN_WORDS = re.compile(r"[^\W_]+|[^\w\s]|_")


def load_entries(paths: Iterable[str | Path], encoding: str = "utf-8") -> dict[str, bool]:
    """Reads dictionaries, plain or .gz: one `word [tag]` a line, `#` begins a comment line.

    Entries without a tag are phrases in a file whose name begins with `phrase`, and entities in any other
    (person_x.txt, place.txt). Word and tag are parted by a TAB, or by white space where the last field is a known
    tag; numbers (jieba's frequencies) between them are passed over. Entries may hold spaces; those of a single
    character are left out.

    Returns:
        Entry -> True where it is an entity, False where it is a phrase.

    Raises:
        ConfigError: missing or wrongly encoded file, unknown tag after a TAB (names file and line), no entry at all.
    """
    entries: dict[str, bool] = {}
    for path in expand_paths(paths, "dictionary") if paths else []:
        default = not path.name.startswith("phrase")
        empty = True
        for number, line in read_lines(path, encoding):
            if line.startswith("#") or not line.strip():
                continue
            word, tag = _parse(line, f"{path}:{number}")
            empty = False
            if len(word) >= MIN_CHARS:
                is_entity = default if tag is None else tag in ENTITY_TAGS
                entries[word] = entries.get(word, False) or is_entity
        if empty:
            raise ConfigError(f"dictionary {path}: no entry in it; write one `word [tag]` a line, or take it out of "
                              f"data.entity_dicts")
    return entries


def _parse(line: str, source: str) -> tuple[str, str | None]:
    """Word and tag (or None) of a line."""
    known = ENTITY_TAGS | PHRASE_TAGS
    if "\t" in line:
        word, *fields = (field.strip() for field in line.split("\t"))
        tags = [field for field in fields if field and not field.isdigit()]
        if tags and tags[0] not in known:
            near = difflib.get_close_matches(tags[0], sorted(known), 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"{source}: unknown tag {tags[0]!r}; {hint}known: {', '.join(sorted(known))}")
        return clean_text(word), tags[0] if tags else None
    fields, tag = line.split(), None
    if len(fields) > 1 and fields[-1] in known:
        tag = fields.pop()
    if len(fields) > 1 and fields[-1].isdigit() and (tag is not None or len(fields) == 2):
        fields.pop()
    return clean_text(" ".join(fields)), tag


class ChineseMatcher:
    """Finds entries character by character; the first three characters of an entry choose the lengths to try."""

    def __init__(self, entries: dict[str, bool]) -> None:
        self._entries = entries
        lengths: dict[str, set[int]] = {}
        for word in entries:
            if len(word) > 2:
                lengths.setdefault(word[:3], set()).add(len(word))
        self._lengths = {key: tuple(sorted(sizes, reverse=True)) for key, sizes in lengths.items()}

    def find(self, text: str, edges: np.ndarray) -> list[tuple[int, int, bool]]:
        """Matches (start, stop, is_entity) in characters, left to right.

        Args:
            text: The text.
            edges: uint8 (len(text) + 1), places between characters: 0 where no match may begin or end, 2 where a word
                does, 1 at any other place where one may.
        """
        lengths, entries, allowed, free, found = self._lengths, self._entries, edges.tobytes(), 0, []
        for at in np.flatnonzero(edges[:-1]).tolist():
            if at < free:
                continue
            for size in lengths.get(text[at:at + 3], ()):
                stop = at + size
                if text[at:stop] in entries and stop <= len(text) and allowed[stop]:
                    break
            else:
                stop = at + 2
                if text[at:stop] not in entries or stop > len(text) or allowed[at] + allowed[stop] < 4:
                    continue
            found.append((at, stop, entries[text[at:stop]]))
            free = stop
        return found


class EnglishMatcher:
    """Finds entries word by word, whatever white space parts them; entities as written, phrases in any case."""

    def __init__(self, entries: dict[str, bool]) -> None:
        self._entries: dict[str, bool] = {}
        lengths: dict[str, set[int]] = {}
        for entry, is_entity in entries.items():
            words = _EN_WORDS.findall(entry if is_entity else entry.lower())
            self._entries[" ".join(words)] = is_entity
            if words:
                lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {key: tuple(sorted(sizes, reverse=True)) for key, sizes in lengths.items()}

    def find(self, words: Sequence[str]) -> list[tuple[int, int, bool]]:
        """Matches (start, stop, is_entity) in words, left to right; `words` are the surface words of a sentence."""
        lowered, free, found = [word.lower() for word in words], 0, []
        for at, (word, low) in enumerate(zip(words, lowered, strict=True)):
            if at < free or word not in self._lengths and low not in self._lengths:
                continue
            sizes = {*self._lengths.get(word, ()), *self._lengths.get(low, ())}
            for size in sorted((size for size in sizes if at + size <= len(words)), reverse=True):
                is_entity = self._entries.get(" ".join(words[at:at + size]))
                if not is_entity:
                    is_entity = False if self._entries.get(" ".join(lowered[at:at + size])) is False else None
                if is_entity is not None:
                    found.append((at, at + size, is_entity))
                    free = at + size
                    break
        return found


@functools.cache
def jieba_segmenter() -> tuple[jieba.Tokenizer, dict[str, str]]:
    """A segmenter of our own, apart from jieba's global one and words added to it, and what its dictionary's tags say.

    The tags are those of jieba's dictionary file. Its tagger (jieba.posseg) guesses a tag for unknown words too, at a
    third of the speed; unknown words have no tag here. jieba's cache file in the temporary folder is neither read nor
    written.

    Returns:
        The segmenter, and word -> "n" (noun) or "m" (modifier that may stand before one).
    """
    import jieba

    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    kinds = {}
    with segmenter.get_dict_file() as file:
        for line in file:
            word, _, tag = line.decode("utf-8").split()
            if tag == "n" or tag in MODIFIER_TAGS:
                kinds[word] = "n" if tag == "n" else "m"
    return segmenter, kinds
