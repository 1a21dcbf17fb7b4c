"""data_gen.packing: framing, span ids, truncation, and cutting documents into stretches."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.packing import Packer, Run, assemble, fill, fit
from data_gen.text.tokens import ALL_LEVELS, ENTITY, WORD, Sentence, Tokens
from ernie2.shards import IGNORED, LEVELS, Example

CLS, SEP = 1, 2


def sentences(*given: tuple) -> list[Sentence]:
    """Sentences of one table: each is (tokens of each word, first token id, words [a, b) that are one phrase
    or None)."""
    ids, begins, edges = [], [], [0]
    for words, first_id, phrase in given:
        for number, size in enumerate(words):
            inside_phrase = phrase is not None and phrase[0] < number < phrase[1]
            begins += [WORD | ENTITY if inside_phrase else ALL_LEVELS] + [0] * (size - 1)
        ids += range(first_id, first_id + sum(words))
        edges.append(len(ids))
    places = np.arange(len(ids), dtype=np.int32)
    tokens = Tokens(
        "x" * len(ids),
        np.array(ids, np.int32),
        places,
        places + np.int32(1),
        np.array(begins, np.uint8),
        np.zeros(len(ids), bool),
    )
    return [Sentence(tokens, a, b, a, b) for a, b in zip(edges, edges[1:])]


def sentence(words: list[int], first_id: int = 10, phrase: tuple[int, int] | None = None) -> Sentence:
    return sentences((words, first_id, phrase))[0]


def pack(packer: Packer, *arguments: object, **named: object) -> Example:
    return assemble([packer.pack(*arguments, **named)], packer).examples()[0]


def test_frames_segments_with_ids_of_their_own() -> None:
    a, b, c = sentences(([1, 2], 10, None), ([2], 20, None), ([1], 30, None))
    example = pack(Packer(CLS, SEP, 32), [[a, b], [c]], sentence_label=7)
    assert example.token_ids.tolist() == [CLS, 10, 11, 12, 20, 21, SEP, 30, SEP]
    assert example.sentence_ids.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert example.span_ids["word"].tolist() == [-1, 0, 1, 1, 2, 2, -1, 3, -1]
    assert example.sentence_label == 7 and example.token_labels is None
    assert example.sentence_ids.dtype == np.int8 and all(
        example.span_ids[level].dtype == np.int16 for level in LEVELS
    )


def test_token_labels_follow_their_tokens() -> None:
    run = Run.of([sentence([1, 1, 1])], np.array([1, 0, 1], np.int8))
    example = pack(Packer(CLS, SEP, 5), [run])
    assert example.token_labels.tolist() == [IGNORED, 1, 0, 1, IGNORED]
    assert pack(Packer(CLS, SEP, 4), [run]).token_labels.tolist() == [IGNORED, 1, 0, IGNORED]


def test_more_than_four_segments_share_the_last_sentence_id() -> None:
    example = pack(Packer(CLS, SEP, 64), [[one] for one in sentences(*[([1], 10, None)] * 6)])
    assert example.sentence_ids.max() == 3 and (example.token_ids == SEP).sum() == 6


@pytest.mark.parametrize(
    ("lengths", "capacity", "kept"),
    [
        ((5, 100), 50, [5, 45]),
        ((60, 100), 50, [25, 25]),
        ((60, 100), 51, [26, 25]),
        ((3, 4), 7, [3, 4]),
        ((10, 3, 50, 50), 64, [10, 3, 26, 25]),
        ((50, 50, 50, 50), 10, [3, 3, 2, 2]),
    ],
)
def test_fit_takes_from_the_longest(lengths: tuple[int, ...], capacity: int, kept: list[int]) -> None:
    assert fit(lengths, capacity) == kept


def test_truncation_keeps_words_and_phrases_whole() -> None:
    a = sentence([1, 1, 1, 2, 2], phrase=(3, 5))  # tokens 3..6 are one phrase of two words
    assert pack(Packer(CLS, SEP, 7), [[a]]).token_ids.tolist() == [CLS, 10, 11, 12, SEP]
    # Without its phrase less than half would be left: cut at the end of a word.
    b = sentence([1, 2, 2, 2], phrase=(1, 4))
    assert pack(Packer(CLS, SEP, 8), [[b]]).token_ids.tolist() == [CLS, 10, 11, 12, 13, 14, SEP]
    # A word that fills the example alone is cut anywhere.
    assert pack(Packer(CLS, SEP, 8), [[sentence([20])]]).token_ids.tolist() == [CLS, *range(10, 16), SEP]


@pytest.mark.parametrize("max_seq_len", [16, 17, 31])
def test_packed_pairs_never_exceed_the_limit(max_seq_len: int) -> None:
    rng = np.random.default_rng(0)
    packer = Packer(CLS, SEP, max_seq_len)
    for _ in range(200):
        counts = rng.integers(1, 3, rng.integers(1, 5)).tolist()
        table = iter(
            sentences(
                *((rng.integers(1, 4, rng.integers(1, 12)).tolist(), 10, None) for _ in range(sum(counts)))
            )
        )
        example = pack(packer, [[next(table) for _ in range(count)] for count in counts])
        assert len(example.token_ids) <= max_seq_len
        for level in LEVELS:
            ids = example.span_ids[level]
            assert ((ids == -1) == np.isin(example.token_ids, [CLS, SEP])).all()
            inside = ids[ids >= 0]
            assert (np.diff(inside) >= 0).all() and inside[0] == 0
            for unit in np.unique(inside):  # a unit is one unbroken stretch in one segment
                places = np.flatnonzero(ids == unit)
                assert places[-1] - places[0] == len(places) - 1


@pytest.mark.parametrize("short_seq_prob", [0.0, 0.5])
def test_fill_uses_every_token_once(short_seq_prob: float) -> None:
    rng = np.random.default_rng(1)
    table = sentences(*((rng.integers(1, 4, rng.integers(1, 30)).tolist(), 10, None) for _ in range(60)))
    runs = list(fill(table, 20, rng, short_seq_prob))
    assert [(run.first, run.last) for run in runs][0][0] == 0 and runs[-1].last == len(table[0].tokens)
    assert all(a.last == b.first for a, b in zip(runs, runs[1:]))
    assert max(map(len, runs)) <= 20


def test_fill_ends_at_sentence_ends_where_it_can() -> None:
    table = sentences(*[([1] * 6, 10, None)] * 5)
    assert [len(run) for run in fill(table, 13, np.random.default_rng(0), 0.0)] == [12, 12, 6]


def test_fill_survives_a_unit_longer_than_a_stretch() -> None:
    runs = list(fill(sentences(([50], 10, None), ([3], 10, None)), 16, np.random.default_rng(0), 0.0))
    assert sum(map(len, runs)) == 53 and max(map(len, runs)) <= 16


def test_examples_assembled_together_are_those_assembled_alone() -> None:
    rng = np.random.default_rng(2)
    table = sentences(*((rng.integers(1, 4, rng.integers(1, 12)).tolist(), 10 * i, None) for i in range(40)))
    packer = Packer(CLS, SEP, 24)
    made = []
    for i in range(39):
        run = Run.of([table[i]], np.arange(len(table[i]), dtype=np.int8) % 3) if i % 2 else [table[i]]
        made.append(packer.pack([run, [table[i + 1]]], i))
    for whole, one in zip(assemble(made, packer).examples(), made, strict=True):
        alone = assemble([one], packer).examples()[0]
        assert (
            whole.token_ids.tolist() == alone.token_ids.tolist()
            and whole.sentence_label == alone.sentence_label
        )
        assert whole.sentence_ids.tolist() == alone.sentence_ids.tolist()
        assert all(whole.span_ids[level].tolist() == alone.span_ids[level].tolist() for level in LEVELS)
        expected = (
            alone.token_labels if alone.token_labels is not None else np.full(len(whole.token_ids), IGNORED)
        )
        assert whole.token_labels.tolist() == expected.tolist()
    order = rng.permutation(len(made))
    for whole, number in zip(assemble(made, packer, order).examples(), order.tolist(), strict=True):
        assert whole.token_ids.tolist() == assemble([made[number]], packer).examples()[0].token_ids.tolist()


@pytest.mark.parametrize("keep_joint", [False, True])
def test_examples_packed_together_are_those_packed_alone(keep_joint: bool) -> None:
    rng = np.random.default_rng(3)
    table = sentences(*((rng.integers(1, 4, rng.integers(1, 16)).tolist(), 10 * i, None) for i in range(40)))
    packer, pairs, labels = Packer(CLS, SEP, 24), rng.integers(40, size=(30, 2)), np.arange(30)
    alone = [
        packer.pack([[table[a]], [table[b]]], label, keep_joint)
        for (a, b), label in zip(pairs, labels.tolist())
    ]
    edges = np.array([(one.first, one.last) for one in table])
    together = packer.pack_many(table[0].tokens, edges[pairs], labels, keep_joint)
    assert len(together) == 30 and len(alone) == 30
    assert together.stretches.tolist() == [one.stretches[0].tolist() for one in alone]
    for mixed in (
        assemble([together], packer),
        assemble(
            [*alone[:7], packer.pack_many(table[0].tokens, edges[pairs[7:]], labels[7:], keep_joint)], packer
        ),
    ):
        for one, example in zip(alone, mixed.examples(), strict=True):
            assert example.token_ids.tolist() == assemble([one], packer).examples()[0].token_ids.tolist()
            assert example.sentence_label == one.labels[0]
