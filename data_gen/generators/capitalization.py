"""Capitalization prediction (paper section 3.2.1): is the word written with a capital?

Label of a token: 1 = its word begins with an upper-case letter in the text as written, before any
lower-casing, 0 = a word of letters that does not; every piece of a word has the word's label. Words without
cased letters (Chinese, numbers) and special tokens: -100."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from data_gen.generators import Labels
from data_gen.packing import Packed, Packer, Run, fill
from data_gen.text.tokens import Document, Tokens, case_tables, codes_of
from ernie2.schema import between
from ernie2.shards import IGNORED

labels = Labels(("lower case", "capital"))


def generate(
    source: Sequence[Document],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    short_seq_prob: Annotated[float, between(0, 1)] = 0.1,
) -> Iterator[Packed]:
    """Packs running text as knowledge masking does; text without a cased letter is rejected.

    `short_seq_prob`: share of examples that aim at a random shorter length."""
    capital = capital_labels(source[0].sentences.tokens)
    for document in source:
        for run in fill(document.sentences, packer.capacity(), rng, short_seq_prob):
            labels = capital[run.first : run.last]
            if (labels == IGNORED).all():
                packer.reject(document.source, "text without cased letters")
            else:
                yield packer.pack([Run(run.tokens, run.first, run.last, labels)])


def capital_labels(tokens: Tokens) -> np.ndarray:
    """int8 (T): label of each token."""
    codes, (cased, upper) = codes_of(tokens.text), case_tables()
    first = np.flatnonzero(~tokens.inside)
    sizes = np.diff(first, append=len(tokens))
    seen = np.concatenate([[0], np.cumsum(cased[codes], dtype=np.int32)])
    has_case = seen[tokens.ends[first + sizes - 1]] > seen[tokens.starts[first]]
    labels = np.where(has_case, upper[codes[tokens.starts[first]]], IGNORED).astype(np.int8)
    return np.repeat(labels, sizes)
