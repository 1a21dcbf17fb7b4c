"""Chance levels and the meter: counts, not impressions."""

from __future__ import annotations

import numpy as np
import pytest

from ernie2.config import Recipe, build
from ernie2.evaluate import Meter, _frequency_guess, evaluate
from ernie2.run import prepare_run
from ernie2.strict import apply_overrides


def test_frequency_guess():
    """Group 0 trained on 3 of class 1 and 1 of class 0, group 1 on class 2 alone."""
    accuracy, loss = _frequency_guess(
        np.array([0, 0, 1, 1]),
        np.array([1, 0, 2, 2]),
        np.array([0, 0, 0, 0, 1]),
        np.array([1, 1, 1, 0, 2]),
        3,
    )
    assert accuracy == 3 / 4
    assert loss == pytest.approx(-(np.log(4 / 7) + np.log(2 / 7) + 2 * np.log(2 / 4)) / 4)
    accuracy, loss = _frequency_guess(np.array([9]), np.array([1]), np.array([0]), np.array([1]), 2)
    assert accuracy == 0.0 and loss == pytest.approx(np.log(2)), (
        "a group never seen: uniform, and the guess is class 0"
    )


def test_evaluation_is_repeatable_and_counts_everything(tiny_recipe):
    run = prepare_run(build(Recipe, apply_overrides(tiny_recipe, ["runtime.eval_tokens=100000"]), "t"), "t")
    for name in ("cover", "order", "label"):
        dev = run.dev_set(name)
        assert sum(len(batch.lengths) for batch in dev.batches) == 24
        first, second = evaluate(run.model, dev), evaluate(run.model, dev)
        assert first == second and run.model.training
        assert (
            first["losses"].keys()
            == first["accuracy"].keys()
            == first["chance"].keys()
            == {x.head for x in dev.task.losses}
        )
    assert first["losses"]["masked_lm"] == pytest.approx(np.log(64), rel=0.1), (
        "random weights: the vocabulary's entropy"
    )


def test_special_tokens_are_no_guess(tiny_recipe):
    """[SEP] is the commonest token of short texts, but never predicted: chance is that of the commonest real
    token."""
    run = prepare_run(build(Recipe, tiny_recipe, "t"), "t")
    dev = run.dev_set("order")
    reader = run.streams["order"].reader
    tokens = np.concatenate(
        [
            reader.array(0, "token_ids")[reader.array(0, "span_ids_word") >= 0],
            reader.array(1, "token_ids")[reader.array(1, "span_ids_word") >= 0],
        ]
    )
    commonest = np.bincount(tokens).argmax()
    labels = np.concatenate([batch.mlm_labels for batch in dev.batches])
    assert commonest > run.collate.vocab.unk_id
    assert dev.chance["masked_lm"] == np.mean(labels == commonest)


def test_meter_counts_once(tiny_recipe):
    run = prepare_run(build(Recipe, tiny_recipe, "t"), "t")
    stream = run.streams["label"]
    batches = [
        stream.micro_batch(0, i, samples, ["word"], run.collate) for i, samples in enumerate(stream.batch(0))
    ]
    meter = Meter(tokens=1000)
    counts = meter.global_counts(batches)
    assert counts == {
        ("label", "masked_lm"): sum(len(b.mlm_labels) for b in batches),
        ("label", "token"): sum(len(b.token_labels) for b in batches),
    }
    for batch in batches:
        meter.add(batch, run.model(batch))
    meter.waited = 0.5
    (record,) = meter.records(7, 2, 1e-3, 0.5, 1.0)
    assert record["tokens"] == sum(b.tokens for b in batches) and meter.tokens == 1000 + record["tokens"]
    assert record["padded_tokens"] == sum(b.padded_tokens for b in batches)
    assert record["loss"] == pytest.approx(record["losses"]["token"] + 0.5 * record["losses"]["masked_lm"])
    assert (record["step"], record["stage"], record["task"], record["lr"]) == (7, 2, "label", 1e-3)
    assert 0 <= record["accuracy"]["token"] <= 1 and record["data_wait_share"] > 0
    assert meter.records(8, 2, 1e-3, 0.5, 1.0) == []
