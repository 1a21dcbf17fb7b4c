"""data_gen.text.sentences: hand-written cases, and equality with a slow splitter that goes through a line
mark by mark."""

from __future__ import annotations

import gzip
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED

from data_gen.text.sentences import (
    MAX_QUOTE,
    MAX_SENTENCE_CHARS,
    cut_long,
    is_abbreviation,
    sentence_spans,
    split_sentences,
)

CORPORA = sorted((SHARED / "data/corpus").glob("*/*.gz"))
PAIRS = {
    "“": "”",
    "‘": "’",
    "「": "」",
    "『": "』",
    "《": "》",
    "〈": "〉",
    "【": "】",
    "（": "）",
    "(": ")",
    "[": "]",
    '"': '"',
}
BRACKETS = "》〉】）)]"
CLOSERS = "”’」』\"'" + BRACKETS

ZH = [
    "今天下雨。|明天呢？|好！",
    "他说：“你好。我走了。”|然后离开了。",
    "“走吧。”，他说。|“好的！”|她答道。",
    "圆周率约为3.14。|真的？！|是的……",
    "我……我不知道。|他想了想……|没有说话。",
    "（完。）|后来他走了。|他（谁知道呢？）走了。",
    "看《你好！李焕英》很感人。|好。",
    "甲；乙；丙：丁。|版本是v2.0.1。",
    "访问http://a.com/?q=1吧。|好",
    "「好。」|他说『行。』|完。",
    '他喊道:"快跑!"|大家跑了。',
    "他说：“她问‘为什么？’我答不出。”|天黑了。",
    "第一句。”|第二句。",
    "没有句号",
    "是…不是…他说…|",
    "等等...|好。|v1...2。",
    "他（甲。）（乙。）又（丙。）走。|（丁。）|完",
    '身高5"的人。|好',
]
EN = [
    "Dr. Smith went home.|He was tired.",
    "He paid $3.14 for it.|What?|Yes!",
    "The U.S. Army came at 5 p.m. on Monday.|It left.",
    '"Is that so?" he said.|"Yes. It is."|Mr. Bennet replied... and left.',
    "See Fig. 3 and No. 5.|No.|He met J. R. Smith.",
    "“Come. Now,” she said.|They left (really. They did.) quickly.",
    "He lives on Main St.|It is nice.|St. Paul came.",
    "It was I.|He knew, e.g. Apple Inc. and others.",
    "Wait...|What now?|Version 2.0.1 is out.",
    "'Fine.'|They left.|It's Tom's. 'tis so.",
]


def slow(text: str, language: str) -> list[str]:
    """The sentences of every line, long ones cut, as `sentence_spans` should give them."""
    sentences = []
    for line in text.split("\n"):
        for sentence in slow_line(line, language):
            while len(sentence) > MAX_SENTENCE_CHARS:
                breaks = re.compile(r"[，、；：,;:\s]").finditer(
                    sentence, MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS
                )
                stop = max([found.end() for found in breaks], default=MAX_SENTENCE_CHARS)
                sentences.append(sentence[:stop].strip())
                sentence = sentence[stop:].strip()
            sentences.append(sentence)
    return sentences


def slow_line(line: str, language: str) -> list[str]:
    english = language == "en" or not re.search("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", line)
    kept = slow_quotations(line, MAX_QUOTE["en" if english else "zh"])
    sentences, start = [], 0
    for end in slow_ends(line, kept, english):
        opened = kept.get(end - 1) if line[end - 1] in BRACKETS else None
        if opened is not None and line[start:opened].strip() and line[end:].strip():
            continue
        sentences.append(line[start:end])
        start = end
    return [sentence for sentence in map(str.strip, [*sentences, line[start:]]) if sentence]


def slow_quotations(line: str, limit: int) -> dict[int, int]:
    """{closing index: opening index} of the outermost quotations and brackets that are short enough."""
    spans, stack = [], []
    for at, mark in enumerate(line):
        if mark == '"' and line.count('"') % 2:
            continue
        levels = [
            level for level in range(max(len(stack) - 8, 0), len(stack)) if PAIRS[line[stack[level]]] == mark
        ]
        if levels:
            opened = stack[levels[-1]]
            del stack[levels[-1] :]
            if at - opened <= limit:
                spans = [span for span in spans if span[0] < opened] + [(opened, at)]
        elif mark in PAIRS:
            stack.append(at)
    return {last: first for first, last in spans}


def slow_ends(line: str, kept: dict[int, int], english: bool) -> Iterator[int]:
    for mark in re.finditer(r"[.!?…]+" if english else r"[。！？!?…]+|\.{3,}", line):
        end = mark.end()
        while line[end : end + 1] and line[end] in CLOSERS:
            if line[end] in "\"'" and line[end + 1 : end + 2].isalnum() and end not in kept:
                break
            end += 1
        if any(first < end <= last for last, first in kept.items()):
            continue
        if (goes_on_en if english else goes_on_zh)(line, mark.start(), mark.end(), end):
            continue
        yield end


def goes_on_zh(line: str, start: int, stop: int, end: int) -> bool:
    following, last = line[end : end + 1], line[stop - 1]
    if not following:
        return False
    stammer, lone = start > 0 and line[start - 1] == following, line[start:stop] == "…"
    if (
        following in "，、；：。,;:—～·）)]》〉】"
        or last in "!?."
        and following.isascii()
        and following.isalnum()
    ):
        return True
    return stop == end and (lone or stammer and last in "….")


def goes_on_en(line: str, start: int, stop: int, end: int) -> bool:
    rest = line[end : end + 40]
    if rest and not rest[0].isspace():
        return True
    following = rest.lstrip()
    first = following.lstrip("\"'“‘([_")[:1]
    if first and not (first.isupper() or first.isdigit() or not first.isalnum() and following[0] in '"“‘([—'):
        return True
    return line[start:stop] == "." and stop == end and first != "" and is_abbreviation(line, start, following)


def assert_as_slow(text: str, language: str) -> None:
    spans, long_sentences = sentence_spans(text, language)
    assert spans.dtype == np.int32 and spans.shape == (len(spans), 2)
    assert [text[first:last] for first, last in spans.tolist()] == slow(text, language), (language, text)
    longer = [
        sentence
        for line in text.split("\n")
        for sentence in slow_line(line, language)
        if len(sentence) > MAX_SENTENCE_CHARS
    ]
    assert [text[first:last] for first, last in long_sentences] == longer


@pytest.mark.parametrize("marked", ZH)
def test_chinese_sentences(marked: str) -> None:
    sentences = [sentence for sentence in marked.split("|") if sentence]
    assert split_sentences(marked.replace("|", ""), "zh") == sentences
    assert slow_line(marked.replace("|", ""), "zh") == sentences


@pytest.mark.parametrize("marked", EN)
def test_english_sentences(marked: str) -> None:
    assert split_sentences(marked.replace("|", " "), "en") == marked.split("|")
    assert slow_line(marked.replace("|", " "), "en") == marked.split("|")


def test_lines_are_paragraphs() -> None:
    text = "\n 今天下雨。明天“晴。\n真的”吗？好\u3000\n\n\tHe came. Dr.\nSmith left.\n中"
    spans, long_sentences = sentence_spans(text, "zh")
    assert [text[first:last] for first, last in spans.tolist()] == [
        "今天下雨。",
        "明天“晴。",
        "真的”吗？",
        "好",
        "He came.",
        "Dr.",
        "Smith left.",
        "中",
    ]
    assert long_sentences == []
    assert split_sentences("一。\n二。", "zh") == ["一。", "二。"]


@pytest.mark.parametrize("text", ["", "\n", " ", "\u3000\n \n", "\ud800"])
def test_hardly_a_text(text: str) -> None:
    for language in ("zh", "en"):
        assert [
            text[first:last] for first, last in sentence_spans(text, language)[0].tolist()
        ] == text.split()


def test_long_quotations_are_split_inside() -> None:
    said = "很长的话。" * 40
    assert len(split_sentences(f"他说：“{said}”走了。", "zh")) == 41
    assert len(split_sentences(f"他说：“{said[:50]}”走了。", "zh")) == 2


def test_english_text_in_a_chinese_corpus() -> None:
    assert split_sentences("Hello there. It works.", "zh") == ["Hello there.", "It works."]


def test_long_sentences_are_cut() -> None:
    text = "短。\n" + "一" * 1500 + "，" + "二" * 3000 + "。\n短。" + "三" * 2000 + "\n" + "x " * 1001
    spans, long_sentences = sentence_spans(text, "zh")
    assert (spans[:, 1] - spans[:, 0]).tolist() == [2, 1501, 2000, 1001, 2, 2000, 1999, 1]
    assert long_sentences == [(3, 4505), (len(text) - 2002, len(text) - 1)]
    assert cut_long(text, 0, 2) == [(0, 2)]
    assert "".join(text[first:last] for first, last in spans.tolist()).replace(" ", "") == "".join(
        text.split()
    )


@pytest.mark.parametrize(
    "alphabet",
    [
        "中文ab A1。！？!?.…，,“”‘’「」()（）《》\"' \n\u3000",
        "中a。…“”\"）(' \n.",
        "aA. \n\"'()I",
        "中…。.!a\n （）",
        '“‘《（("[”’》）)"]。中',
        [
            "Dr. ",
            "Smith ",
            "went. ",
            "p.m. ",
            "U.S. ",
            "“Come. ",
            "Now,” ",
            "(A. ",
            "b.) ",
            "I. ",
            "The ",
            "fig. 3 ",
            "J. R. ",
            "no. 5 ",
            "etc. ",
            "\n",
            '"Is ',
            'it?" ',
            "he ",
            "中",
        ],
    ],
)
@pytest.mark.parametrize("language", ["zh", "en"])
def test_equals_the_slow_way_on_random_text(language: str, alphabet: str | list[str]) -> None:
    rng = random.Random(3)
    for _ in range(400):
        assert_as_slow(
            "".join(rng.choice(alphabet) for _ in range(rng.randrange(rng.choice((8, 60, 300))))), language
        )


@pytest.mark.parametrize("path", CORPORA, ids=lambda path: path.name.partition(".")[0])
def test_equals_the_slow_way_on_real_text(path: Path) -> None:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        text = "".join(line for number, line in enumerate(file) if number % 16 == 0 and number < 8_000)
    assert_as_slow(text, path.parent.name)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(
    "text",
    [
        "中" * 1_000_000,
        "a" * 1_000_000,
        "（" * 1_000_000,
        '"' * 1_000_000,
        "'" * 1_000_000,
        "。" * 1_000_000,
        " " * 1_000_000,
        "(" * 500_000 + "]" * 500_000,
        "“（" * 250_000 + "”" * 500_000,
        "中（好。）" * 200_000,
        "。" + "”" * 999_999,
        "a. " * 333_333,
        "“中。”" * 250_000,
        "a." * 500_000,
        "A.(" * 300_000,
        "a" + " " * 1_000_000 + "b",
        "…" * 999_999 + "中",
    ],
    ids=lambda text: text[:4],
)
def test_time_is_linear(language: str, text: str) -> None:
    """A million characters without an end: well under a second each; anything quadratic would take
    minutes."""
    started = time.process_time()
    spans, _ = sentence_spans(text, language)
    assert time.process_time() - started < 5
    assert len(spans) == 0 or (spans[:, 1] - spans[:, 0]).max() <= MAX_SENTENCE_CHARS
