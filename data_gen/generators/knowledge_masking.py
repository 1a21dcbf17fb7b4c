"""Knowledge masking (paper section 3.2.1; ERNIE 1.0): running text whose words, phrases and entities are masked whole.

The masks are drawn at training time from the span ids; here consecutive sentences are packed as one segment, each token
of the corpus in exactly one example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from data_gen.assembling import Packed
from data_gen.packing import Packer, fill
from data_gen.tokens import Document


def generate(source: Iterable[Document], rng: np.random.Generator, *, packer: Packer, language: str,
             short_seq_prob: float = 0.1) -> Iterator[Packed]:
    """Packs each document's sentences to about max_seq_len, one segment an example; documents are never joined.

    Args:
        source: Documents of a block.
        rng: Draws the lengths.
        packer: Makes the examples.
        language: Not used: the spans know it.
        short_seq_prob: Share of examples that aim at a random shorter length (BERT's practice).
    """
    for document in source:
        for run in fill(document.sentences, packer.capacity(), rng, short_seq_prob):
            yield packer.pack([run])
