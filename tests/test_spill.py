"""data_gen.rows, spill and merge: examples between the workers and the shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_gen.rows import Rows, check_rows
from data_gen.spill import Spill, bucket_of, class_limits, read_buckets, thin, write_spill
from ernie2.config import ConfigError
from ernie2.shards import LEVELS, Example
from ernie2.tasks import Task, load_tasks


def tagged(block: int, i: int) -> Example:
    """An example of 3 to 5 tokens that names its block and place; class 1 is rare."""
    ids = np.array([block, i, *range(1 + i % 3)], np.int32)
    spans = np.arange(len(ids), dtype=np.int16)
    return Example(
        ids,
        np.zeros(len(ids), np.int8),
        {level: spans for level in LEVELS},
        (ids % 2).astype(np.int8),
        int(i % 10 == 0),
    )


def rows_of(examples: list[Example]) -> Rows:
    """The examples end to end."""
    lengths = np.array([len(one.token_ids) for one in examples], np.int32)
    codes = np.concatenate([one.token_ids for one in examples]).astype(np.uint32) << 8
    codes |= np.concatenate([one.sentence_ids for one in examples]).astype(np.uint32) << 4
    for bit, level in enumerate(LEVELS):
        starts = np.concatenate([np.diff(one.span_ids[level], prepend=-1) != 0 for one in examples])
        spans = np.concatenate([one.span_ids[level] for one in examples])
        codes |= (starts & (spans >= 0)).astype(np.uint32) << bit | np.where(
            spans < 0, np.uint32(8), np.uint32(0)
        )
    has_labels = examples[0].token_labels is not None
    return Rows(
        lengths,
        np.array([one.sentence_label for one in examples], np.int32),
        codes,
        np.concatenate([one.token_labels for one in examples]) if has_labels else None,
    )


@pytest.fixture()
def task() -> Task:
    return load_tasks()["sentence_distance"]


def spilled(
    folder: Path, task: Task, counts: list[int], buckets: int, make: Callable[[int, int], Example] = tagged
) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for block, count in enumerate(counts):
        keys = np.sort(rng.integers(2**64, size=count, dtype=np.uint64))
        rows = rows_of([make(block, i) for i in rng.permutation(count).tolist()])
        paths.append(folder / f"{buckets}.block{block}")
        write_spill(paths[-1], keys, rows, buckets)
    return paths


def merged(paths: list[Path], buckets: int, thinning: object = None) -> list[Example]:
    half = (buckets + 1) // 2
    found = [
        *read_buckets(paths, range(half), thinning),
        *read_buckets(paths, range(half, buckets), thinning),
    ]
    return [example for rows in found if rows is not None for example in rows.examples()]


def test_rows_and_examples_are_the_same_thing(task: Task) -> None:
    ids = np.array([1, 10, 11, 12, 2, 20, 21, 2], np.int32)
    spans = {
        "word": np.array([-1, 0, 0, 1, -1, 2, 3, -1], np.int16),
        "phrase": np.array([-1, 0, 0, 0, -1, 1, 1, -1], np.int16),
        "entity": np.array([-1, 0, 0, 1, -1, 2, 3, -1], np.int16),
    }
    given = Example(ids, np.array([0, 0, 0, 0, 0, 1, 1, 1], np.int8), spans, None, 2)
    rows = rows_of([given, given])
    for back in rows.examples():
        assert back.token_ids.tolist() == ids.tolist() and back.sentence_label == 2
        assert back.sentence_ids.tolist() == given.sentence_ids.tolist()
        assert {level: back.span_ids[level].tolist() for level in LEVELS} == {
            k: v.tolist() for k, v in spans.items()
        }
    fields = rows.fields(task, 100)
    assert fields["offsets"].tolist() == [0, 8, 16] and fields["token_ids"].dtype == np.uint16
    assert fields["span_ids_phrase"].tolist() == spans["phrase"].tolist() * 2
    assert fields["sentence_label"].tolist() == [2, 2] and "token_labels" not in fields


def test_span_counts_may_pass_the_range_of_int16(task: Task) -> None:
    """The counts run through a whole shard: 40,000 units in, the spans of an example still begin at 0."""
    count = 40
    ids = np.arange(1_000, dtype=np.int32)
    spans = np.arange(1_000, dtype=np.int16)
    one = Example(ids, np.zeros(1_000, np.int8), {level: spans for level in LEVELS}, None, 0)
    fields = rows_of([one] * count).fields(task, 70_000)
    assert (fields["span_ids_word"].reshape(count, -1) == spans).all() and fields[
        "token_ids"
    ].dtype == np.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([3], np.int32)}, "sentence_label: got 3, expected 0 to 2"),
        ({"labels": np.array([-1], np.int32)}, "sentence_label: got None"),
        ({"codes": np.array([5, 9, 100], np.uint32) << 8}, "ids from 5 to 100, expected 0 to 99"),
    ],
)
def test_a_broken_contract_is_named(task: Task, change: dict, message: str) -> None:
    rows = Rows(np.array([3], np.int32), np.array([0], np.int32), np.array([5, 9, 9], np.uint32) << 8, None)
    check_rows(rows, task, 100)
    for name, value in change.items():
        setattr(rows, name, value)
    with pytest.raises(ConfigError, match=message):
        check_rows(rows, task, 100)


def test_merge_is_a_shuffle_and_the_same_for_any_number_of_buckets(tmp_path: Path, task: Task) -> None:
    orders = []
    for buckets in (1, 3, 50):
        paths = spilled(tmp_path, task, [40, 1, 70], buckets)
        orders.append([tuple(e.token_ids[:2].tolist()) for e in merged(paths, buckets)])
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == [(b, i) for b, n in enumerate([40, 1, 70]) for i in range(n)]
    assert orders[0] != sorted(orders[0])
    for example in merged(paths, 50):
        whole = tagged(*example.token_ids[:2].tolist())
        assert (
            example.token_ids.tolist() == whole.token_ids.tolist()
            and example.sentence_label == whole.sentence_label
        )
        assert example.token_labels.tolist() == whole.token_labels.tolist()
        assert all((example.span_ids[level] == whole.span_ids[level]).all() for level in LEVELS)


def test_buckets_part_the_keys_evenly() -> None:
    keys = np.sort(np.random.default_rng(0).integers(2**64, size=10_000, dtype=np.uint64))
    found = bucket_of(keys, 7)
    assert (np.diff(found) >= 0).all() and found.min() == 0 and found.max() == 6
    assert np.bincount(found).min() > 1_200


def test_thinning_keeps_as_many_of_each_class_as_allowed(tmp_path: Path, task: Task) -> None:
    paths = spilled(tmp_path, task, [100, 100], 3)
    thinning = thin(paths, np.array([45, 20, 0]))
    kept = merged(paths, 3, thinning)
    labels = [example.sentence_label for example in kept]
    assert (labels.count(0), labels.count(1)) == (45, 20)
    assert {int(example.token_ids[0]) for example in kept} == {0, 1}
    assert 2 < labels[:32].count(1) < 20  # thinning does not push a class to one end


@pytest.mark.parametrize(
    ("counts", "balance", "cap", "kept"),
    [
        ([100, 10, 10, 1], 2.0, None, [20, 10, 10, 1]),
        ([5, 5, 5], 1.0, None, [5, 5, 5]),
        ([9, 0, 3], 1.0, None, [6, 0, 3]),
        ([50, 1, 1], 0.5, None, [1, 1, 1]),
        ([50, 9, 1], None, 10, [10, 9, 1]),
        ([100, 10, 10, 1], 2.0, 12, [12, 10, 10, 1]),
        ([0, 0], 1.0, None, [0, 0]),
    ],
)
def test_limits_of_classes(
    counts: list[int], balance: float | None, cap: int | None, kept: list[int]
) -> None:
    assert class_limits(np.array(counts), balance, cap).tolist() == kept


def test_an_empty_bucket_is_none(tmp_path: Path, task: Task) -> None:
    [path] = spilled(tmp_path, task, [2], 50)
    found = list(read_buckets([path], range(50), None))
    assert len(found) == 50 and 1 <= sum(rows is not None for rows in found) <= 2
    assert list(read_buckets([], range(3), None)) == [None] * 3
    with Spill(path) as spill:
        keys, labels = spill.labels()
    assert len(keys) == 2 and labels.dtype == np.int32
