"""CMRC's EM and F1 by the published definition."""

from __future__ import annotations

import random

import pytest

from ernie2.finetune.cmrc import answer_em, answer_f1, cmrc_scores, longest_common_run, normalise, units


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
    assert normalise("等等……") == "等等……"  # the evaluator lists the two-character ellipsis, which no character equals
    assert normalise("‘a’") == "‘a"  # it lists one of the two single quotes
    assert normalise("A,B") == "a,b"


def test_longest_common_run_is_a_substring():
    assert longest_common_run("abcde", "xbcdy") == 3
    assert longest_common_run("abcabd", "abd") == 3
    assert longest_common_run("axbxc", "abc") == 1  # as a subsequence it would be 3
    assert longest_common_run("", "abc") == 0


def test_longest_common_run_against_brute_force():
    rng = random.Random(0)
    for _ in range(50):
        a = "".join(rng.choice("ab") for _ in range(rng.randrange(9)))
        b = "".join(rng.choice("ab") for _ in range(rng.randrange(9)))
        runs = [j - i for i in range(len(a)) for j in range(i + 1, len(a) + 1) if a[i:j] in b]
        assert longest_common_run(a, b) == max(runs, default=0)


def test_em_and_f1_take_the_best_reference():
    references = ["光荣和ω-force", "光荣"]
    assert answer_em("光荣", references) == 1 and answer_f1("光荣", references) == 1
    assert answer_em("光荣。", references) == 1  # punctuation does not count
    assert answer_em("光荣社", references) == 0
    assert answer_f1("光荣社", references) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert answer_f1("无关", references) == 0


def test_scores_are_percent_and_a_missing_answer_counts_zero():
    references = {"q1": ["北京"], "q2": ["上海市"]}
    scores = cmrc_scores({"q1": "北京", "q2": "上海"}, references)
    assert scores == {"cmrc_em": 50.0, "cmrc_f1": pytest.approx(100 * (1 + 0.8) / 2)}
    assert cmrc_scores({"q1": "北京"}, references) == {"cmrc_em": 50.0, "cmrc_f1": 50.0}
    assert cmrc_scores({}, {}) == {"cmrc_em": 0.0, "cmrc_f1": 0.0}
