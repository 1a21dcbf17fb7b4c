"""Word segmenters: jieba, and faster ones that agree with it. `python -m data_gen.text.segmenters FILES`
compares them.

rjieba (jieba-rs, in Rust) cuts like jieba but for three things, of which two are put right here:
- It joins Latin letters and digits over marks (2016-10-11, DVD-RW, 10.4.5, http.js are one word). Lines where
this can
  show are cut by jieba's own rule (`_LATIN`, jieba.finalseg.re_skip), by which only 10.4 and 4% are.
- It takes rare characters (extensions A to F of the CJK characters) for Chinese ones that may be joined to
words.
- Its hidden Markov model has rounded figures, and of two equally likely cuts it may choose the other one.
Such ties are
  left: 4 of 298,894 sentences of nine Chinese corpora."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import logging
import re
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_gen.reading.streams import expand_paths, read_lines
from data_gen.text.lexicon import jieba_lexicon, jieba_version
from data_gen.text.sentences import split_sentences
from ernie2.config import ConfigError
from ernie2.strict import cli, nearest

if TYPE_CHECKING:
    import jieba

NAMES = ("rjieba", "jieba")
"""Segmenters, the fastest first; `auto` is the first that is installed and has the dictionary of the
installed jieba.
"""

BLOCK = 10_000
"""Sentences that `compare` cuts at a time: about a megabyte."""

_LATIN = re.compile(r"[a-zA-Z0-9]+(?:\.[0-9]+)?%?")
_LATIN_RUN = re.compile(r"[a-zA-Z0-9+#&._%-]+")
_MARKS = "+#&._%-"
_LATIN_CHARACTERS = frozenset(string.ascii_letters + string.digits + _MARKS)
_RARE = "\u3400-\u4dbf\u9fd6-\u9fff\ud800-\udfff\uf900-\ufaff\U00020000-\U0003ffff"
_RARE_CHARACTER = re.compile(f"[{_RARE}]")
# Where jieba-rs may differ from jieba: at a mark between letters or digits but for the point of 10.4 when
# there is no more behind it, and at a rare character. The pattern begins with a set of characters: few places
# are looked at closely.
_PITFALL = re.compile(
    f"[{_MARKS[:-1]}{_RARE}-](?:(?<=[a-zA-Z0-9][+#&_%-])(?=[a-zA-Z0-9])"
    rf"|(?<=[a-zA-Z0-9]\.)(?=[0-9]*[a-zA-Z]|[0-9]+\.[a-zA-Z0-9])|(?<=[{_RARE}]))"
)


class Segmenter:
    """Cuts text into words. No word reaches over a line feed.

    Attributes:
        name: As in `NAMES`.
        version: Of the package, and where it is not jieba itself, of the jieba whose dictionary it uses."""

    name: str
    version: str

    def stops(self, text: str) -> np.ndarray:
        """int64 (W): where each word of a text of any length ends, in characters."""
        raise NotImplementedError

    def cut(self, text: str) -> list[str]:
        """The words; end to end they are the text."""
        stops = self.stops(text).tolist()
        return [text[first:last] for first, last in zip([0, *stops], stops)]


class Jieba(Segmenter):
    """jieba itself, with a tokenizer of its own: words added to jieba's global one do not count.

    jieba's cache file in the temporary folder is neither read nor written."""

    name = "jieba"

    def __init__(self) -> None:
        """Raises ConfigError where jieba is not installed. Its prefix table (a second, 90 MB) is built at the
        first cut."""
        jieba_lexicon()
        self.version = jieba_version()

    @functools.cached_property
    def _jieba(self) -> jieba.Tokenizer:
        import jieba

        jieba.setLogLevel(logging.WARNING)
        tokenizer = jieba.Tokenizer()
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
        tokenizer.initialized = True
        return tokenizer

    def stops(self, text: str) -> np.ndarray:
        """See `Segmenter`."""
        return _stops(self.cut(text))

    def cut(self, text: str) -> list[str]:
        """See `Segmenter`."""
        return self._jieba.lcut(text)


class RustJieba(Segmenter):
    """jieba-rs through the package rjieba, mended where it differs from jieba."""

    name = "rjieba"

    def __init__(self) -> None:
        """Raises ConfigError where rjieba or jieba is not installed."""
        try:
            import rjieba
        except ImportError as error:
            raise ConfigError(
                f"data.segmenter: rjieba cannot be used ({error}); pip install rjieba, or use jieba"
            ) from None
        self._jieba = (
            rjieba  # its functions are those of the one that it makes on import; another takes as long again
        )
        self._whole = jieba_lexicon().ascii_words
        self.version = (
            f"{importlib.metadata.version('rjieba')} with the dictionary of jieba {jieba_version()}"
        )

    def stops(self, text: str) -> np.ndarray:
        """See `Segmenter`."""
        pitfalls = [found.start() for found in _PITFALL.finditer(text)]
        marks = [at for at in pitfalls if text[at] in _MARKS]
        if len(marks) < len(pitfalls):
            text = _RARE_CHARACTER.sub("\0", text)  # a word of its own to jieba-rs as well
        stops = _stops(self._jieba.cut(text))
        return self._mended(text, marks, stops) if marks else stops

    def _mended(self, text: str, marks: list[int], stops: np.ndarray) -> np.ndarray:
        """The stops that jieba would find; `marks` are the places where jieba-rs may be wrong."""
        parts, row, last = [], 0, 0
        for mark in marks:
            if mark < last:
                continue
            first, last = mark, _LATIN_RUN.match(text, mark).end()
            while first and text[first - 1] in _LATIN_CHARACTERS:
                first -= 1
            following = row + int(np.searchsorted(stops[row : row + mark + 1], first))
            parts.append(stops[row:following])
            row = following + int(
                np.searchsorted(stops[following : following + last - first + 1], last, "right")
            )
            edges = stops[following:row].tolist()
            parts.append(self._cut_anew(text, edges if first else [0, *edges]))
        return np.concatenate([*parts, stops[row:]])

    def _cut_anew(self, text: str, edges: list[int]) -> list[int]:
        """Edges of words in a run of Latin letters, digits and marks, by jieba's rule; `edges`: by jieba-rs.

        Words of the dictionary stay, those that reach out of the run (T恤) and those that do not (C++). What
        lies between them is cut anew."""
        anew = edges[:1] if edges and edges[0] else []
        for known, group in itertools.groupby(
            itertools.pairwise(edges), lambda word: text[word[0] : word[1]] in self._whole
        ):
            words = list(group)
            if known:
                anew += [stop for _, stop in words]
                continue
            first, last = words[0][0], words[-1][1]
            found = {edge for latin in _LATIN.finditer(text, first, last) for edge in latin.span()}
            anew += sorted(found - {first} | {last})
        return anew

    def has_jiebas_dictionary(self) -> bool:
        """Whether its dictionary is that of the installed jieba, by a sample of the words and the sum of all
        frequencies."""
        lexicon = jieba_lexicon()
        for word, frequency in lexicon.sample:
            # jieba-rs suggests as frequency of a word its own, or one more, if that is enough to keep the
            # word whole.
            more = self._jieba.suggest_freq(word) - frequency
            if more < 0 or more > 1 and self._jieba.cut(word, False) == [word]:
                return False
        # What it suggests for 的了 is the frequency of 的 times that of 了 by the sum of all.
        product = self._jieba.suggest_freq("的") * self._jieba.suggest_freq("了")
        return abs(self._jieba.suggest_freq("的了") / (product / lexicon.total + 1) - 1) < 1e-3


def _stops(words: list[str]) -> np.ndarray:
    """Where each word ends."""
    try:
        sizes = np.frombuffer(bytes(map(len, words)), np.uint8)  # faster than the general way
    except ValueError:
        sizes = np.fromiter(map(len, words), np.int64, len(words))
    return np.cumsum(sizes, dtype=np.int64)


_MAKERS: dict[str, Callable[[], Segmenter]] = {"rjieba": RustJieba, "jieba": Jieba}


@functools.cache
def load_segmenter(name: str = "auto") -> Segmenter:
    """The segmenter of a name, one for all in a process.

    "auto" is the fastest that agrees with jieba. Where that is jieba itself, a warning says what is slower;
    pass on the `name` of what was loaded rather than "auto" to other processes.

    Raises:
        ConfigError: unknown name; package not installed."""
    if name in _MAKERS:
        return _MAKERS[name]()
    if name != "auto":
        raise ConfigError(f"data.segmenter: found {name!r}{nearest(name, ['auto', *NAMES])}")
    try:
        fast = load_segmenter("rjieba")
        if fast.has_jiebas_dictionary():
            return fast
        why = f"rjieba {fast.version.split()[0]} has another dictionary than jieba {jieba_version()}"
    except ConfigError as error:
        why = str(error)
    logging.getLogger(__name__).warning(
        "Words are cut by jieba, about 15 times slower than by rjieba: %s", why
    )
    return load_segmenter("jieba")


@dataclass(frozen=True)
class Comparison:
    """How well a segmenter agrees with jieba.

    Attributes:
        identical: Share of sentences cut into the same words.
        boundary_f1: F1 of the places between words.
        differing: The other sentences.
        seconds: Processor time for all sentences."""

    identical: float
    boundary_f1: float
    differing: list[str]
    seconds: float


def compare(name: str, sentences: Sequence[str]) -> Comparison:
    """Cuts sentences, none of which holds a line feed, joined by line feeds as in data generation."""
    segmenter, reference = load_segmenter(name), load_segmenter("jieba")
    segmenter.cut("词1-2")  # what it loads when first used is not counted
    seconds, places, wrong_places, differing = 0.0, 0, 0, []
    for first in range(0, len(sentences), BLOCK):
        block = sentences[first : first + BLOCK]
        text = "\n".join(block)
        start = time.process_time()
        found = segmenter.stops(text)
        seconds += time.process_time() - start
        wanted = found if segmenter is reference else reference.stops(text)
        lines = np.cumsum([len(sentence) + 1 for sentence in block])
        outer = np.concatenate([lines - 1, lines])
        found, wanted = np.setdiff1d(found, outer), np.setdiff1d(wanted, outer)
        wrong = np.setxor1d(found, wanted)
        places, wrong_places = places + len(found) + len(wanted), wrong_places + len(wrong)
        differing += [block[row] for row in np.unique(np.searchsorted(lines, wrong)).tolist()]
    same = 1 - len(differing) / max(len(sentences), 1)
    return Comparison(same, 1 - wrong_places / max(places, 1), differing, seconds)


def agreement(name: str, sentences: Sequence[str]) -> tuple[float, list[str]]:
    """Share of sentences that a segmenter cuts exactly like jieba, and the sentences that it does not."""
    found = compare(name, sentences)
    return found.identical, found.differing


@cli
def main(argv: Sequence[str]) -> int:
    """Cuts your text with every segmenter and prints how fast each is and how well it agrees with jieba."""
    parser = argparse.ArgumentParser(prog="python -m data_gen.text.segmenters", description=main.__doc__)
    parser.add_argument("files", nargs="+", help="text, plain or compressed; globs")
    parser.add_argument("--encoding", default="utf-8", help="of the files; default utf-8")
    parser.add_argument(
        "--megabytes", type=float, default=2.0, help="how much of the text to take; default 2"
    )
    parser.add_argument(
        "--show", type=int, default=3, help="differing sentences to print for each; default 3"
    )
    args = parser.parse_args(argv)
    paths, sentences = expand_paths(args.files, "text"), []
    for path in paths:
        room = args.megabytes * 1e6 / len(paths)
        for _, line in read_lines(path, args.encoding):
            sentences += split_sentences(line)
            room -= len(line.encode("utf-8", "surrogatepass"))
            if room < 0:
                break
    if not sentences:
        raise ConfigError(f"{', '.join(args.files)}: no text in it")
    size = sum(len(sentence.encode("utf-8", "surrogatepass")) + 1 for sentence in sentences) / 1e6
    print(f"{len(sentences):,} sentences, {size:.1f} MB")
    print(f"{'segmenter':<12}{'MB/s':>8}{'identical':>12}{'boundary F1':>13}")
    for name in NAMES:
        try:
            found = compare(name, sentences)
        except ConfigError as error:
            print(f"{name:<12}{error}")
            continue
        speed = size / max(found.seconds, 1e-9)
        print(f"{name:<12}{speed:8.2f}{found.identical:12.4%}{found.boundary_f1:13.4%}")
        for sentence in found.differing[: args.show]:
            print("   ", "/".join(load_segmenter(name).cut(sentence)))
            print("    jieba:", "/".join(load_segmenter("jieba").cut(sentence)))
    return 0


if __name__ == "__main__":
    main()
