"""data_gen.packing: framing, span ids, truncation, and cutting documents into stretches."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.annotate import Sentence
from data_gen.packing import Packer, Run, fill, fit
from ernie2.shards import IGNORED, LEVELS

CLS, SEP = 1, 2


def sentence(words: list[int], first_id: int = 10, phrase: tuple[int, int] | None = None) -> Sentence:
    """A sentence of words of the given numbers of tokens; words [a, b) of `phrase` are one phrase."""
    word_ids = np.repeat(np.arange(len(words)), words).astype(np.int16)
    joined = word_ids.copy()
    if phrase is not None:
        joined[(word_ids >= phrase[0]) & (word_ids < phrase[1])] = phrase[0]
        joined = np.unique(joined, return_inverse=True)[1].astype(np.int16)
    length = len(word_ids)
    token_ids, starts = np.arange(first_id, first_id + length, dtype=np.int32), np.arange(length, dtype=np.int32)
    return Sentence("x" * length, token_ids, starts, word_ids, joined, word_ids, np.zeros(length, np.int8))


def test_frames_segments_with_ids_of_their_own() -> None:
    a, b, c = sentence([1, 2]), sentence([2], 20), sentence([1], 30)
    example = Packer(CLS, SEP, 32).pack([[a, b], [c]], sentence_label=7)
    assert example.token_ids.tolist() == [CLS, 10, 11, 12, 20, 21, SEP, 30, SEP]
    assert example.sentence_ids.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert example.span_ids["word"].tolist() == [-1, 0, 1, 1, 2, 2, -1, 3, -1]
    assert example.sentence_label == 7 and example.token_labels is None
    assert example.sentence_ids.dtype == np.int8 and all(example.span_ids[level].dtype == np.int16 for level in LEVELS)


def test_token_labels_follow_their_tokens() -> None:
    run = Run.of([sentence([1, 1, 1])], np.array([1, 0, 1], np.int8))
    example = Packer(CLS, SEP, 5).pack([run])
    assert example.token_labels.tolist() == [IGNORED, 1, 0, 1, IGNORED]
    assert Packer(CLS, SEP, 4).pack([run]).token_labels.tolist() == [IGNORED, 1, 0, IGNORED]


def test_more_than_four_segments_share_the_last_sentence_id() -> None:
    example = Packer(CLS, SEP, 64).pack([[sentence([1])] for _ in range(6)])
    assert example.sentence_ids.max() == 3 and (example.token_ids == SEP).sum() == 6


@pytest.mark.parametrize(("lengths", "capacity", "kept"), [
    ((5, 100), 50, [5, 45]), ((60, 100), 50, [25, 25]), ((60, 100), 51, [26, 25]), ((3, 4), 7, [3, 4]),
    ((10, 3, 50, 50), 64, [10, 3, 26, 25]), ((50, 50, 50, 50), 10, [3, 3, 2, 2])])
def test_fit_takes_from_the_longest(lengths: tuple[int, ...], capacity: int, kept: list[int]) -> None:
    assert fit(lengths, capacity) == kept


def test_truncation_keeps_words_and_phrases_whole() -> None:
    a = sentence([1, 1, 1, 2, 2], phrase=(3, 5))  # tokens 3..6 are one phrase of two words
    assert Packer(CLS, SEP, 7).pack([[a]]).token_ids.tolist() == [CLS, 10, 11, 12, SEP]
    # Without its phrase less than half would be left: cut at the end of a word.
    b = sentence([1, 2, 2, 2], phrase=(1, 4))
    assert Packer(CLS, SEP, 8).pack([[b]]).token_ids.tolist() == [CLS, 10, 11, 12, 13, 14, SEP]
    # A word that fills the example alone is cut anywhere.
    assert Packer(CLS, SEP, 8).pack([[sentence([20])]]).token_ids.tolist() == [CLS, *range(10, 16), SEP]


@pytest.mark.parametrize("max_seq_len", [16, 17, 31])
def test_packed_pairs_never_exceed_the_limit(max_seq_len: int) -> None:
    rng = np.random.default_rng(0)
    packer = Packer(CLS, SEP, max_seq_len)
    for _ in range(200):
        segments = [[sentence(rng.integers(1, 4, rng.integers(1, 12)).tolist()) for _ in range(rng.integers(1, 3))]
                    for _ in range(rng.integers(1, 5))]
        example = packer.pack(segments)
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
    sentences, next_id = [], 10
    for _ in range(60):
        one = sentence(rng.integers(1, 4, rng.integers(1, 30)).tolist(), next_id)
        sentences.append(one)
        next_id += len(one)
    runs = list(fill(sentences, 20, rng, short_seq_prob))
    assert np.concatenate([run.token_ids for run in runs]).tolist() == list(range(10, next_id))
    assert max(map(len, runs)) <= 20
    assert len(set(np.concatenate([np.unique(run.words) for run in runs]).tolist())) == sum(
        int(one.word_ids[-1]) + 1 for one in sentences)


def test_fill_ends_at_sentence_ends_where_it_can() -> None:
    sentences = [sentence([1] * 6) for _ in range(5)]
    assert [len(run) for run in fill(sentences, 13, np.random.default_rng(0), 0.0)] == [12, 12, 6]


def test_fill_survives_a_unit_longer_than_a_stretch() -> None:
    runs = list(fill([sentence([50]), sentence([3])], 16, np.random.default_rng(0), 0.0))
    assert sum(map(len, runs)) == 53 and max(map(len, runs)) <= 16
