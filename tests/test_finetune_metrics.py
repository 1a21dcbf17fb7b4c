"""Metrics against values worked out by hand, brute force or numpy."""

from __future__ import annotations

import numpy as np
import pytest
import seqeval.metrics
from test_finetune_readers import make_task

from ernie2.finetune import metrics
from ernie2.finetune.metrics import (
    answer_f1,
    cmrc_scores,
    normalise,
    score,
    units,
)
from ernie2.finetune.readers import TextSample
from ernie2.finetune.tagging import Entity, entities_of


def scores_of(predicted: str, labels: str, **keys) -> dict[str, float]:
    """Accuracy, F1 and MCC of predicted labels, a letter each, of a task with these letters as classes."""
    classes = keys.pop("classes", "ab")
    task = make_task(labels=list(classes), metrics=["accuracy", "f1", "mcc"], **keys)
    samples = [TextSample("", "", None, classes.index(label)) for label in labels]
    records = [{"label": label, "probabilities": dict.fromkeys(classes, 0.0)} for label in predicted]
    return score(task, samples, records)


def test_accuracy_f1_and_mcc():
    found = scores_of("bbaab", "baabb")  # 2 right of 3 predicted, 2 of 3 there
    assert found == {"accuracy": 60.0, "f1": 66.6667, "mcc": 16.6667}
    assert scores_of("bbaab", "baabb", positive_label="a")["f1"] == 50.0
    assert scores_of("aaa", "bbb") == {"accuracy": 0.0, "f1": 0.0, "mcc": 0.0}
    assert scores_of("abc", "abc", classes="abc")["mcc"] == 100.0


@pytest.mark.parametrize(
    "keys, expected", [({}, 130 / 3), ({"positive_label": "b"}, 80), ({"positive_label": "c"}, 0)]
)
def test_f1_of_several_classes_is_macro_unless_one_is_named(keys, expected):
    assert scores_of("aabbb", "acbba", classes="abc", **keys)["f1"] == pytest.approx(expected, abs=1e-3)
    assert scores_of("aabbb", "acbba", classes="abcd")["f1"] == 32.5  # d, in neither, counts 0


def test_pearson_is_numpys_and_a_constant_has_none():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    assert metrics.pearson(x, y) == pytest.approx(100 * np.corrcoef(x, y)[0, 1])
    assert metrics.pearson(np.ones(5), np.arange(5)) == 0.0


def test_spearman_gives_ties_the_mean_of_their_ranks():
    assert metrics.spearman([1, 5, 9, 100], [0, 1, 2, 3]) == pytest.approx(100)
    x, y = [1, 2, 2, 3], [3, 1, 2, 0]
    assert metrics.spearman(x, y) == pytest.approx(100 * np.corrcoef([1, 2.5, 2.5, 4], [4, 2, 3, 1])[0, 1])


def test_mrr_ranks_within_each_question():
    qids = ["b", "a", "a", "b", "a", "c"]
    scores = [0.1, 0.9, 0.5, 0.7, 0.2, 1.0]
    relevant = [True, False, True, False, True, False]
    # a: second of three; b: second of two; c: nothing relevant
    assert metrics.mrr(qids, relevant, scores) == pytest.approx(100 * (1 / 2 + 1 / 2 + 0) / 3)


def test_mrr_breaks_ties_in_file_order():
    assert metrics.mrr(["q", "q"], [False, True], [0.5, 0.5]) == 50.0
    assert metrics.mrr(["q", "q"], [True, False], [0.5, 0.5]) == 100.0


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


def test_entity_f1_is_seqevals_on_random_tags():
    rng = np.random.default_rng(5)
    for _ in range(40):
        tags = [[["O", "B-A", "I-A", "B-B", "I-B"][i] for i in row] for row in rng.integers(5, size=(8, 9))]
        found, there = (
            [entities_of(row, [(i, i + 1) for i in range(9)]) for row in half]
            for half in (tags[:4], tags[4:])
        )
        theirs = seqeval.metrics.f1_score(tags[4:], tags[:4])
        assert metrics.entity_f1(found, there) == pytest.approx(100 * theirs)


def test_units_are_chinese_characters_and_words():
    assert units("2008年，NBA总决赛") == ["2008", "年", "nba", "总", "决", "赛"]
    assert units("《哈姆雷特》") == ["哈", "姆", "雷", "特"]
    assert units("Los Angeles Lakers队") == ["los", "angeles", "lakers", "队"]
    assert units("") == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("3.5亿", ["3.5", "亿"]),  # a point between digits stays
        ("1,000米", ["1,000", "米"]),
        ("a, b", ["a", ",", "b"]),
        ("(abc) def.", ["(", "abc", ")", "def", "."]),
        ("it's", ["it", "'s"]),
        ("don't", ["do", "n't"]),
        ("50%", ["50", "%"]),
        ("a-b_c", ["abc"]),  # listed punctuation is dropped before words are cut
    ],
)
def test_words_follow_treebank_conventions(text, expected):
    assert units(text) == expected


def test_listed_punctuation_is_dropped_and_others_stay():
    assert normalise(" “Hello”，世界。 ") == "hello世界"
    assert (
        normalise("等等……") == "等等……"
    )  # the evaluator lists the two-character ellipsis, which no character equals
    assert normalise("‘a’") == "‘a"  # it lists one of the two single quotes
    assert normalise("A,B") == "a,b"


@pytest.mark.parametrize(
    "prediction, reference, common",
    [
        ("一二三四五", "六二三四七", 3),
        ("一二三一二四", "一二四", 3),
        ("一六二六三", "一二三", 1),
        ("", "一", 0),
    ],
)
def test_f1_counts_the_longest_common_run_not_the_subsequence(prediction, reference, common):
    expected = 2 * common / (len(prediction) + len(reference))
    assert answer_f1(prediction, [reference]) == pytest.approx(expected)


def test_em_and_f1_take_the_best_reference():
    references = ["光荣和ω-force", "光荣"]
    # Punctuation does not count.
    for answer, em, f1 in (("光荣", 1, 1), ("光荣。", 1, 1), ("光荣社", 0, 0.8), ("无关", 0, 0)):
        found = cmrc_scores({"q": answer}, {"q": references})
        assert found == {"cmrc_em": 100 * em, "cmrc_f1": pytest.approx(100 * f1)}


def test_scores_are_percent_and_a_missing_answer_counts_zero():
    references = {"q1": ["北京"], "q2": ["上海市"]}
    scores = cmrc_scores({"q1": "北京", "q2": "上海"}, references)
    assert scores == {"cmrc_em": 50.0, "cmrc_f1": pytest.approx(100 * (1 + 0.8) / 2)}
    assert cmrc_scores({"q1": "北京"}, references) == {"cmrc_em": 50.0, "cmrc_f1": 50.0}
    assert cmrc_scores({}, {}) == {"cmrc_em": 0.0, "cmrc_f1": 0.0}
