"""Knowledge masking: whole units, 15%, 80/10/10, the same expected rate at every level."""

from __future__ import annotations

import numpy as np
import pytest

from ernie2.masking import draw_masks, units_of
from ernie2.shards import Example

V, MASK = 100, 3
CONTINUATION = np.zeros(V, bool)
CONTINUATION[90:] = True
ORDINARY = np.arange(5, V)


def example(length: int = 60, unit: int = 3) -> Example:
    ids = np.concatenate([[1], 10 + np.arange(length) % 70, [2]]).astype(np.uint16)
    words = np.concatenate([[-1], np.arange(length), [-1]])
    spans = {
        level: np.where(words < 0, -1, words // width).astype(np.int16)
        for level, width in (("word", 2), ("phrase", unit), ("entity", unit + 1))
    }
    return Example(ids, np.zeros(length + 2, np.int8), spans)


def draw(sample: Example, level: str, seed: int, prob: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    return draw_masks(sample, level, CONTINUATION, MASK, ORDINARY, prob, np.random.default_rng(seed))


@pytest.mark.parametrize("level", ["basic", "word", "phrase", "entity"])
def test_units_are_masked_whole_and_special_tokens_never(level):
    sample = example()
    units = units_of(sample, level, CONTINUATION)
    for seed in range(50):
        ids, positions = draw(sample, level, seed)
        chosen = np.zeros(len(ids), bool)
        chosen[positions] = True
        assert not chosen[0] and not chosen[-1]
        for unit in set(units[units >= 0].tolist()):
            assert len(set(chosen[units == unit].tolist())) == 1
        assert np.array_equal(ids[~chosen], sample.token_ids[~chosen])


@pytest.mark.parametrize("level", ["basic", "word", "phrase", "entity"])
def test_rates(level):
    """15% of tokens predicted at every level; of them 80% [MASK], 10% random, 10% kept (4 standard deviations
    allowed)."""
    sample = example(120)
    tokens = predicted = masked = kept = 0
    for seed in range(1500):
        ids, positions = draw(sample, level, seed)
        tokens += 120
        predicted += len(positions)
        masked += int((ids[positions] == MASK).sum())
        kept += int((ids[positions] == sample.token_ids[positions]).sum())
    width = {"basic": 1, "word": 2, "phrase": 3, "entity": 4}[level]
    assert predicted / tokens == pytest.approx(0.15, abs=4 * np.sqrt(0.15 * 0.85 * width / tokens))
    assert masked / predicted == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / predicted))
    assert kept / predicted == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=4 * np.sqrt(0.09 / predicted))


def test_pieces_of_an_english_word_are_one_basic_unit():
    ids = np.array([1, 10, 90, 91, 11, 2], np.uint16)
    spans = {level: np.array([-1, 0, 0, 0, 1, -1], np.int16) for level in ("word", "phrase", "entity")}
    assert units_of(Example(ids, np.zeros(6, np.int8), spans), "basic", CONTINUATION).tolist()[1:-1] == [
        2,
        2,
        2,
        3,
    ]


def test_something_is_always_predicted_and_draws_repeat():
    sample = example(4)
    for seed in range(100):
        assert len(draw(sample, "word", seed, 0.001)[1]) >= 1
    first, second = draw(sample, "word", 5), draw(sample, "word", 5)
    assert all(np.array_equal(a, b) for a, b in zip(first, second))


def test_nothing_maskable():
    spans = {level: np.array([-1, -1], np.int16) for level in ("word", "phrase", "entity")}
    ids, positions = draw(Example(np.array([1, 2]), np.zeros(2, np.int8), spans), "word", 0)
    assert len(positions) == 0 and ids.tolist() == [1, 2]
