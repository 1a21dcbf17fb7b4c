"""data_gen.text.segmenters and jieba's dictionary: rjieba cuts like jieba, and what happens where it is not there."""

from __future__ import annotations

import gzip
import itertools
import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED

from data_gen.text.dictionaries import MODIFIER, NOUN, OTHER, UNKNOWN, Lexicon, jieba_lexicon
from data_gen.text.hash_table import symbols_of
from data_gen.text.segmenters import load_segmenter
from data_gen.text.sentences import split_sentences
from ernie2.config import ConfigError

NAMES = ("rjieba", "jieba")
CORPUS = SHARED / "data" / "corpus" / "zh"

# What jieba makes of runs of Latin letters, digits and marks.
RUNS = {
    "在2016-10-11到达": "在/2016/-/10/-/11/到达",
    "读10.4.5版": "读/10.4/./5/版",
    "买DVD-RW吧": "买/DVD/-/RW/吧",
    "看www.a.com和b_c.html": "看/www/./a/./com/和/b/_/c/./html",
    "学C++和C#11": "学/C++/和/C#/11",
    "3.14%和5%5": "3.14%/和/5%/5",
    "他的T恤-2很大": "他/的/T恤/-/2/很大",
    "AT&T-1": "AT&T/-/1",
    "1.5a": "1.5/a",
    "的a..b1-2": "的/a/../b1/-/2",
    "卡拉OK-3": None,
    "1-T恤": None,
    "c++-g++": None,
    "-1": None,
    "2.": None,
}


def cut(name: str, text: str) -> list[str]:
    """The words of a text by a segmenter."""
    stops = load_segmenter(name).stops(text)
    assert stops.dtype == np.int64
    return [text[first:last] for first, last in itertools.pairwise([0, *stops.tolist()])]


@pytest.fixture()
def fresh() -> Iterator[None]:
    """Segmenters loaded in a test are forgotten after it."""
    load_segmenter.cache_clear()
    yield
    load_segmenter.cache_clear()


@pytest.mark.parametrize("name", NAMES)
def test_words_end_to_end_are_the_text(name: str) -> None:
    segmenter = load_segmenter(name)
    texts = (
        "",
        "\n",
        "我在北京大学，发表讲话。\n\n2016-10-11 \r\n",
        "a" * 1000 + "，" + "啊" * 300,
        "a-b" * 1000,
        "\ud800我\0",
    )
    for text in texts:
        words = cut(name, text)
        assert "".join(words) == text and all(words)
    assert segmenter.name == name and segmenter.version[0].isdigit()
    assert cut(name, "我在北京大学，发表讲话。") == ["我", "在", "北京大学", "，", "发表", "讲话", "。"]


@pytest.mark.parametrize("text", RUNS)
def test_latin_runs_are_cut_by_jiebas_rule(text: str) -> None:
    words = cut("jieba", text)
    assert cut("rjieba", text) == words
    if RUNS[text] is not None:
        assert "/".join(words) == RUNS[text]


def test_rjieba_cuts_random_text_like_jieba() -> None:
    """Marks, digits, letters, rare characters, dictionary words with letters, line breaks, in any order."""
    parts = [
        *"+#&._%-" * 3,
        *"aB1203",
        *"，。 \n",
        "\r\n",
        "\u3400",
        "\u9fff",
        "\U00020000",
        "\ufa0e",
        "\ud83d",
        "é",
        "ａ",
        "２",
        "T恤",
        "C++",
        "c#",
        "AT&T",
        "卡拉OK",
        "江南style",
        "北京大学",
        "我",
        "在",
        "的",
        "经济",
        "γ射线",
        "４",
    ]
    draw = random.Random(7)
    texts = ["".join(draw.choices(parts, k=draw.randrange(1, 30))) for _ in range(4_000)]
    for text in [*texts, "\n".join(texts)]:
        assert cut("rjieba", text) == cut("jieba", text), ascii(text)


def test_words_added_to_jiebas_global_segmenter_do_not_count() -> None:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.add_word("的我是", freq=10**8)
    for name in NAMES:
        assert cut(name, "大学的我是学生") == ["大学", "的", "我", "是", "学生"]


def test_auto_is_rjieba() -> None:
    assert load_segmenter("auto") is load_segmenter("rjieba")
    assert load_segmenter("rjieba").has_jiebas_dictionary()


def test_without_rjieba_auto_is_jieba_with_one_warning(
    fresh: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    assert load_segmenter("auto").name == load_segmenter("auto").name == "jieba"
    [record] = caplog.records
    assert (
        "slower" in record.message and "pip install rjieba" in record.message and "\n" not in record.message
    )
    with pytest.raises(ConfigError, match="pip install rjieba"):
        load_segmenter("rjieba")


@pytest.mark.parametrize("change", ["frequency", "total"])
def test_another_dictionary_is_noticed(
    fresh: None, change: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rust = load_segmenter("rjieba")
    monkeypatch.setattr(
        rust, "_jieba", pytest.importorskip("rjieba").Jieba()
    )  # the package's own one is every test's
    word, frequency = next((word, frequency) for word, frequency in jieba_lexicon().sample if frequency > 100)
    if change == "frequency":
        rust._jieba.add_word(word, frequency // 2, "n")
    else:
        rust._jieba.add_word("的我是", 10**6, "n")
    assert not rust.has_jiebas_dictionary()
    assert load_segmenter("auto").name == "jieba" and "another dictionary" in caplog.text


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="data.segmenter: found 'jeiba'; did you mean 'jieba'"):
        load_segmenter("jeiba")


@pytest.mark.skipif(not CORPUS.is_dir(), reason="shared corpus not present")
def test_rjieba_agrees_with_jieba_on_the_shared_corpus() -> None:
    sentences = []
    for path in sorted(CORPUS.glob("*.gz")):
        lines = gzip.open(path, "rt", encoding="utf-8", newline="\n").read().split("\n")
        for line in random.Random(3).sample(lines, 400):
            sentences += split_sentences(line)
    differing = [sentence for sentence in sentences if cut("rjieba", sentence) != cut("jieba", sentence)]
    assert len(sentences) > 3_000 and len(differing) <= 0.001 * len(sentences), differing


def kinds_of(lexicon: Lexicon, words: list[str]) -> list[int]:
    sizes = np.array([len(word) for word in words])
    return lexicon.kinds(symbols_of("".join(words)), np.cumsum(sizes) - sizes, sizes).tolist()


def test_lexicon_knows_what_jiebas_file_says() -> None:
    lexicon = jieba_lexicon()
    assert lexicon.ascii_words == {"AT&T", "c#", "C#", "c++", "C++"} and lexicon.total == 60_101_967
    words = [
        "经济",
        "漂亮",
        "发展",
        "我",
        "人",
        "财政部门",
        "财政部门了",
        "γ射线",
        "龘",
        "\n",
        "x" * 500,
        "\U00020000",
    ]
    kinds = [NOUN, MODIFIER, MODIFIER, OTHER, NOUN, NOUN, UNKNOWN, NOUN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
    assert kinds_of(lexicon, words) == kinds


def test_lexicon_of_any_file(tmp_path: Path) -> None:
    path = tmp_path / "dict.txt"
    path.write_text("甲乙 3 n\n甲 70 a\nC++ 60 nz\n", encoding="utf-8")
    lexicon = Lexicon(path)
    assert kinds_of(lexicon, ["甲乙", "甲", "丁", "C++"]) == [NOUN, MODIFIER, UNKNOWN, OTHER]
    assert lexicon.total == 133 and lexicon.ascii_words == {"C++"}
    for damaged in (b"", "甲乙 3\n".encode(), "甲乙 三 n\n".encode(), b"\xff 3 n\n"):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="dict.txt: not jieba's dictionary .* install jieba again"):
            Lexicon(path)
