"""data_gen.reading.documents: pieces to documents and pairs; data_gen.text.sentences:
splitting."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_gen.reading import documents as documents_module
from data_gen.reading.documents import (
    RawDocument,
    RawMarkedPair,
    RawPair,
    RejectCounter,
    TextOptions,
    is_dev,
    parse,
    read_all,
)
from data_gen.reading.pieces import Piece, read_pieces
from ernie2.config import ConfigError, DataConfig


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    data = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(
    path: Path, rejects: RejectCounter | None = None, source: str = "documents", **options: object
) -> list[tuple[str, object]]:
    items = read_all([path], source, TextOptions(**options), RejectCounter() if rejects is None else rejects)
    return [
        (
            item.source.removeprefix(str(path)),
            item.text.split("\n") if isinstance(item, RawDocument) else item,
        )
        for item in items
    ]


def parsed(
    data: str | bytes,
    kind: str = "txt",
    rejects: RejectCounter | None = None,
    header: str = "",
    **options: object,
) -> list:
    piece = Piece("f", kind, 1, 0, data if isinstance(data, bytes) else data.encode(), header)
    return parse(piece, TextOptions(**options), RejectCounter() if rejects is None else rejects)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_documents_end_at_blank_lines(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\n\n一。\n二。\n\n \t\n三。\n\n\n四。\n五。")
    assert read(path) == [(":3", ["一。", "二。"]), (":7", ["三。"]), (":10", ["四。", "五。"])]


def test_odd_bytes_are_cleaned_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeff一\x00\u200b二\r\n　三\t\x0b四\u2028五\x07\r\n\r\n\ufffd六\r\n")
    rejects = RejectCounter()
    assert read(path, rejects) == [(":1", ["一二", "三 四 五"]), (":4", ["六"])]
    assert rejects.total == 0 and rejects.notes == {
        "bom": 1,
        "crlf": 4,
        "control_character": 2,
        "invisible_character": 1,
        "broken_character": 1,
        "line_break": 2,
        "odd_space": 2,
        "white_space": 2,
    }
    assert rejects.examples["broken_character"] == [[f"{path}:4", "\ufffd六"]]
    assert rejects.examples["line_break"] == [[f"{path}:2", "　三\t\x0b四\u2028五"]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz"])
def test_jsonl_takes_all_forms_and_counts_bad_lines(tmp_path: Path, name: str) -> None:
    rows = [
        '{"text": "一。\\n\\n二。"}',
        "",
        '{"title": "题", "content": "三。\\n四。", "id": 7}',
        '{"content": "五。"}',
        "{broken",
        "[1]",
        '{"text": 3}',
        '{"title": "只有题目"}',
        '{"text": " \\n "}',
        '{"text": "\\ud800六\\r七\tx"}',
        "[" * 100_000,
        "1" * 5000,
        '{"text": null, "content": "八。", "title": 5}',
        "NaN",
        '{"text": "甲", "id": NaN, "x": {"a": 1e999}}',
        '{"text": "乙", "id": ' + "1" * 5000 + "}",
    ]
    path, rejects = write(tmp_path / name, "\n".join(rows)), RejectCounter()
    assert read(path, rejects) == [
        (":1", ["一。", "二。"]),
        (":3", ["题", "三。", "四。"]),
        (":4", ["五。"]),
        (":10", ["六", "七 x"]),
        (":13", ["八。"]),
        (":15", ["甲"]),
    ]
    assert rejects.counts == {"bad_json": 6, "no_text": 2, "empty_document": 1}
    assert rejects.examples["no_text"][0] == [
        f"{path}:7",
        "text, or title and content, wanted; the fields are text (int)",
    ]
    assert rejects.examples["bad_json"][0] == [f"{path}:5", "{broken"]
    assert rejects.examples["no_text"][1] == [
        f"{path}:8",
        "text, or title and content, wanted; the fields are title (str)",
    ]
    assert rejects.examples["broken_character"] == [[f"{path}:10", "\\ud800六"]]


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (
            {"id": "53", "url": "u", "title": "经济学", "text": "经济学\n\n是一门科学。"},
            "经济学\n是一门科学。",
        ),  # wiki2019zh
        (
            {
                "id": 1,
                "uniqueKey": "k",
                "titleUkey": "t",
                "dataType": "百科",
                "title": "题",
                "content": "一。\n二。",
            },
            "题\n一。\n二。",
        ),  # WuDao
        (
            {
                "news_id": "1",
                "keywords": "k",
                "title": "题",
                "source": "s",
                "time": "t",
                "desc": "开头的话…",
                "content": "开头的话。后来。",
            },
            "题\n开头的话。后来。",
        ),  # news2016zh
        (
            {
                "qid": 1,
                "title": "问",
                "desc": "补充。",
                "topic": "t",
                "star": 3,
                "content": "答。",
                "answerer_tags": "x",
            },
            "问\n补充。\n答。",
        ),  # webtext2019zh
        (
            {"qid": "q", "category": "c", "title": "问", "desc": "", "answer": "答。"},
            "问\n答。",
        ),  # baike2018qa
        ({"text": "正文。", "title": "题"}, "正文。"),
        ({"title": "题", "content": "题\n文。"}, "题\n文。"),
        ({"title": None, "content": ["一。", "二。"]}, "一。\n二。"),
        ({"title": "题", "content": None}, None),
        ({"text": ["一", 2]}, None),
        ({"title": ["题"], "desc": "文", "content": "文。"}, "题\n文。"),
        ({}, None),
    ],
)
def test_field_names_of_known_corpora(record: dict, wanted: str | None) -> None:
    found = parsed(json.dumps(record, ensure_ascii=False), "jsonl")
    assert [document.text for document in found] == ([] if wanted is None else [wanted])


def test_wiki_extractor_output(tmp_path: Path) -> None:
    text = (
        '<doc id="1" url="u" title="甲 -> 乙">\n甲 -> 乙\n\n一。\n\n二&lt;br&gt;三 &lt;math&gt;。\n\n</doc>\n'
        '<doc id="2" url="u" title="空">\n\n</doc>\n<doc id="3" url="u" title="丙">\n丙\n\n三。\n\n四。'
    )
    path, rejects = write(tmp_path / "wiki_00", text), RejectCounter()
    wanted = [(":2", ["甲 -> 乙", "一。", "二", "三 <math>。"]), (":13", ["丙", "三。", "四。"])]
    assert read(path, rejects) == wanted and rejects.total == 0
    assert read(write(path, text.replace("\n", "\r\n"))) == wanted
    rows = [
        json.dumps({"id": str(n), "revid": "1", "url": "u", "title": "题", "text": f"文{n}。\n\n完。"})
        for n in range(3)
    ]
    assert read(write(path, "\n".join(rows))) == [(f":{n + 1}", [f"文{n}。", "完。"]) for n in range(3)]


def test_a_json_array_of_records(tmp_path: Path) -> None:
    records = [{"title": f"题{n}", "content": f"文{n}。\n]" + "},{"} for n in range(20_000)] + [
        3,
        {"no": "text"},
    ]
    path, rejects = (
        write(tmp_path / "part-2021.json.gz", json.dumps(records, ensure_ascii=False, indent=1)),
        RejectCounter(),
    )
    found = read(path, rejects)
    assert found == [(f":{n + 1}", [f"题{n}", f"文{n}。", "]},{"]) for n in range(20_000)]
    assert (
        rejects.counts == {"bad_json": 1, "no_text": 1}
        and rejects.examples["no_text"][0][0] == f"{path}:20002"
    )
    odd = '[{"text": "一。"}, 1, NaN,\n{"text": "二。"}, null]\n4 [{"text": "三。"}] x'
    path, rejects = write(tmp_path / "b.json", odd), RejectCounter()
    assert [text for _, text in read(path, rejects)] == [["一。"], ["二。"], ["三。"]]
    assert [text for _, text in rejects.examples["bad_json"]] == ["1", "NaN", "null", "4", "x"]


@pytest.mark.parametrize(
    "text", ["一。\r二。\r\r三。\r", "一。\r二。\r\r三。\n", "一。\r二。\r\r三。\r四。\r\r五。\r\n"]
)
def test_lines_of_old_macs(tmp_path: Path, text: str) -> None:
    rejects = RejectCounter()
    found = read(write(tmp_path / "a.txt", text), rejects)
    assert (
        found[:1] == [(":1", ["一。", "二。"])] and found[1][0] == ":4" and rejects.notes["cr_line_ends"] == 1
    )


def test_other_encodings(tmp_path: Path) -> None:
    text = "鲁迅写了很多书。\n\n第二。"
    path, rejects = write(tmp_path / "a.txt", text, "gb18030"), RejectCounter()
    wanted = [(":1", ["鲁迅写了很多书。"]), (":3", ["第二。"])]
    assert (
        read(path, encoding="gb18030")
        == wanted
        == read(write(tmp_path / "b.txt", text), encoding="utf-8-sig")
    )
    assert read(path, rejects) == []
    assert rejects.counts == {"not_utf-8": 2}
    assert rejects.examples["not_utf-8"][0] == [
        f"{path}:1",
        "byte 6 (c1 cb ba dc); if the file is gb18030, set data.encoding=gb18030",
    ]
    with pytest.raises(ConfigError, match="unknown"):
        read(path, encoding="utf-9")


@pytest.mark.parametrize(
    ("kind", "header"), [("txt", ""), ("jsonl", ""), ("pairs", "query\ttitle\tclicked"), ("wiki", "")]
)
def test_only_the_document_with_bad_bytes_is_left_out(kind: str, header: str) -> None:
    row = {
        "txt": "第{}。\n完。\n\n",
        "jsonl": '{{"text": "第{}。"}}\n',
        "pairs": "第{}\t题\t1\n",
        "wiki": "<doc id=1>\n第{}。\n\n完。\n</doc>\n",
    }[kind]
    parts = [row.format(n).encode() for n in range(30)]
    before = sum(map(len, parts[:7]))
    parts[7] = parts[7].replace("第".encode(), b"\xff\xfe")
    parts[9] = parts[9].replace("第".encode(), b"\x00" * 400)
    parts[11] = parts[11].replace("第".encode(), b"\x00\x80" * 40)
    rejects = RejectCounter()
    found = parsed(b"".join(parts), kind, rejects, header)
    kept = [n for n in range(30) if n not in (7, 9, 11)]
    texts = [item.query if kind == "pairs" else item.text for item in found]
    assert [text.split("。")[0] for text in texts] == [f"第{n}" for n in kept]
    height, first = row.count("\n"), 2 if kind == "wiki" else 1
    assert [item.source for item in found] == [f"f:{n * height + first}" for n in kept]
    assert rejects.counts == {"not_utf-8": 1, "binary": 2}
    where, text = rejects.examples["not_utf-8"][0]
    assert where == f"f:{7 * height + first}" and text.startswith(
        f"byte {before + row.replace('{{', '{').index('第')} (ff fe 37 "
    )


def test_one_zero_byte_is_no_binary_junk() -> None:
    rejects = RejectCounter()
    assert [document.text for document in parsed("一些文字\x00。\n\n二\n\n三", rejects=rejects)] == [
        "一些文字。",
        "二",
        "三",
    ]
    assert rejects.total == 0 and rejects.notes == {"control_character": 1}


def test_html_is_stripped_from_a_document_unless_it_is_wanted() -> None:
    rejects = RejectCounter()
    text = "甲<br>乙&nbsp;&nbsp;丙\n<div>\n丁&#8203;。\n\na < b &amp; c\n\n<p></p>\n\n无"
    assert [(d.source, d.text) for d in parsed(text, rejects=rejects)] == [
        ("f:1", "甲\n乙 丙\n丁。"),
        ("f:5", "a < b & c"),
        ("f:9", "无"),
    ]
    assert rejects.counts == {"empty_document": 1} and rejects.notes == {"html": 8}
    assert rejects.examples["html"][0] == ["f:1", "甲<br>乙&nbsp;&nbsp;丙\n<div>\n丁&#8203;。"]
    assert [d.text for d in parsed("甲<br>乙&nbsp;丙", strip_html=False)] == ["甲<br>乙&nbsp;丙"]


def test_length_limits() -> None:
    rejects = RejectCounter()
    text = "一二\n\n一二三\n\n一二三四五\n\n一二三四五六"
    assert [d.text for d in parsed(text, rejects=rejects, min_chars=3, max_chars=5)] == [
        "一二三",
        "一二三四五",
    ]
    assert rejects.counts == {"too_short": 1, "too_long": 1} and rejects.examples["too_long"] == [
        ["f:7", "一二三四五六"]
    ]


def test_a_very_long_record_becomes_several_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module, "LONG_DOCUMENT", 3000)
    rejects = RejectCounter()
    text = "\n".join(["长文。" * 20] * 100) + "\n" + "x" * 2500
    found = [d.text for d in parsed(json.dumps({"text": text}), "jsonl", rejects)]
    assert "\n".join(found[:6]) == text[: len("\n".join(found[:6]))] and "".join(
        "".join(found).split()
    ) == "".join(text.split())
    assert len(found) == 10 and max(map(len, found)) <= 1000 * 3 and rejects.notes == {"long_document": 9}


@pytest.mark.parametrize(
    ("column", "rows", "labels"),
    [
        ("clicked", ["1", "0"], [0, 1]),
        ("relevance", ["2", "1", "0"], [0, 1]),
        ("clicked\tcount", ["1\t12", "0\t"], [0, 1]),
    ],
)
def test_query_logs(tmp_path: Path, column: str, rows: list[str], labels: list[int]) -> None:
    text = f"\ufeffquery\ttitle\t{column}\r\n" + "".join(
        f"词{n}\t<em>标题</em>{n}\t{value}\r\n" for n, value in enumerate(rows)
    )
    path, rejects = write(tmp_path / "log.tsv.gz", text), RejectCounter()
    assert [pair for _, pair in read(path, rejects, "pairs")] == [
        RawPair(f"{path}:{n + 2}", f"词{n}", f"标题{n}", label) for n, label in enumerate(labels)
    ]
    assert (
        rejects.total == 0
        and rejects.notes["relevance_0"] == (column == "relevance")
        and rejects.notes["html"] == 2 * len(rows)
    )


def test_query_log_rejects_are_counted() -> None:
    rejects = RejectCounter()
    text = "\ta\t1\na\t \t1\na\tb\na\tb\tc\t1\n\na\tb\t0\na\tb\t2\n<b></b>\tb\t1"
    found = parsed(text, "pairs", rejects, "query\ttitle\tclicked")
    assert [(pair.source, pair.query, pair.label) for pair in found] == [("f:6", "a", 1)]
    assert rejects.counts == {"empty_query": 2, "empty_title": 1, "wrong_columns": 2, "bad_label": 1}
    assert rejects.examples["bad_label"] == [["f:7", "'2'; use one of 0, 1"]]
    assert rejects.examples["wrong_columns"][0] == ["f:3", "2 for 3: a\tb"]


def test_marked_pairs(tmp_path: Path) -> None:
    text = "sentence1\tsentence2\tmarker\n他累了。\t他还在走。\t但是\n一\t \t因此\n一\t二\t\n一\t二\n"
    path, rejects = write(tmp_path / "m.tsv", text), RejectCounter()
    assert read(path, rejects, "marked_pairs") == [
        (":2", RawMarkedPair(f"{path}:2", "他累了。", "他还在走。", "但是"))
    ]
    assert rejects.counts == {"empty_sentence": 1, "empty_marker": 1, "wrong_columns": 1}


def test_options_come_from_the_recipe() -> None:
    data = DataConfig(shards_dir="x", encoding="gb18030", min_chars=7, strip_html=False)
    assert TextOptions.of(data, 3) == TextOptions("gb18030", strip_html=False, min_chars=7, seed=3)
    assert TextOptions.of(DataConfig(shards_dir="x")) == TextOptions() and hash(TextOptions()) == hash(
        TextOptions()
    )


def test_dev_split_is_a_share_of_the_content() -> None:
    documents = [RawDocument(f"f:{n}", f"第{n}篇。\n完。") for n in range(4000)]
    dev = [is_dev(document, 0.05) for document in documents]
    assert 150 < sum(dev) < 250
    assert dev == [is_dev(RawDocument("elsewhere", document.text), 0.05) for document in documents]
    smaller = [is_dev(document, 0.01) for document in documents]
    assert all(big for big, small in zip(dev, smaller, strict=True) if small) and 0 < sum(smaller) < sum(dev)
    same_query = {
        is_dev(RawPair("f:1", "天气", title, label), 0.5) for title, label in (("a", 0), ("b", 1), ("c", 0))
    }
    assert (
        len(same_query)
        == len({is_dev(RawMarkedPair("f:1", "天气", "好", marker), 0.5) for marker in "abcd"})
        == 1
    )


def random_file(rng: random.Random) -> bytes:
    """Anything that a file can hold, wild mixtures included."""
    texts = [
        "中文句子。",
        "plain words ",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        "\u3000",
        "\u2028",
        "\ufeff",
        '{"text": "文"}\n',
        "<doc id=1>\n",
        "</doc>\n",
        "[{",
        "}]",
        '"',
        "\\",
        "&lt;br&gt;",
        "<b>",
        "query\ttitle\tclicked\n",
        "x" * 3000,
        " " * 500,
        "\n \n" * 50,
    ]
    raw = [
        bytes(rng.randrange(256) for _ in range(50)),
        b"\x00" * 100,
        "文字".encode("gb18030"),
        "文字".encode("big5"),
        b"\xff\xfe",
        b"\x1f\x8b",
        "文".encode("utf-16"),
        b"BZh",
        b"\x28\xb5\x2f\xfd",
    ]
    chosen: Sequence[bytes] = [text.encode() for text in texts] + raw
    return b"".join(rng.choice(chosen) for _ in range(rng.randrange(1, 60)))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_file_holds_ends_in_documents_or_a_count(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(150):
        data = random_file(rng)
        name = rng.choice(["a.txt", "a.jsonl", "a.json", "wiki_00", "a.txt.gz"])
        path = write(tmp_path / name, data)
        options = TextOptions(
            rng.choice(["utf-8", "gb18030", "big5", "latin-1"]), normalise_width=number % 2 == 0
        )
        rejects, found = RejectCounter(), []
        try:
            found = list(read_all([path], "documents", options, rejects))
        except ConfigError as error:
            assert str(path) in str(error)
        lines = data.replace(b"\r", b"\n").count(b"\n") + 1
        for document in found:
            assert document.text and all(
                line == " ".join(line.split()) != "" for line in document.text.split("\n")
            )
            assert 1 <= int(document.source.rpartition(":")[2]) <= lines
        json.dumps(rejects.to_json(), ensure_ascii=False).encode("utf-8")


def test_pieces_of_any_size_give_the_same_documents(tmp_path: Path) -> None:
    rng, options = random.Random(8), TextOptions()
    blocks = [
        "一。\n二。",
        "<br>三&amp;四",
        "　五　六\r\n七",
        "\xff八"[1:],
        "九" * 400,
        " \u200b十",
        "\u3000\n",
    ]
    text = "".join(
        rng.choice(blocks) + rng.choice(["\n\n", "\n", "\r\n\r\n", "\n \n"]) for _ in range(500)
    ).encode()
    path = write(tmp_path / "a.txt", text.replace("八".encode(), b"\xe5\x85", 3))
    made = []
    for piece_bytes in (1, 50, 700, 10**6):
        rejects = RejectCounter(keep=1000)
        pieces = read_pieces([path], "documents", options, rejects, piece_bytes)
        found = [
            (document.source, document.text)
            for piece in pieces
            for document in parse(piece, options, rejects)
        ]
        made.append((found, rejects.counts, rejects.notes))
    assert len(made[0][0]) > 200 and all(one == made[0] for one in made[1:])


def test_parsing_is_fast() -> None:
    text = "他在城里住了很久，后来又回到了乡下。那里的人都认得他！\n" * 5
    piece = Piece("f", "txt", 1, 0, f"{text}\n".encode() * 1000)
    seconds = []
    for _ in range(5):
        started = time.process_time()
        assert len(parse(piece, TextOptions(), RejectCounter())) == 1000
        seconds.append(time.process_time() - started)
    assert len(piece.data) / min(seconds) > 40e6


def test_a_million_characters_in_a_line_take_no_longer() -> None:
    started = time.process_time()
    for text in (
        "一" * 1_000_000,
        "　" * 1_000_000,
        "\n" * 1_000_000,
        "\x00一" * 500_000,
        "<br>" * 250_000,
        "&nbsp;" * 150_000,
    ):
        parsed(text)
        parsed(json.dumps({"text": text}, ensure_ascii=False), "jsonl")
    assert time.process_time() - started < 10


def test_files_that_are_utf_8_need_no_name_of_their_encoding(tmp_path: Path) -> None:
    """One recipe may have a corpus in gb18030 and another in UTF-8: data.encoding is that of the files that
    are not UTF-8."""
    (tmp_path / "a.txt").write_text("我是学生。\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("他是老师。\n", encoding="gb18030")
    rejects, options = RejectCounter(), TextOptions(encoding="gb18030")
    pieces = list(read_pieces([tmp_path / "a.txt", tmp_path / "b.txt"], "documents", options, rejects))
    texts = [document.text for piece in pieces for document in parse(piece, options, rejects)]
    assert sorted(texts) == ["他是老师。", "我是学生。"] and not rejects.total
