"""Batches: every sample once an epoch, small padding, equal cost, the same global batch whatever the
micro-batches."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ernie2.batching import Collator, TaskStream, dev_batches, even_cuts, padded_width, prefetch
from ernie2.config import Recipe, build
from ernie2.run import prepare_run
from ernie2.shards import ShardReader
from ernie2.strict import apply_overrides
from ernie2.tokenizer import Vocab


def stream(mapping: dict, name: str, tasks: dict, *overrides: str) -> TaskStream:
    recipe = build(Recipe, apply_overrides(mapping, overrides), "test")
    return TaskStream(
        ShardReader(f"{recipe.data.shards_dir}/{name}", "train", tasks[name]), tasks[name], recipe
    )


def test_every_sample_comes_once_an_epoch(tiny_recipe, tiny_tasks):
    """120 samples in 3 shards: over k epochs of the stream every sample is met k times, give or take the
    cut."""
    source = stream(tiny_recipe, "cover", tiny_tasks)
    pools = 3 * source.reader.tokens // (4 * 256)
    counts = np.zeros(len(source.reader), int)
    for n in range(pools * 4):
        for part in source.batch(n):
            np.add.at(counts, part, 1)
    assert (
        counts.min() >= 2
        and counts.max() <= 3
        and counts.mean() == pytest.approx(pools * 1024 / source.reader.tokens, rel=0.02)
    )


def test_micro_batches_are_alike_and_padding_is_small(tiny_recipe, tiny_tasks):
    source = stream(tiny_recipe, "cover", tiny_tasks, "batch.pool_batches=16")
    lengths = source.reader.lengths()
    real = padded = 0
    sizes = []
    for n in range(16):
        parts = source.batch(n)
        assert len(parts) == 2
        for part in parts:
            sizes.append(lengths[part].sum())
            real += lengths[part].sum()
            padded += len(part) * lengths[part].max()
    assert 1 - real / padded < 0.05
    assert np.mean(sizes) == pytest.approx(128, rel=0.03) and max(sizes) < 128 + 2 * lengths.max()


class _Lengths:
    """A reader of one shard that knows nothing but the lengths of its samples."""

    folder, first_sample = "shard", [0]

    def __init__(self, lengths: np.ndarray) -> None:
        self._offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.tokens = int(lengths.sum())
        self.shard_tokens = np.array([self.tokens])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def array(self, shard: int, name: str) -> np.ndarray:
        return self._offsets

    def lengths(self) -> np.ndarray:
        return np.diff(self._offsets)


@pytest.mark.parametrize(
    ("lengths", "most"),
    [
        (np.concatenate([np.full(8_000, 32), np.full(500, 512)]), 1.05),  # 15 or 16 of the long ones: 6%
        (np.random.default_rng(1).integers(20, 513, 12_000), 1.04),
        (np.minimum(np.random.default_rng(2).lognormal(5.8, 0.6, 8_000).astype(int) + 8, 512), 1.03),
    ],
    ids=["short and long", "of any length", "as documents fall"],
)
def test_ranks_of_a_large_step_cost_alike(tiny_recipe, tiny_tasks, lengths, most):
    """The paper's batch on 8 and 48 ranks: the costliest a few per cent above the mean, padding below 3%."""
    overrides = [
        "model.size=base",
        "model.max_position_embeddings=512",
        "data.max_seq_len=512",
        "batch.tokens=393_216",
        "batch.micro_tokens=8_192",
    ]
    recipe = build(Recipe, apply_overrides(tiny_recipe, overrides), "test")
    shuffled = np.random.default_rng(0).permutation(lengths)
    source = TaskStream(_Lengths(shuffled), tiny_tasks["cover"], recipe)
    for ranks in (8, 48):
        imbalance, padding = source.imbalance(ranks, 32)
        assert 1 <= imbalance < most and 0 <= padding < 0.03, (ranks, imbalance, padding)
    tokens = [shuffled[part].sum() for part in source.batch(0)]
    assert abs(np.mean(tokens) / 8_192 - 1) < 0.05 and max(tokens) > 1.05 * min(tokens)


def test_even_cuts_take_every_sample_once():
    costs = np.sort(np.random.default_rng(0).random(50)) + 0.1
    for groups in (1, 7, 50, 60):
        edges = even_cuts(costs, groups)
        assert len(edges) == groups + 1 and edges[0] == 0 and edges[-1] == 50 and (np.diff(edges) >= 0).all()
    assert np.diff(even_cuts(np.ones(48), 6)).tolist() == [8] * 6
    assert np.diff(even_cuts(np.array([1.0, 1, 1, 1, 50]), 4)).tolist()[-1] == 1


def test_batch_is_a_pure_function_of_its_number(tiny_recipe, tiny_tasks):
    one, two = (stream(tiny_recipe, "order", tiny_tasks) for _ in range(2))
    forwards = [one.batch(n) for n in range(30)]
    backwards = [two.batch(n) for n in reversed(range(30))][::-1]
    assert all(np.array_equal(a, b) for x, y in zip(forwards, backwards) for a, b in zip(x, y, strict=True))
    other = stream(tiny_recipe, "order", tiny_tasks, "seed=4")
    assert not all(np.array_equal(a, b) for a, b in zip(one.batch(0), other.batch(0)))


def test_global_batch_does_not_depend_on_micro_batches(tiny_recipe, tiny_tasks):
    """With a pool of one batch the samples of a global batch are the same list however it is cut."""
    samples = [
        np.sort(
            np.concatenate(
                stream(
                    tiny_recipe, "cover", tiny_tasks, "batch.pool_batches=1", f"batch.micro_tokens={micro}"
                ).batch(5)
            )
        )
        for micro in (32, 64, 256)
    ]
    assert np.array_equal(samples[0], samples[1]) and np.array_equal(samples[0], samples[2])


def test_a_sample_longer_than_a_group_is_not_lost(tiny_recipe, tiny_tasks):
    source = stream(
        tiny_recipe, "cover", tiny_tasks, "batch.tokens=32", "batch.micro_tokens=32", "batch.pool_batches=8"
    )
    for n in range(64):
        assert all(len(part) for part in source.batch(n))


def test_collate(tiny_recipe, tiny_tasks):
    vocab = Vocab.load(tiny_recipe["model"]["vocab_file"])
    collate = Collator(vocab, 0.15)
    for name, task in tiny_tasks.items():
        source = stream(tiny_recipe, name, tiny_tasks)
        samples = source.batch(3)[0]
        batch = source.micro_batch(3, 0, samples, ["basic", "entity"], collate)
        assert (
            batch.token_ids.shape == (len(samples), batch.lengths.max())
            and batch.tokens == batch.lengths.sum()
        )
        restored = batch.token_ids.reshape(-1).copy()
        restored[batch.mlm_positions] = batch.mlm_labels
        for row, i in enumerate(samples):
            example, start = source.reader[int(i)], row * batch.token_ids.shape[1]
            length = len(example.token_ids)
            assert np.array_equal(restored[start : start + length], example.token_ids)
            assert (batch.token_ids[row, length:] == vocab.pad_id).all()
        assert set(batch.counts()) == {loss.head for loss in task.losses} and min(batch.counts().values()) > 0
        if task.token_classes:
            assert np.array_equal(batch.token_labels, restored[batch.token_positions] % 2)
        again = source.micro_batch(3, 0, samples, ["basic", "entity"], collate)
        assert np.array_equal(again.token_ids, batch.token_ids)


@pytest.mark.parametrize(
    ("precision", "positions", "widths"),
    [
        ("fp32", 32, {1: 1, 13: 13, 16: 16, 30: 30}),
        ("fp16", 32, {1: 8, 13: 16, 16: 16, 30: 32}),
        ("bf16", 30, {13: 16, 25: 30, 30: 30}),
    ],
)
def test_widths_in_half_precision_are_multiples_of_eight_within_the_positions(precision, positions, widths):
    assert {longest: padded_width(longest, precision, positions) for longest in widths} == widths


def test_batches_in_half_precision_hold_the_same_samples(tiny_recipe, half_on_cpu):
    """Training and dev batches; what is predicted stands where it stood."""
    for name in ("cover", "order", "label"):
        runs = [
            prepare_run(build(Recipe, apply_overrides(tiny_recipe, [f"runtime.precision={p}"]), "r"), "r")
            for p in ("fp32", "fp16")
        ]
        pairs = zip(*(run.dev_set(name).batches for run in runs), strict=True)
        samples = runs[0].streams[name].batch(0)[0]
        pairs = [
            *pairs,
            [run.streams[name].micro_batch(0, 0, samples, ["word"], run.collate) for run in runs],
        ]
        assert any(plain.token_ids.shape[1] % 8 for plain, _ in pairs)
        for plain, wide in pairs:
            width = plain.token_ids.shape[1]
            assert (
                wide.token_ids.shape[1] == -(-width // 8) * 8 <= 32 and (wide.token_ids[:, width:] == 0).all()
            )
            assert np.array_equal(plain.token_ids, wide.token_ids[:, :width])
            for positions in ("mlm_positions", "token_positions"):
                rows, columns = np.divmod(getattr(plain, positions), width)
                assert np.array_equal(getattr(wide, positions), rows * wide.token_ids.shape[1] + columns)


def test_dev_batches_are_fixed(tiny_recipe, tiny_tasks):
    collate = Collator(Vocab.load(tiny_recipe["model"]["vocab_file"]), 0.15)
    reader = ShardReader(f"{tiny_recipe['data']['shards_dir']}/label", "dev", tiny_tasks["label"])
    first, again = (
        dev_batches(reader, tiny_tasks["label"], collate, ["word"], 1, 10_000, 128) for _ in range(2)
    )
    assert sum(len(batch.lengths) for batch in first) == len(reader)
    assert all(np.array_equal(a.token_ids, b.token_ids) for a, b in zip(first, again, strict=True))
    assert all(batch.padded_tokens <= 128 for batch in first)
    assert (
        sum(len(b.lengths) for b in dev_batches(reader, tiny_tasks["label"], collate, ["word"], 1, 100, 128))
        < 10
    )


def test_prefetch_keeps_order_and_hands_errors_over():
    def items():
        for i in range(5):
            time.sleep(0.001)
            yield i
        raise RuntimeError("broken")

    got = []
    with pytest.raises(RuntimeError, match="broken"):
        for item in prefetch(items()):
            got.append(item)
    assert got == list(range(5))
