"""Token-document relation (paper section 3.2.1): does this token occur in other segments of the same
document?

Label of a token: 1 = its word stands in at least one other segment of the document, 0 = only in this one.
Words are compared by their text without regard to case (two words unknown to the vocabulary stay two words).
Punctuation, stop words and special tokens: -100, since nearly all of them occur everywhere and would drown
the topic words the paper is after."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np

from data_gen.generators import Labels
from data_gen.packing import Packed, Packer, Run, fill
from data_gen.text.tokens import WORD, Document, Sentence
from ernie2.schema import between
from ernie2.shards import IGNORED

_ZH = """
的 了 着 过 地 得 之 其 所 以 于 与 和 及 或 而 但 并 也 都 就 还 又 才 只 很 更 最 太 再 不 没 没有 无 是
有 在 为 为了 被 把 将 使 让 给 对 对于 从 自 由 向 往 到 至 比 按 当 因 因为 所以 如 如果 若 则 我 你 您 他
她 它 我们 你们 他们 她们 它们 自己 这 那 这个 那个 这些 那些 这样 那样 这里 那里 此 该 某 每 各 什么 怎么
哪 谁 一 一个 一种 一些 个 种 些 们 等 吗 呢 吧 啊 上 下 中 里 内 外 前 后 时 会 能 可 可以 要 应 说 去 来
做
"""
_EN = """
a an the and or but nor so if then than as at by for from in into of off on onto out over to up with without
about after before between through during under again is am are was were be been being do does did have has
had having will would shall should can could may might must not no i me my mine we us our you your he him
his she her it its they them their this that these those there here who whom whose which what when where why
how all any both each few more most other some such only own same too very just also s t d ll m re ve
"""
STOP_WORDS = {"zh": frozenset(_ZH.split()), "en": frozenset(_EN.split())}

labels = Labels(("only here", "in other segments too"))


def generate(
    source: Iterable[Document],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    ignore_stop_words: bool = True,
    max_segments: Annotated[int, between(2)] = 8,
    short_seq_prob: Annotated[float, between(0, 1)] = 0.1,
) -> Iterator[Packed]:
    """Splits each document into at least two segments, one example each.

    Segments end at sentence ends and hold at most max_seq_len tokens; a document that would fit one example
    is halved. In a book nearly every word recurs somewhere, so a document of more than `max_segments`
    segments counts as several.

    Args:
        ignore_stop_words: Give stop words -100 as punctuation has.
        max_segments: Segments of max_seq_len beyond which a document counts as several.
        short_seq_prob: Share of segments that aim at a random shorter length."""
    stop_words = STOP_WORDS.get(language, frozenset()) if ignore_stop_words else frozenset()
    words = _Words(stop_words)
    for document in source:
        if len(document.sentences) < 2:
            packer.reject(document.source, "document of one sentence", document.sentences[0].text)
            continue
        for sentences in _windows(document.sentences, max_segments * packer.capacity()):
            lengths = [len(sentence) for sentence in sentences]
            capacity = min(packer.capacity(), max(max(lengths), -(-sum(lengths) // 2)))
            runs = list(fill(sentences, capacity, rng, short_seq_prob))
            if len(runs) < 2:
                packer.reject(document.source, "document of one segment", document.sentences[0].text)
                continue
            for run, labels in zip(runs, _labels(runs, _numbers(sentences, words)), strict=True):
                yield packer.pack([Run(run.tokens, run.first, run.last, labels)])


def _windows(sentences: Sequence[Sentence], limit: int) -> Iterator[Sequence[Sentence]]:
    """The document in equal stretches of whole sentences, each of about `limit` tokens at most."""
    ends = np.cumsum([len(sentence) for sentence in sentences])
    count = -(-int(ends[-1]) // limit)
    inner = [int(np.searchsorted(ends, ends[-1] * i / count)) + 1 for i in range(1, count)]
    for start, stop in pairwise([0, *inner, len(sentences)]):
        if start < stop:
            yield sentences[start:stop]


class _Words(dict[str, int]):
    """Word as written -> its number, the same in lower case; IGNORED for stop words and marks."""

    def __init__(self, stop_words: frozenset[str]) -> None:
        self._stop_words = stop_words
        self._lower: dict[str, int] = {}

    def __missing__(self, text: str) -> int:
        word = text.strip().lower()
        if word in self._stop_words or not any(map(str.isalnum, word)):
            self[text] = IGNORED
        else:
            self[text] = self._lower.setdefault(word, len(self._lower))
        return self[text]


def _numbers(sentences: Sequence[Sentence], words: _Words) -> np.ndarray:
    """int64: the number of each word of consecutive sentences."""
    tokens, first, last = sentences[0].tokens, sentences[0].first, sentences[-1].last
    begins = first + np.flatnonzero(tokens.begins[first:last] & WORD)
    places = [*tokens.starts[begins].tolist(), sentences[-1].end]
    return np.array([words[tokens.text[a:b]] for a, b in pairwise(places)], np.int64)


def _labels(runs: list[Run], numbers: np.ndarray) -> Iterator[np.ndarray]:
    """int8 labels for the tokens of each run; `numbers` are those of all words of the runs, in a row."""
    known, compact = np.unique(numbers, return_inverse=True)
    words = np.cumsum(np.concatenate([run.begins & WORD for run in runs]), dtype=np.int64) - 1
    edges = np.cumsum([0] + [len(run) for run in runs]).tolist()
    segments_of = np.zeros(len(known), np.int64)
    for a, b in pairwise(edges):
        segments_of[np.unique(compact[words[a] : words[b - 1] + 1])] += 1
    by_word = np.where(known == IGNORED, IGNORED, segments_of > 1).astype(np.int8)[compact]
    for a, b in pairwise(edges):
        yield by_word[words[a:b]]
