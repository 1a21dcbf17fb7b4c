"""Discourse relation (paper section 3.2.3): which connective stood between two sentences?

Mined as Discovery is (Sileo et al. 2019, arXiv 1903.11850): the second of two adjacent sentences opens with a listed
connective, which is removed, with the comma after it, and becomes the label. Class 0, `[no-conn]`: pairs whose second
sentence opens with none. The classes are those of `data_gen.connectives` for data.language; one head serves both lists,
so num_classes is that of the longer one. `balance` and `max_per_class` in the YAML even the classes out when the blocks
are merged. Pairs that are already marked (data.marked_pairs) are taken as they are, through the same filters.

The filters are those of the script that Discovery was made with (github.com/sileod/Discovery, demo.ipynb), for both
sentences: 2 to 31 words, more than half of the characters letters, round brackets balanced and an even number of double
quotes, more lower-case than upper-case letters. Not taken over: its language identifier (a page in another language is
left out by the annotation) and the random thinning of "and", "but" and pairs without a connective (`balance`,
`no_conn_share`). `max_words` is higher, because Chinese sentences are longer: 31 would cost 39% of the pairs, 64 cost 4%.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from data_gen import connectives
from data_gen.assembling import Packed
from data_gen.packing import Packer, Rejected
from data_gen.tokens import ALL_LEVELS, WORD, Document, Pair, Sentence, Sentences

# White space, digits, punctuation and symbols by their blocks: twice as fast as asking for the kind of each character.
_NO_LETTERS = re.compile("[\0-@\\[-`{-\xa9\u2000-\u2bff\u3000-\u303f\ufe30-\ufe6f\uff00-\uff20]+")
_BRACKETS = ("()", "（）", "“”", "「」", "《》")
_PAIRED = frozenset('"').union(*_BRACKETS)


def num_classes() -> int:
    """Classes of the sentence head, whatever the language."""
    return connectives.num_classes()


def describe_label(label: int, *, language: str) -> str:
    """The connective."""
    names = connectives.class_names(language)
    return names[label] if label < len(names) else f"class {label} (not used in this language)"


class _Filter:
    """What keeps a pair out; the same pair counts once in a block."""

    def __init__(self, language: str, max_words: int, min_letters: float, balanced: bool) -> None:
        self.language, self.max_words, self.min_letters, self.balanced = language, max_words, min_letters, balanced
        self._seen: set[tuple[str, str]] = set()

    def fault(self, first: Sentence, second: Sentence) -> str | None:
        """Why a pair is left out; None where it may be used, which counts as used."""
        texts = first.text, second.text
        if texts in self._seen:
            return "pair seen before in its block"
        fault = self._fault(first, texts[0]) or self._fault(second, texts[1])
        if fault is None:
            self._seen.add(texts)
        return fault

    def _fault(self, sentence: Sentence, text: str) -> str | None:
        # No sentence has more words than tokens: most need no counting.
        if len(sentence) > self.max_words and np.count_nonzero(sentence.begins & WORD) > self.max_words:
            return f"sentence of more than {self.max_words} words"
        others = "".join(_NO_LETTERS.findall(text))  # all brackets and quotation marks are among them
        if len(text) - len(others) <= self.min_letters * len(text):
            return "too few letters in a sentence"
        if self.language == "en" and sum(map(str.isupper, text)) >= sum(map(str.islower, text)):
            return "sentence in capitals"
        if self.balanced and others and not is_balanced(others):
            return "bracket or quotation mark without its partner"
        return None


def is_balanced(text: str) -> bool:
    """Whether every bracket and quotation mark has its partner, in order."""
    if _PAIRED.isdisjoint(text):  # most sentences
        return True
    if text.count('"') % 2:
        return False
    for left, right in _BRACKETS:
        count = text.count(left)
        if count != text.count(right) or count and not _in_order(text, left, right):
            return False
    return True


def _in_order(text: str, left: str, right: str) -> bool:
    """Whether no right bracket comes before its left one."""
    depth = 0
    for found in text:
        depth += (found == left) - (found == right)
        if depth < 0:
            return False
    return True


def generate(source: Sequence[Document] | Sequence[Pair], rng: np.random.Generator, *, packer: Packer, language: str,
             min_tokens: int = 4, no_conn_share: float = 0.1, max_words: int = 64, min_letters: float = 0.5,
             balanced: bool = True) -> Iterator[Packed | Rejected]:
    """Yields every pair with a connective, and `no_conn_share` as many without; of marked pairs those that are there.

    "Adjacent" is over paragraph ends too: in corpora of one sentence a line paragraphs mean nothing.

    Args:
        source: Documents of a block; or its marked pairs, whose label is the class of their marker.
        rng: Draws the pairs without a connective.
        packer: Makes the examples.
        language: Chooses the list.
        min_tokens: Fewest tokens of each sentence, the connective not counted.
        no_conn_share: Pairs of class 0 for each pair of another class in the block.
        max_words: Most words of each sentence, punctuation marks counted (Discovery: 31).
        min_letters: Each sentence has more than this share of letters among its characters (Discovery: 0.5).
        balanced: Leave out sentences with a bracket or quotation mark that has no partner (as Discovery does).
    """
    pairs = _Filter(language, max_words, min_letters, balanced)
    if source and isinstance(source[0], Pair):
        yield from _marked(source, pairs, packer, language, min_tokens)
        return
    mined, usable = 0, []
    for document in source:
        if document.language != language:
            yield Rejected(document.source, "page in another language than data.language")
            continue
        if len(document.sentences) < 2:
            yield Rejected(document.source, "document of one sentence", document.sentences[0].text)
            continue
        usable.append(document.sentences)
        for first, second, label in _openings(document.sentences, language, min_tokens):
            fault = pairs.fault(first, second)
            mined += fault is None
            if fault is None:
                yield packer.pack([[first], [second]], label, keep_joint=True)
            else:
                yield Rejected(document.source, fault, second.text)
    for first, second in _without_connective(usable, rng, round(no_conn_share * mined), language, min_tokens, pairs):
        yield packer.pack([[first], [second]], 0, keep_joint=True)


def _openings(sentences: Sentences, language: str, min_tokens: int) -> Iterator[tuple[Sentence, Sentence, int]]:
    """Adjacent sentences and the class of the connective that opened the second, which is without it."""
    tokens, rows, keys = sentences.tokens, sentences.rows.tolist(), connectives.opening_keys(language)
    text = tokens.text
    # Most sentences open with none: they must cost no more than this look-up.
    for i in [i for i, (_, _, begin, _) in enumerate(rows) if text[begin:begin + 2] in keys or text[begin] in keys]:
        if i == 0 or rows[i - 1][1] - rows[i - 1][0] < min_tokens:
            continue
        found = connectives.opening_connective(text[rows[i][2]:rows[i][3]], language)
        rest = without_opening(Sentence(tokens, *rows[i]), found[1]) if found and found[0] else None
        if rest is not None and len(rest) >= min_tokens:
            yield Sentence(tokens, *rows[i - 1]), rest, found[0]


def _without_connective(documents: Sequence[Sequence[Sentence]], rng: np.random.Generator, wanted: int, language: str,
                        min_tokens: int, pairs: _Filter) -> Iterator[tuple[Sentence, Sentence]]:
    """Up to `wanted` adjacent sentences, drawn at random, of which the second opens with no connective."""
    ends = np.cumsum([len(sentences) - 1 for sentences in documents])
    for place in rng.permutation(int(ends[-1])).tolist() if wanted else ():
        number = int(np.searchsorted(ends, place, side="right"))
        i = place - (int(ends[number - 1]) if number else 0)
        first, second = documents[number][i:i + 2]
        if min(len(first), len(second)) < min_tokens or connectives.opening_connective(second.text, language) is not None:
            continue
        if pairs.fault(first, second) is None:
            yield first, second
            wanted -= 1
            if not wanted:
                return


def _marked(source: Sequence[Pair], pairs: _Filter, packer: Packer, language: str,
            min_tokens: int) -> Iterator[Packed | Rejected]:
    """Marked pairs. A second sentence that still opens with its connective is freed of it: it would give the label away."""
    for pair in source:
        first, second = pair.query, pair.title
        if pair.label < 0:
            yield Rejected(pair.source, "marker that is no connective of data.language", second.text)
            continue
        found = connectives.opening_connective(second.text, language)
        if found is not None and found[0] == pair.label > 0:
            second = without_opening(second, found[1]) or second
        fault = f"sentence of fewer than {min_tokens} tokens"
        if min(len(first), len(second)) >= min_tokens:
            fault = pairs.fault(first, second)
        if fault is None:
            yield packer.pack([[first], [second]], pair.label, keep_joint=True)
        else:
            yield Rejected(pair.source, fault, second.text)


def without_opening(sentence: Sentence, end: int) -> Sentence | None:
    """The sentence from character `end` on; None where the connective is only the beginning of a longer word or phrase.

    Without a comma the segmenter decides: 而 opens 而他们, but not 而立之年.
    """
    tokens, begin = sentence.tokens, sentence.begin + end
    first = sentence.first + end  # right where every character is a token
    if first >= sentence.last or tokens.starts[first] != begin:
        first = sentence.first + int(tokens.starts[sentence.first:sentence.last].searchsorted(begin))
    if not sentence.first < first < sentence.last or tokens.starts[first] != begin or tokens.begins[first] != ALL_LEVELS:
        return None
    return Sentence(tokens, first, sentence.last, begin, sentence.end)
