"""data_gen.reading.cleaning: odd characters, white space, HTML, width, traditional characters."""

from __future__ import annotations

import random
import re
import sys
import time

import pytest

from data_gen.reading import cleaning
from data_gen.reading.cleaning import TextOptions, clean_lines, clean_text, strip_html
from ernie2.config import ConfigError

PLAIN = TextOptions()


def clean(text: str, **options: object) -> tuple[str, dict[str, int]]:
    notes: dict[str, int] = {}
    cleaned = clean_lines(text, TextOptions(**options), lambda kind, count, *_: notes.update({kind: count}))
    return cleaned, notes


@pytest.mark.parametrize(
    ("text", "wanted", "notes"),
    [
        ("干净的文字。\n\nClean text, ~100%!", "干净的文字。\n\nClean text, ~100%!", {}),
        ("一\r\n二\r\n", "一\n二\n", {"crlf": 2}),
        ("一\x00\x07二\x7f", "一二", {"control_character": 3}),
        ("a\u200bb\u200e\ufeffc\xadd\u202e", "abcd", {"invisible_character": 5}),
        ("a\ufffdb\ud800\ufdd0", "ab", {"broken_character": 3}),
        ("一\u2028二\x0b三\r四", "一 二 三 四", {"line_break": 3}),
        ("　　段落\t一\n  段落  二  \n\xa0", "段落 一\n段落 二\n", {"odd_space": 4, "white_space": 8}),
        (" a\x00 \x00b ", "a b", {"control_character": 2, "white_space": 2}),
        ("   \n　\n\t\r\n", "\n\n\n", {"crlf": 1, "odd_space": 2, "white_space": 5}),
        ("", "", {}),
        (" ", "", {"white_space": 1}),
        ("\n", "\n", {}),
    ],
)
def test_each_kind_of_change_is_made_and_counted(text: str, wanted: str, notes: dict[str, int]) -> None:
    assert clean(text) == (wanted, notes)


def test_a_change_says_where_it_was() -> None:
    changes: list[tuple] = []
    clean_lines("一。\n二\x00三。\n四\u200b五\u200b。\r\n六", PLAIN, lambda *change: changes.append(change))
    assert [(kind, line) for kind, _, line, _ in changes] == [
        ("crlf", 2),
        ("control_character", 1),
        ("invisible_character", 2),
    ]
    assert changes[1][-1] == "二\x00三。"


def test_the_quick_look_sees_all_that_the_slow_one_sees() -> None:
    """Printable characters are taken for clean without a closer look, but for the ones that are asked for by
    name."""
    odd = [chr(code) for code in range(sys.maxunicode + 1) if cleaning._ODD.match(chr(code))]
    assert {c for c in odd if c.isprintable()} == {"\ufffc", "\ufffd"} and len(odd) > 2100
    for character in odd:
        assert clean(f"一{character}二")[0] in ("一二", "一 二")


def test_what_comes_out_is_clean_whatever_goes_in() -> None:
    rng, alphabet = (
        random.Random(5),
        "ab中。  \n\n\t\r\x00\x0b\x85\u2028\u3000\xa0\u200b\ufeff\ufffd\ud800\x1c&<",
    )
    for _ in range(3000):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(40)))
        cleaned, notes = clean(text)
        assert cleaned.count("\n") == text.count("\n")
        assert not re.search(r"[^\S\n ]|  | \n|\n |\A | \Z", cleaned) and not cleaning._ODD.search(cleaned)
        assert clean(cleaned) == (cleaned, {}) and bool(notes) == (cleaned != text)
        assert [c for c in cleaned if c in "ab中。&<"] == [c for c in text if c in "ab中。&<"]
        assert clean_text(text.replace("\n", "")) == clean(text.replace("\n", ""))[0]


def test_width_is_changed_on_request() -> None:
    text = "ＡＢＣ　１２３，ｚ！\n无\nＺ"
    assert clean(text)[0] == "ＡＢＣ １２３，ｚ！\n无\nＺ"
    assert clean(text, normalise_width=True) == ("ABC 123，z！\n无\nZ", {"odd_space": 1, "full_width": 4})


def test_traditional_becomes_simplified_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opencc")
    assert clean("漢字\n简体\n電腦", simplify=True) == ("汉字\n简体\n电脑", {"traditional": 2})
    cleaning.load_simplifier.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(ConfigError, match="pip install opencc"):
        clean("漢", simplify=True)
    cleaning.load_simplifier.cache_clear()


@pytest.mark.parametrize(
    ("text", "wanted", "count"),
    [
        ("一&nbsp;二&amp;三&lt;四&#39;&#x4e00;", "一\xa0二&三<四'一", 5),
        ("A&amp;nbsp;B&nbsp C", "A\xa0B\xa0 C", 3),
        ('第一行<br>第二行<BR/>第三行<br clear="all" />完', "第一行\n第二行\n第三行\n完", 3),
        ("<p class='x'>段</p><a href=\"http://a.b/?c=1&d=2\" target=_blank>链接</a>", "\n段\n链接", 4),
        ("<td>甲</td><td>乙</td>", " 甲  乙 ", 4),
        ("<b>粗</b>和<i>斜</i>", "粗和斜", 4),
        ("前<!-- 注释\n<b> -->后<script type='a'>if (a<b) x();</script><style>p{}</style>", "前后", 3),
        ("<!DOCTYPE html><?xml version='1.0'?>文", "文", 2),
        ("文献<ref name=百载1982/11/12>某</ref>&lt;br&gt;&lt;/ref&gt;尾", "文献某\n尾", 8),
    ],
)
def test_html_is_taken_out(text: str, wanted: str, count: int) -> None:
    assert strip_html(text) == (wanted, count)


@pytest.mark.parametrize(
    "text",
    [
        "若 a<b 且 c>d，则 a<c",
        "if (a<b && c>d) { x = y & z; }",
        "x<y>z",
        "a<b>c",
        "List<String> 与 Map<K, V>、Box<T>",
        "#include <stdio.h>",
        "mv <source> <path>",
        "AT&T 和 R&D; &notanentity; &",
        "http://a.com/?a=1&copy=2&lt=3",
        "<3 爱你",
        "<- 左箭头 ->",
        "<中文>",
        "用户 <name@example.com>",
        "git checkout <branch>",
        "1 < 2 > 0",
        "<",
        "<<<>>>",
    ],
)
def test_what_is_no_html_stays(text: str) -> None:
    assert strip_html(text) == (text, 0)


def test_tags_that_were_escaped_were_meant_to_be_read() -> None:
    assert strip_html("用 &lt;p&gt; 标签")[0] == "用 <p> 标签"


def test_time_is_linear() -> None:
    started = time.process_time()
    for text in (
        "<!--" * 100_000,
        "<!-- -->" * 50_000 + "<!--" * 50_000,
        "<script>" * 50_000,
        "<a " * 100_000,
        "<a b=" * 100_000,
        "&" * 300_000,
        "&amp;" * 100_000,
        "<" * 300_000,
        "</" * 200_000,
        "<a " + "b " * 200_000,
        "&#" * 200_000,
        "<a" + " b='" * 100_000,
        "&amp;amp;amp;amp;" * 20_000,
        "<b>" * 100_000 + "</b>",
        " " * 1_000_000 + "x",
        "\t" * 500_000,
        " \n" * 300_000,
        "\ufeff\x00" * 200_000,
    ):
        strip_html(text)
        clean_lines(text, PLAIN)
    assert time.process_time() - started < 10
