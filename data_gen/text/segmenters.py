"""Word segmenters: jieba, and rjieba (jieba-rs, in Rust), which cuts like it but for three things:

- It joins Latin letters and digits over marks (2016-10-11, DVD-RW, 10.4.5, http.js are one word). Where this
  can show, the text is cut by jieba's own rule (`_LATIN`, jieba.finalseg.re_skip), by which only 10.4 and 4%
  are.
- It joins rare characters (extensions A to F of the CJK characters) to words: they are hidden from it.
- Its hidden Markov model has rounded figures, and of two equally likely cuts it may choose the other one.
  Such ties are left: 4 of 298,894 sentences of nine Chinese corpora."""

import functools
import importlib.metadata
import itertools
import logging
import re
import string
from typing import Protocol

import numpy as np

from data_gen.text.dictionaries import jieba_lexicon
from ernie2.strict import ConfigError, nearest

_LATIN = re.compile(r"[a-zA-Z0-9]+(?:\.[0-9]+)?%?")
_LATIN_RUN = re.compile(r"[a-zA-Z0-9+#&._%-]+")
_MARKS = "+#&._%-"
_LATIN_CHARACTERS = frozenset(string.ascii_letters + string.digits + _MARKS)
_RARE = "\u3400-\u4dbf\u9fd6-\u9fff\ud800-\udfff\uf900-\ufaff\U00020000-\U0003ffff"
_RARE_CHARACTER = re.compile(f"[{_RARE}]")
# Where jieba-rs may differ: at a mark between letters or digits, but for the point of 10.4 with no more
# behind it, and at a rare character. The pattern begins with a set: few places are looked at closely.
_PITFALL = re.compile(
    f"[{_MARKS[:-1]}{_RARE}-](?:(?<=[a-zA-Z0-9][+#&_%-])(?=[a-zA-Z0-9])"
    rf"|(?<=[a-zA-Z0-9]\.)(?=[0-9]*[a-zA-Z]|[0-9]+\.[a-zA-Z0-9])|(?<=[{_RARE}]))"
)


class Segmenter(Protocol):
    """Cuts text into words, none of which reaches over a line feed.

    Attributes:
        name: "rjieba" or "jieba".
        version: Of the package, and of the jieba whose dictionary it uses."""

    name: str
    version: str

    def stops(self, text: str) -> np.ndarray:
        """int64 (W): where each word of the text ends, in characters."""


class Jieba:
    """jieba itself, without the words added to its global tokenizer and without its cache file."""

    name = "jieba"

    def __init__(self) -> None:
        """Raises ConfigError if jieba is not installed."""
        jieba_lexicon()
        self.version = importlib.metadata.version("jieba")

    @functools.cached_property
    def _tokenizer(self) -> object:
        """Its prefix table takes a second and 90 MB: made at the first cut."""
        import jieba

        jieba.setLogLevel(logging.WARNING)
        tokenizer = jieba.Tokenizer()
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
        tokenizer.initialized = True
        return tokenizer

    def stops(self, text: str) -> np.ndarray:
        """See `Segmenter`."""
        return _stops(self._tokenizer.lcut(text))


class RustJieba:
    """jieba-rs through the package rjieba, corrected where it differs from jieba."""

    name = "rjieba"

    def __init__(self) -> None:
        """Raises ConfigError if rjieba or jieba is not installed."""
        try:
            import rjieba
        except ImportError as error:
            raise ConfigError(
                f"data.segmenter: rjieba cannot be used ({error}); pip install rjieba, or use jieba"
            ) from None
        self._jieba = rjieba  # its functions use one segmenter, made on import
        self._whole = jieba_lexicon().ascii_words
        versions = map(importlib.metadata.version, ("rjieba", "jieba"))
        self.version = " with the dictionary of jieba ".join(versions)

    def stops(self, text: str) -> np.ndarray:
        """See `Segmenter`."""
        pitfalls = [found.start() for found in _PITFALL.finditer(text)]
        marks = [at for at in pitfalls if text[at] in _MARKS]
        if len(marks) < len(pitfalls):
            text = _RARE_CHARACTER.sub("\0", text)  # a word of its own to jieba-rs as well
        stops = _stops(self._jieba.cut(text))
        return self._corrected(text, marks, stops) if marks else stops

    def _corrected(self, text: str, marks: list[int], stops: np.ndarray) -> np.ndarray:
        """The stops that jieba would find; `marks` are the places where jieba-rs may be wrong."""
        parts, row, last = [], 0, 0
        for mark in marks:
            if mark < last:
                continue
            first, last = mark, _LATIN_RUN.match(text, mark).end()
            while first and text[first - 1] in _LATIN_CHARACTERS:
                first -= 1
            # A word has a character at least: no more than so many stops need to be searched.
            begin = row + int(np.searchsorted(stops[row : row + mark + 1], first))
            parts.append(stops[row:begin])
            row = begin + int(np.searchsorted(stops[begin : begin + last - first + 1], last, "right"))
            edges = stops[begin:row].tolist()
            parts.append(self._cut_again(text, edges if first else [0, *edges]))
        return np.concatenate([*parts, stops[row:]])

    def _cut_again(self, text: str, edges: list[int]) -> list[int]:
        """Edges of words in a run of Latin letters, digits and marks by jieba's rule; `edges`: by jieba-rs.

        Words of the dictionary stay (T恤, C++); what is between them is cut again."""
        made = edges[:1] if edges and edges[0] else []
        for known, group in itertools.groupby(
            itertools.pairwise(edges), lambda word: text[word[0] : word[1]] in self._whole
        ):
            words = list(group)
            if known:
                made += [stop for _, stop in words]
                continue
            first, last = words[0][0], words[-1][1]
            found = {edge for latin in _LATIN.finditer(text, first, last) for edge in latin.span()}
            made += sorted(found - {first} | {last})
        return made

    def has_jiebas_dictionary(self) -> bool:
        """Whether its dictionary is that of the installed jieba, by a sample of the words and the sum of all
        frequencies."""
        lexicon, suggested = jieba_lexicon(), self._jieba.suggest_freq
        for word, frequency in lexicon.sample:
            # Its suggestion for a word is the frequency, or one more, if that keeps the word whole.
            more = suggested(word) - frequency
            if more < 0 or more > 1 and self._jieba.cut(word, False) == [word]:
                return False
        # For 的了 it suggests the frequency of 的 times that of 了 by the sum of all.
        expected = suggested("的") * suggested("了") / lexicon.total + 1
        return abs(suggested("的了") / expected - 1) < 1e-3


def _stops(words: list[str]) -> np.ndarray:
    return np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))


@functools.cache
def load_segmenter(name: str = "auto") -> Segmenter:
    """The segmenter of a name, one for all in a process; "auto" is rjieba if it has jieba's dictionary, else
    jieba with a warning (pass on the `name` of what was loaded to other processes).

    Raises:
        ConfigError: unknown name; package not installed."""
    if name == "rjieba":
        return RustJieba()
    if name == "jieba":
        return Jieba()
    if name != "auto":
        raise ConfigError(f"data.segmenter: found {name!r}{nearest(name, ['auto', 'rjieba', 'jieba'])}")
    try:
        fast = load_segmenter("rjieba")
        if fast.has_jiebas_dictionary():
            return fast
        why = "rjieba has another dictionary than the installed jieba"
    except ConfigError as error:
        why = str(error)
    logging.getLogger(__name__).warning(
        "Words are cut by jieba, about 15 times slower than by rjieba: %s", why
    )
    return load_segmenter("jieba")
