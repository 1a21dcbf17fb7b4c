"""Metrics against values worked out by hand, brute force or numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_finetune_readers import make_task

from ernie2.finetune import metrics
from ernie2.finetune.eval import score
from ernie2.finetune.readers import TextSample
from ernie2.finetune.tagging import Entity, entities_of
from ernie2.strict import ConfigError


def test_accuracy_and_f1():
    predicted, labels = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    assert metrics.accuracy(predicted, labels) == 60.0
    assert metrics.f1(predicted, labels) == pytest.approx(100 * 2 / 3)  # 2 right of 3 predicted, 2 of 3 there
    assert metrics.f1(predicted, labels, positive=0) == 50.0
    assert metrics.f1(np.zeros(3), np.ones(3)) == 0.0


def test_macro_f1_is_the_mean_over_all_classes():
    # class 0: 1 right of 2 and 2; class 1: 2 right of 3 and 2; class 2: none of 0 and 1; class 3: in neither
    predicted, labels = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 1, 0])
    assert metrics.macro_f1(predicted, labels, 4) == pytest.approx(100 * (1 / 2 + 4 / 5 + 0 + 0) / 4)


@pytest.mark.parametrize(
    "keys, expected", [({}, 130 / 3), ({"positive_label": "b"}, 80), ({"positive_label": "c"}, 0)]
)
def test_f1_of_several_classes_is_macro_unless_one_is_named(keys, expected):
    task = make_task(labels=["a", "b", "c"], metrics=["f1"], **keys)
    samples = [TextSample("", "", None, label) for label in (0, 2, 1, 1, 0)]
    records = [{"label": label, "probabilities": dict.fromkeys("abc", 0.0)} for label in "aabbb"]
    assert score(task, samples, records)["f1"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_have_no_correlation(bad):
    for metric in (metrics.pearson, metrics.spearman):
        with pytest.raises(ConfigError, match="1 of 3 numbers to correlate are not finite"):
            metric([1.0, bad, 3.0], [1.0, 2.0, 3.0])


def test_mcc_by_its_formula_and_where_it_is_undefined():
    predicted, labels = np.array([1, 1, 1, 0, 0, 1]), np.array([1, 1, 0, 0, 1, 1])
    tp, tn, fp, fn = 3, 1, 1, 1
    expected = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert metrics.mcc(predicted, labels) == pytest.approx(100 * expected)
    assert metrics.mcc(np.ones(4), np.array([0, 1, 0, 1])) == 0.0
    assert metrics.mcc(np.array([0, 1, 2]), np.array([0, 1, 2])) == pytest.approx(100)


def test_pearson_is_numpys_and_a_constant_has_none():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    assert metrics.pearson(x, y) == pytest.approx(100 * np.corrcoef(x, y)[0, 1])
    assert metrics.pearson(np.ones(5), np.arange(5)) == 0.0


def test_spearman_gives_ties_the_mean_of_their_ranks():
    assert metrics.average_ranks([10, 20, 10, 30]).tolist() == [1.5, 3, 1.5, 4]
    assert metrics.spearman([1, 5, 9, 100], [0, 1, 2, 3]) == pytest.approx(100)
    x, y = [1, 2, 2, 3], [3, 1, 2, 0]
    assert metrics.spearman(x, y) == pytest.approx(100 * np.corrcoef([1, 2.5, 2.5, 4], [4, 2, 3, 1])[0, 1])


def test_mrr_ranks_within_each_question():
    qids = ["b", "a", "a", "b", "a", "c"]
    scores = [0.1, 0.9, 0.5, 0.7, 0.2, 1.0]
    relevant = [True, False, True, False, True, False]
    # a: second of three; b: second of two; c: nothing relevant
    assert metrics.mrr(qids, scores, relevant) == pytest.approx(100 * (1 / 2 + 1 / 2 + 0) / 3)


def test_mrr_breaks_ties_in_file_order():
    assert metrics.mrr(["q", "q"], [0.5, 0.5], [False, True]) == 50.0
    assert metrics.mrr(["q", "q"], [0.5, 0.5], [True, False]) == 100.0


@pytest.mark.parametrize("rows, positives", [(1, 1), (4, 1), (5, 2), (5, 4), (3, 0)])
def test_random_mrr_is_the_mean_over_all_orders(rows, positives):
    relevant = [True] * positives + [False] * (rows - positives)
    orders = list(itertools.permutations(relevant))
    mean = np.mean([1 / (order.index(True) + 1) if True in order else 0 for order in orders])
    assert metrics.random_mrr(["q"] * rows, relevant) == pytest.approx(100 * mean)


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("O I-PER I-PER", [("PER", 1, 3)]),  # conlleval: an I- that continues nothing begins an entity
        ("B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("O O", []),
    ],
)
def test_entities_as_conlleval_counts_them(tags, expected):
    tags = tags.split()
    spans = [(i, i + 1) for i in range(len(tags))]
    assert entities_of(tags, spans) == [Entity(*entity) for entity in expected]


def test_entity_spans_are_characters():
    assert entities_of(["B-PER", "I-PER", "O"], [(0, 2), (3, 6), (7, 13)]) == [Entity("PER", 0, 6)]


def test_entity_f1_is_strict_and_over_all_samples():
    there = [[Entity("PER", 0, 2), Entity("LOC", 5, 7)], [Entity("ORG", 1, 4)]]
    found = [[Entity("PER", 0, 2), Entity("ORG", 5, 7)], []]  # one right, one of the wrong type
    assert metrics.entity_f1(found, there) == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert metrics.entity_f1(there, there) == 100.0
    assert metrics.entity_f1([[], []], [[], []]) == 0.0
