"""Discourse relation (paper section 3.2.3): which connective stood between two sentences?

Mined as Discovery is (Sileo et al. 2019): the second of two adjacent sentences opens with a listed connective, which is
removed, with the comma after it, and becomes the label. Class 0, `[no-conn]`: pairs whose second sentence opens with
none. The classes are those of `data_gen.connectives` for data.language; one head serves both lists, so num_classes is
that of the longer one. `balance` in the YAML evens the classes out when the blocks are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from data_gen import connectives
from data_gen.annotate import Document, Sentence
from data_gen.packing import Packer, Rejected
from ernie2.shards import LEVELS, Example


def num_classes() -> int:
    """Classes of the sentence head, whatever the language."""
    return connectives.num_classes()


def describe_label(label: int, *, language: str) -> str:
    """The connective."""
    names = connectives.class_names(language)
    return names[label] if label < len(names) else f"class {label} (not used in this language)"


def generate(source: Iterable[Document], rng: np.random.Generator, *, packer: Packer, language: str,
             min_tokens: int = 4, no_conn_share: float = 0.1) -> Iterator[Example | Rejected]:
    """Yields every pair with a connective, and `no_conn_share` as many without.

    "Adjacent" is over paragraph ends too: in corpora of one sentence a line paragraphs mean nothing.

    Args:
        source: Documents of a block.
        rng: Draws the pairs without a connective.
        packer: Makes the examples.
        language: Chooses the list.
        min_tokens: Fewest tokens of each sentence, the connective not counted.
        no_conn_share: Pairs of class 0 for each pair of another class in the block.
    """
    mined, plain = 0, []
    for document in source:
        if document.language != language:
            yield Rejected(document.source, "page in another language than data.language")
            continue
        if len(document.sentences) < 2:
            yield Rejected(document.source, "document of one sentence", document.sentences[0].text)
            continue
        for first, second in zip(document.sentences[:-1], document.sentences[1:], strict=True):
            if len(first) < min_tokens or len(second) < min_tokens:
                continue
            found = connectives.opening_connective(second.text, language)
            if found is None:
                plain.append((first, second))
                continue
            label, end, comma = found
            rest = without_opening(second, end, comma) if label else None
            if rest is not None and len(rest) >= min_tokens:
                mined += 1
                yield packer.pack([[first], [rest]], label)
    for i in rng.choice(len(plain), min(len(plain), round(no_conn_share * mined)), replace=False):
        yield packer.pack([[sentence] for sentence in plain[i]], 0)


def without_opening(sentence: Sentence, end: int, comma: bool) -> Sentence | None:
    """The sentence from character `end` on; None where the connective is only the beginning of a longer word or phrase.

    Without a comma the segmenter decides: 而 opens 而他们, but not 而立之年.
    """
    first = int(np.searchsorted(sentence.starts, end))
    if first >= len(sentence) or first == 0:
        return None
    units = [getattr(sentence, f"{level}_ids") for level in LEVELS]
    if sentence.starts[first] != end or any(ids[first - 1] == ids[first] for ids in units):
        return None
    return sentence.cut(first, len(sentence))
