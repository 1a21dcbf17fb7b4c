"""Knowledge masking (ERNIE 1.0): draws what the masked LM predicts, from span ids. numpy in, numpy out; no
tensors.

Shapes: T tokens of one sample. The released rule (`batching.py`, ERNIE issue 33): a unit is chosen with
probability mask_prob; then each of its tokens separately becomes [MASK] (80%), a random token (10%) or stays
(10%); every token of a chosen unit is a prediction target. So the expected share of predicted tokens is
mask_prob at every level (issue 550)."""

from __future__ import annotations

import numpy as np

from ernie2.shards import LEVELS, Example

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


def units_of(example: Example, level: str, continuation: np.ndarray) -> np.ndarray:
    """Span ids int (T) at a masking level: equal id = masked together, -1 = never masked.

    Args:
        example: with span_ids of the levels kept in shards. level: "basic" (a Chinese character, or a whole
        English word: pieces that begin with ## join the piece before
            them), "word", "phrase" or "entity" (the larger unit where there is one, words elsewhere).
        continuation: bool (V), which vocabulary entries begin with ##."""
    words = example.span_ids[LEVELS[0]]
    if level != "basic":
        return example.span_ids[level]
    starts = ~continuation[example.token_ids]
    return np.where(words < 0, -1, np.cumsum(starts))


def draw_masks(
    example: Example,
    level: str,
    continuation: np.ndarray,
    mask_id: int,
    ordinary_ids: np.ndarray,
    mask_prob: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws masks for one sample.

    Args:
        example: unmasked sample.
        level: masking level, see `units_of`.
        continuation: bool (V).
        mask_id: id of [MASK].
        ordinary_ids: ids a random replacement is drawn from (no special tokens).
        mask_prob: probability that a unit is chosen.
        rng: source of all randomness; the same state gives the same masks.

    Returns:
        (masked token ids int64 (T), positions predicted int64 (M), in order). M is at least 1 where anything
        can be masked: a sample whose draw chose nothing predicts one unit at random, because a batch with
        nothing to predict has no loss (Knover issue 50)."""
    units = units_of(example, level, continuation)
    token_ids = example.token_ids.astype(np.int64)
    maskable = np.flatnonzero(units >= 0)
    if not len(maskable):
        return token_ids, maskable
    # Units are runs of equal ids: number them along the sample, so that every unit has one draw.
    unit_of = units[maskable]
    run = np.concatenate([[0], np.cumsum((unit_of[1:] != unit_of[:-1]) | (np.diff(maskable) != 1))])
    chosen = rng.random(run[-1] + 1) < mask_prob
    if not chosen.any():
        chosen[rng.integers(len(chosen))] = True
    positions = maskable[chosen[run]]
    draw = rng.random(len(positions))
    random_ids = ordinary_ids[rng.integers(len(ordinary_ids), size=len(positions))]
    token_ids[positions] = np.where(
        draw < MASK_SHARE,
        mask_id,
        np.where(draw < MASK_SHARE + RANDOM_SHARE, random_ids, token_ids[positions]),
    )
    return token_ids, positions
