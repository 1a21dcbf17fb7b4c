"""IR relevance (paper section 3.2.3): query and title; 0 clicked, 1 shown but not clicked, 2 random.

Classes 0 and 1 are rows of the query log. For class 2 a query meets a title that the block shows for other
queries only; as blocks are drawn from all over the log, that is nearly always a title of another matter. With
graded relevance in place of clicks, 0 and 1 are the upper grades: annotated relevance, not clicks."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np

from data_gen.generators import Labels
from data_gen.packing import Packed, Packer
from data_gen.text.tokens import Pair
from ernie2.schema import between

LABELS = (
    "strong: clicked, or the top grade",
    "weak: shown and not clicked, or the middle grade",
    "random title of another query",
)
_TRIES = 8  # titles drawn for a query before it is given up

labels = Labels(LABELS)


def generate(
    source: Sequence[Pair],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    random_per_query: Annotated[int, between(0, 1_000)] | Literal["balanced"] = "balanced",
) -> Iterator[Packed]:
    """Yields the log's own pairs, and pairs of class 2.

    `random_per_query`: random titles for each query, or "balanced": as many in all as the mean of classes 0
    and 1."""
    shown: dict[str, set[str]] = {}
    queries, titles, made = {}, [], []
    source = [pair for pair in source if len(pair.query) and len(pair.title)]
    for pair in source:
        query, title = pair.query.text, pair.title.text
        queries.setdefault(query, pair.query)
        shown.setdefault(query, set()).add(title)
        titles.append(title)
        made.append((pair.query, pair.title, pair.label))
    wanted = round(len(source) / 2) if random_per_query == "balanced" else random_per_query * len(queries)
    names = list(queries)
    order = rng.permutation(len(names))
    draws = rng.integers(max(len(source), 1), size=(wanted, _TRIES)).tolist()
    for i, row in enumerate(draws):
        query = names[order[i % len(names)]]
        other = next((j for j in row if titles[j] not in shown[query]), None)
        if other is None:
            packer.reject("", "no other query's title in its block", query)
        else:
            made.append((queries[query], source[other].title, 2))
    if made:
        stretches = [((one.first, one.last), (other.first, other.last)) for one, other, _ in made]
        labels = np.array([label for *_, label in made])
        yield packer.pack_many(made[0][0].tokens, np.array(stretches), labels)
