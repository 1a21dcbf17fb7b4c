"""Shards: what is written is read back, wrong examples and damaged folders are refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import tiny_example, write_tiny_shards

from ernie2.shards import Example, ShardReader, ShardWriter
from ernie2.strict import ConfigError
from ernie2.tokenizer import Vocab


@pytest.fixture()
def vocab(tiny_vocab):
    return Vocab.load(tiny_vocab)


def test_round_trip_over_several_shards(tiny_tasks, vocab, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("order", "label"):
        task = tiny_tasks[name]
        writer = ShardWriter(tmp_path / name, task, len(vocab), samples_per_shard=7)
        examples = [tiny_example(task, vocab, rng) for _ in range(17)]
        for example in examples:
            writer.write("train", example)
        index = writer.close({"vocab_digest": "d"})
        reader = ShardReader(tmp_path / name, "train", task, "d")
        assert len(reader) == 17 == index["samples"]["train"] and len(index["shards"]["train"]) == 3
        assert (
            reader.lengths().tolist() == [len(e.token_ids) for e in examples]
            and reader.tokens == reader.lengths().sum()
        )
        for i, expected in enumerate(examples):
            got = reader[i]
            assert (
                np.array_equal(got.token_ids, expected.token_ids)
                and got.sentence_label == expected.sentence_label
            )
            assert np.array_equal(got.sentence_ids, expected.sentence_ids)
            assert all(
                np.array_equal(got.span_ids[level], expected.span_ids[level]) for level in expected.span_ids
            )
            assert (got.token_labels is None) == (expected.token_labels is None)
        with pytest.raises(IndexError):
            reader[17]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("token_ids", np.array([1, 9999]), ["token_ids", "9999", "0 to 63"]),
        ("token_ids", np.array([], int), ["token_ids", "no tokens"]),
        ("sentence_ids", np.array([0, 7]), ["sentence_ids", "7"]),
        ("sentence_ids", np.array([0]), ["sentence_ids", "1 values"]),
        ("span_ids", None, ["span_ids[word]", "nothing"]),
        ("sentence_label", 3, ["sentence_label", "got 3", "0 to 2"]),
        ("sentence_label", None, ["sentence_label", "got None"]),
    ],
)
def test_wrong_examples_are_refused(tiny_tasks, vocab, tmp_path, field, value, words):
    spans = {level: np.array([-1, 0], np.int16) for level in ("word", "phrase", "entity")}
    example = Example(np.array([1, 9]), np.array([0, 0]), spans, None, 0)
    setattr(example, field, value)
    writer = ShardWriter(tmp_path / "order", tiny_tasks["order"], len(vocab))
    with pytest.raises(ConfigError) as error:
        writer.write("train", example)
    assert "task order" in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_wrong_token_labels_are_refused(tiny_tasks, vocab, tmp_path):
    spans = {level: np.array([-1, 0], np.int16) for level in ("word", "phrase", "entity")}
    writer = ShardWriter(tmp_path / "label", tiny_tasks["label"], len(vocab))
    with pytest.raises(ConfigError, match=r"token_labels.*0 to 1, or -100"):
        writer.write("train", Example(np.array([1, 9]), np.array([0, 0]), spans, np.array([-100, 2])))


def test_damaged_folders_are_refused_by_name(tiny_tasks, vocab, tmp_path):
    write_tiny_shards(tmp_path / "s", tiny_tasks, vocab)
    folder, task = tmp_path / "s" / "order", tiny_tasks["order"]
    with pytest.raises(ConfigError, match="another vocabulary"):
        ShardReader(folder, "train", task, "other")
    with pytest.raises(ConfigError, match="holds task 'order', expected 'label'"):
        ShardReader(folder, "train", tiny_tasks["label"])
    victim = folder / "train" / "00001.token_ids.npy"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-10])
    with pytest.raises(ConfigError, match=r"00001.token_ids.npy.*truncated"):
        ShardReader(folder, "train", task)
    victim.write_bytes(whole[:40])
    with pytest.raises(ConfigError, match=r"00001.token_ids.npy.*truncated"):
        ShardReader(folder, "train", task)
    victim.unlink()
    with pytest.raises(ConfigError, match=r"00001.token_ids.npy.*missing"):
        ShardReader(folder, "train", task)
    np.save(victim, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="00001.token_ids.npy"):
        ShardReader(folder, "train", task)
    index = folder / "index.json"
    index.write_text(json.dumps({"format_version": 99}))
    with pytest.raises(ConfigError, match="format version"):
        ShardReader(folder, "train", task)
    index.unlink()
    with pytest.raises(ConfigError, match="no finished shards"):
        ShardReader(folder, "train", task)


def test_an_unfinished_writer_leaves_the_old_shards(tiny_tasks, vocab, tmp_path):
    write_tiny_shards(tmp_path / "s", tiny_tasks, vocab)
    writer = ShardWriter(tmp_path / "s" / "order", tiny_tasks["order"], len(vocab))
    writer.write("train", tiny_example(tiny_tasks["order"], vocab, np.random.default_rng(1)))
    assert len(ShardReader(tmp_path / "s" / "order", "train")) == 120
    writer.abort()
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == sorted(tiny_tasks)
