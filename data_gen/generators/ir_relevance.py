"""IR relevance (paper section 3.2.3): query and title; 0 clicked, 1 shown but not clicked, 2 random.

Classes 0 and 1 are rows of the query log. For class 2 a query meets a title that was shown for other queries of the
block only. With graded relevance in place of clicks, 0 and 1 are the upper grades: annotated relevance, not clicks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data_gen.annotate import Pair, Sentence
from data_gen.packing import Packer, Rejected
from ernie2.config import ConfigError
from ernie2.shards import Example

LABELS = ("strong: shown and clicked", "weak: shown, not clicked", "random title of another query")


def num_classes() -> int:
    """Classes of the sentence head."""
    return len(LABELS)


def describe_label(label: int) -> str:
    """A label in words."""
    return LABELS[label]


def generate(source: Sequence[Pair], rng: np.random.Generator, *, packer: Packer, language: str,
             random_per_query: int | str = "balanced") -> Iterator[Example | Rejected]:
    """Yields the log's own pairs, and pairs of class 2.

    Args:
        source: Pairs of a block; those labelled neither 0 nor 1 only tell which titles were shown for a query.
        rng: Draws the random titles.
        packer: Makes the examples.
        language: Not used.
        random_per_query: Random titles for each query of the block, or "balanced": as many in all as the mean of
            classes 0 and 1, over the queries in turn.
    """
    if random_per_query != "balanced" and not (isinstance(random_per_query, int) and random_per_query >= 0):
        raise ConfigError(f"generator_args.random_per_query: found {random_per_query!r}, expected a number or "
                          f"'balanced'")
    queries: dict[str, Sentence] = {}
    shown: dict[str, set[str]] = {}
    used = 0
    for pair in source:
        queries.setdefault(pair.query.text, pair.query)
        shown.setdefault(pair.query.text, set()).add(pair.title.text)
        if pair.label in (0, 1):
            used += 1
            yield packer.pack([[pair.query], [pair.title]], pair.label)
    wanted = round(used / 2) if random_per_query == "balanced" else random_per_query * len(queries)
    order = [list(queries)[i] for i in rng.permutation(len(queries))]
    for i in range(wanted):
        text = order[i % len(order)]
        title = _title_of_another(source, shown[text], text, rng)
        if title is None:
            yield Rejected("", "no other query's title in its block", text)
        else:
            yield packer.pack([[queries[text]], [title]], 2)


def _title_of_another(source: Sequence[Pair], shown: set[str], query: str, rng: np.random.Generator,
                      tries: int = 20) -> Sentence | None:
    for _ in range(tries):
        pair = source[rng.integers(len(source))]
        if pair.query.text != query and pair.title.text not in shown:
            return pair.title
    return None
