"""data_gen.text.dictionaries and hash_table: how dictionaries are read, kept, and looked up."""

from __future__ import annotations

import bz2
import gzip
import itertools
import random
import time
from pathlib import Path

import numpy as np
import pytest

from data_gen.text.dictionaries import MAX_CHARS, Entries, load_entries
from data_gen.text.hash_table import (
    MAX_LENGTH,
    HashTable,
    SequenceTable,
    leftmost,
    sequence_hashes,
    symbols_of,
)
from data_gen.text.words import ChineseUnits
from ernie2.config import ConfigError


def dictionary(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def kinds(entries: Entries) -> dict[str, bool]:
    """Entry -> whether it is an entity."""
    return {entries.word(row): bool(is_entity) for row, is_entity in enumerate(entries.is_entity)}


def test_dictionary_formats(tmp_path: Path) -> None:
    text = (
        "\ufeff# comment\n周杰伦\t nr \n清华大学 nt\nred hat\tproduct\n上海\t2000\tns\n打酱油 "
        "phrase\nC#\nNew York\n"
        "守株待兔\t120\ti\n山\n\n北京\t100\r\n  中国\u3000人民  \n巴\u200b黎\t\n上\t海 \t ns\n天津\t3"
    )
    path = tmp_path / "person_x.txt.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ConfigError, match=r"person_x.txt.gz:15: unknown tag '海'"):
        load_entries([path])
    path.write_bytes(gzip.compress(text.replace("上\t海 \t ns\n", "").encode()))
    phrases = {"打酱油", "守株待兔"}
    entities = {
        "周杰伦",
        "清华大学",
        "red hat",
        "上海",
        "C#",
        "New York",
        "北京",
        "中国 人民",
        "巴黎",
        "天津",
    }
    found = load_entries([path])
    assert kinds(found) == dict.fromkeys(phrases, False) | dict.fromkeys(entities, True)
    assert (
        found.skipped == {"one_character": 1}
        and len(found) == 12
        and list(kinds(found))[:2] == ["周杰伦", "清华大学"]
    )
    for name in ("phrase_y.txt", "phrase.txt"):
        assert kinds(load_entries([dictionary(tmp_path / name, "打酱油\n周杰伦 nr\n")])) == {
            "打酱油": False,
            "周杰伦": True,
        }
    (tmp_path / "big5.txt.bz2").write_bytes(bz2.compress("臺北市\n".encode("big5")))
    assert kinds(load_entries([tmp_path / "big5.txt.bz2"], "big5")) == {"臺北市": True}
    assert len(load_entries([])) == 0


FILLER = "".join(f"city{i}\n" for i in range(40))


@pytest.mark.parametrize(
    ("name", "text", "entities", "phrases"),
    [
        ("d.txt", "东港石化 3 n\n", "东港石化", ""),
        ("phrase_d.txt", "东港石化 3 n\n云计算 5\n台中\n王安石 2 nr\n", "王安石", "东港石化 云计算 台中"),
        (
            "d.txt",
            "云计算 5\n李小福 2 nr\n创新办 3 i\neasy_install 3 eng\nEdu Trust认证 2000\n台中\n凱特琳 "
            "nz\n韩玉赏鉴 3 nz\n",
            "云计算 李小福 easy_install Edu_Trust认证 台中 凱特琳 韩玉赏鉴",
            "创新办",
        ),
        ("d.txt", "江苏路 ns 1\n攻城狮 n 1000 nz 1\n破釜沉舟 i 3\n", "江苏路 攻城狮", "破釜沉舟"),
        (
            "d.txt",
            "春天/TIME\n李明/PER\nAC/DC/nz\n落花流水/i\n花/n 开/v\n落 阳\n",
            "春天 李明 AC/DC 花开 落阳",
            "落花流水",
        ),
        ("d.txt", "词语,词性\n北京,ns\n东港石化,n\n打酱油,phrase,5\n", "北京 东港石化", "打酱油"),
        ("d.csv", 'name\r\n"Washington, D.C."\r\nParis\r\n', "Washington,_D.C. Paris", ""),
        ("d.csv", 'word;tag\n"St; John";place\nParis;n\n', "St;_John Paris", ""),
        ("d.tsv", "word\tfreq\ttag\n北京\t3\tns\n", "北京", ""),
        ("d.txt", "北京\r上海 ns\r天津\t3\r", "北京 上海 天津", ""),
        ("d.txt", "Boeing 747 nz\nParis ns\nApollo 11 product\n", "Boeing_747 Paris Apollo_11", ""),
        (
            "d.txt",
            "Boeing 747\nWindows 10\niPhone 6s\nmarket place\nvitamin c\nAC/DC\nTCP/IP\nkm/h\nWashington, "
            "D.C.\nParis, 1900\n"
            "波音 747\n维生素 C\n东港石化 nz\n" + FILLER,
            "Boeing_747 Windows_10 iPhone_6s market_place vitamin_c AC/DC TCP/IP km/h "
            "Washington,_D.C. Paris,_1900 波音_747 维生素_C 东港石化 " + FILLER,
            "",
        ),
    ],
)
def test_dictionaries_as_people_have_them(
    tmp_path: Path, name: str, text: str, entities: str, phrases: str
) -> None:
    """jieba's, HanLP's, LAC's form, CSV; and words that only look so."""
    words = {
        word.replace("_", " ") if "easy" not in word else word: kind
        for kind, names in ((True, entities), (False, phrases))
        for word in names.split()
    }
    assert kinds(load_entries([dictionary(tmp_path / name, text)])) == words


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("Boeing 747\nArea 51\n", 1, "747"),
        ("波音 747\n波音 737\n空客 320\n", 1, "747"),
        ("北京\n歼 20\n", 2, "20"),
        ("Paris\nmarket place\nLondon\n", 2, "place"),
        ("n/a\nTCP/IP\n", 1, "a"),
        ("春天/SEASON\n花/n 开/v\n落 阳\n", 1, "SEASON"),
        ("Paris, 1900\nRome\n", 1, ","),
    ],
)
def test_a_form_that_cannot_be_told_is_refused(tmp_path: Path, text: str, line: int, part: str) -> None:
    with pytest.raises(ConfigError, match=rf"d.txt:{line}: is '{part}' in .* a TAB behind the word"):
        load_entries([dictionary(tmp_path / "d.txt", text)])


@pytest.mark.parametrize(
    "line",
    [
        "云计算 5 人名",
        "云计算 n v",
        "云计算 5 vn1",
        "云计算/n",
        "云计算 5 n/v",
        "云计算 1,000 n",
        "云计算 1e5 n",
        "云计算,5,n",
    ],
)
def test_a_line_that_is_not_of_the_files_form_is_refused(tmp_path: Path, line: str) -> None:
    good = [f"{a}{b}公司 {n} nz" for n, (a, b) in enumerate(itertools.product("东南西北上下", "港石化工"), 2)]
    good += ["New York 3 nz", "Edu Trust认证 2000", "波音 747 3 nz", "TCP/IP协议 3 n", "清华"]
    assert len(load_entries([dictionary(tmp_path / "d.txt", "\n".join(good))])) == len(good)
    with pytest.raises(ConfigError, match=rf"d.txt:{len(good) + 1}: .*TAB behind the word"):
        load_entries([dictionary(tmp_path / "d.txt", "\n".join([*good, line]))])


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    """Duplicates, lines without a word, single characters, entries longer than any phrase."""
    lines = [
        "发表讲话",
        "北京",
        "北京\tns",
        "\tnr",
        " \t",
        "\u200b\tns",
        "山",
        "长" * MAX_CHARS,
        "长" * (MAX_CHARS + 1),
        "x" * 10**6,
    ]
    phrases = dictionary(tmp_path / "phrase_a.txt", "\r\n".join(lines))
    names = dictionary(tmp_path / "place_a.txt", "发表讲话\n上海\n北京\n")
    found = load_entries([phrases, names])
    assert kinds(found) == {"北京": True, "长" * MAX_CHARS: False, "发表讲话": True, "上海": True}
    assert found.skipped == {"duplicate": 3, "blank": 2, "one_character": 1, "too_long": 2}
    assert kinds(load_entries([names, phrases])) == kinds(found), "an entity in one of them is an entity"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("周杰伦\tnr\n清华\tplaces\n", r"d.txt:2: unknown tag 'places'; did you mean 'place'"),
        ("北京 LOCATION\n", "d.txt:1: unknown tag 'LOCATION'"),
        ("北京/ns\n春天/SEASON\n上海/ns\n苏州/ns\n", "d.txt:2: unknown tag"),
        ('北京,ns\n"上海,ns\n苏州,ns\n天津,ns\n', "d.txt:2: no line of a CSV file"),
        ('{"word": "北京"}\n', "d.txt:1: a dictionary in JSON"),
        ('{\n "北京": "ns"\n}\n', "d.txt:1: a dictionary in JSON"),
        ("# nothing\n\n  \n", "d.txt: no entry in it"),
        ("", "no entry"),
    ],
)
def test_bad_dictionary_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_entries([dictionary(tmp_path / "d.txt", content)])


def test_missing_and_wrongly_encoded_dictionaries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dictionary .*nowhere"):
        load_entries([tmp_path / "nowhere.txt"])
    (tmp_path / "d.txt").write_bytes("北京\n上海\n".encode("gb18030"))
    with pytest.raises(ConfigError, match="d.txt:1: not utf-8"):
        load_entries([tmp_path / "d.txt"])
    assert kinds(load_entries([tmp_path / "d.txt"], "gb18030")) == {"北京": True, "上海": True}
    (tmp_path / "d.txt").write_text("北京\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="d.txt: UTF-16; convert it"):
        load_entries([tmp_path / "d.txt"])
    (tmp_path / "d.txt").write_text("ab\n" * 50_000 + "北京\n", encoding="utf-8")
    assert kinds(load_entries([tmp_path / "d.txt"], "gb18030")) == {"ab": True, "北京": True}, (
        "what is not ASCII comes late"
    )


def test_hits_by_file(tmp_path: Path) -> None:
    """An entry of two files counts in both."""
    one, two = (
        dictionary(tmp_path / "a.txt", "北京\n上海\n北京\n"),
        dictionary(tmp_path / "phrase_b.txt", "天津\n北京\n"),
    )
    found = load_entries([one, two, dictionary(tmp_path / "c.txt", "山\n")])
    rows = [list(kinds(found)).index("北京")]
    assert list(found.found_by_file(rows)) == [
        (str(one), 2, 1),
        (str(two), 2, 1),
        (str(tmp_path / "c.txt"), 0, 0),
    ]
    assert [count for *_, count in found.found_by_file([])] == [0, 0, 0]


def test_entries_are_kept_once_in_order() -> None:
    draw = random.Random(1)
    words = {
        "".join(draw.choices("北京大学ab1 \U00020000", k=draw.randrange(1, 9))): draw.random() < 0.5
        for _ in range(3_000)
    }
    entries = Entries(words.items())
    assert kinds(entries) == words and list(kinds(entries)) == list(words) and not entries.skipped
    doubled = Entries([*words.items(), *((word, True) for word in words)])
    assert kinds(doubled) == dict.fromkeys(words, True) and doubled.skipped == {"duplicate": len(words)}


def test_chinese_matches_keep_to_edges() -> None:
    entries = {"北京": True, "北京大学": True, "大学生": False, "生": True}
    finder, symbols = ChineseUnits(Entries(entries.items())), symbols_of("北京大学生")

    def find(edges: list[int]) -> list[tuple[int, int, bool]]:
        found = finder.matches(symbols, np.array(edges, np.uint8), np.zeros(6, np.uint8))
        return list(zip(found.first.tolist(), found.last.tolist(), found.is_entity.tolist()))

    assert find([2, 2, 2, 2, 2, 2]) == [(0, 4, True)]
    assert find([2, 2, 2, 2, 0, 2]) == [(0, 2, True), (2, 5, False)]
    assert find([2, 1, 1, 1, 0, 1]) == [(2, 5, False)], "two characters only where words begin and end"
    assert find([0, 2, 0, 2, 2, 2]) == [] == find([0] * 6)


def test_hash_table_finds_what_is_there() -> None:
    rng = np.random.default_rng(1)
    for size in (0, 1, 2, 100, 50_000):
        hashes = np.unique(rng.integers(1, 1 << 63, size, np.uint64))
        rng.shuffle(hashes)
        table = HashTable(hashes)
        assert table.find(hashes).tolist() == list(range(len(hashes)))
        others = rng.integers(1 << 63, (1 << 64) - 1, 1_000, np.uint64)
        assert (table.find(others) == -1).all() and (table.find(np.zeros(3, np.uint64)) == -1).all()
    twice = np.array([5, 6, 5, 7, 6], np.uint64)
    assert HashTable(twice).find(np.array([5, 6, 7], np.uint64)).tolist() == [0, 1, 3], (
        "the first of two alike"
    )


def test_hashes_tell_sequences_apart() -> None:
    symbols = symbols_of("ab" * 200)
    starts, lengths = np.repeat(np.arange(100), 101), np.tile(np.arange(1, 102), 100)
    texts = [("ab" * 200)[a : a + size] for a, size in zip(starts, lengths)]
    hashes = sequence_hashes(symbols, starts, lengths)
    assert (hashes[lengths > MAX_LENGTH] == 0).all()
    assert len(set(hashes[lengths <= MAX_LENGTH].tolist())) == len(
        {text for text in texts if len(text) <= MAX_LENGTH}
    )


def test_longest_sequences() -> None:
    draw = random.Random(2)
    text = "".join(draw.choices("abc", k=3_000))
    words = sorted({"".join(draw.choices("abc", k=draw.randrange(2, 9))) for _ in range(300)})
    sizes = np.array([len(word) for word in words])
    table = SequenceTable(symbols_of("".join(words)), np.cumsum(sizes) - sizes, sizes)
    may_begin = np.array([draw.random() < 0.7 for _ in text])
    places, lengths, rows = table.longest(
        symbols_of(text), may_begin, lambda at, length: (at + length) % 5 > 0
    )
    wanted = [
        (at, max(fitting))
        for at in range(len(text))
        if may_begin[at]
        and (fitting := [len(word) for word in words if text.startswith(word, at) and (at + len(word)) % 5])
    ]
    assert list(zip(places.tolist(), lengths.tolist())) == wanted
    assert [words[row] for row in rows] == [text[at : at + size] for at, size in wanted]
    for empty in (
        table.longest(symbols_of(""), np.zeros(0, bool), lambda at, length: at >= 0),
        SequenceTable(symbols_of(""), np.zeros(0, int), np.zeros(0, int)).longest(
            symbols_of(text), may_begin, lambda at, length: at >= 0
        ),
    ):
        assert [len(part) for part in empty] == [0, 0, 0]


def test_leftmost_spans() -> None:
    assert leftmost(np.array([0, 1, 2, 5, 6]), np.array([2, 9, 4, 7, 7])).tolist() == [0, 2, 3]
    assert leftmost(np.zeros(0, int), np.zeros(0, int)).tolist() == []


@pytest.mark.slow
def test_a_million_entries_load_in_seconds(tmp_path: Path) -> None:
    draw = random.Random(1)
    words = [
        "".join(map(chr, (0x4E00 + draw.randrange(2_000) for _ in range(draw.randrange(3, 9)))))
        for _ in range(1_000_000)
    ]
    path = dictionary(tmp_path / "place.txt", "".join(f"{word}\tns\n" for word in words))
    start = time.process_time()
    entries = load_entries([path])
    ChineseUnits(entries)
    assert time.process_time() - start < 15
    assert len(entries) == len(set(words))
