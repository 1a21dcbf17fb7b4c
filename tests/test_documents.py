"""data_gen.documents and data_gen.sentences: readers, mistakes in files, sentence splitting."""

from __future__ import annotations

import gzip
import json
import random
import time
from pathlib import Path

import pytest

from data_gen.documents import (
    RawDocument,
    RawPair,
    RejectCounter,
    clean_text,
    expand_paths,
    is_dev,
    read_documents,
    read_pairs,
    split_sentences,
)
from ernie2.config import ConfigError


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    data = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path: Path, **options: object) -> list[tuple[str, list[str]]]:
    return [(d.source.removeprefix(str(path)), d.paragraphs) for d in read_documents([path], **options)]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_documents_end_at_blank_lines(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\n\n一。\n二。\n\n \t\n三。\n\n\n四。\n五。")
    assert read(path) == [(":3", ["一。", "二。"]), (":7", ["三。"]), (":10", ["四。", "五。"])]


def test_odd_bytes_are_cleaned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeff一\x00\u200b二\r\n　三\t\x0b四\u2028五\x07\r\n\r\n\ufffd六\r\n")
    assert read(path) == [(":1", ["一二", "三 四 五"]), (":4", ["六"])]
    assert clean_text(" a\ud800b ") == "ab"


def test_jsonl_takes_both_forms_and_counts_bad_lines(tmp_path: Path) -> None:
    rows = ['{"text": "一。\\n\\n二。"}', "", '{"title": "题", "content": "三。\\n四。", "id": 7}',
            '{"content": "五。"}', "{broken", "[1]", '{"text": 3}',
            '{"title": "只有题目"}', '{"text": " \\n "}', '{"text": "\\ud800六"}']
    path, rejects = write(tmp_path / "a.jsonl.gz", "\n".join(rows)), RejectCounter()
    wanted = [(":1", ["一。", "二。"]), (":3", ["题", "三。", "四。"]), (":4", ["五。"]), (":10", ["六"])]
    assert read(path, rejects=rejects) == wanted
    assert rejects.counts == {"bad_json": 2, "no_text": 2, "empty_document": 1} and rejects.total == 5
    assert rejects.examples["bad_json"][0] == f"{path}:5: {{broken"


def test_other_encodings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "鲁迅写了很多书。\n\n第二。", "gb18030")
    assert read(path, encoding="gb18030") == [(":1", ["鲁迅写了很多书。"]), (":3", ["第二。"])]
    with pytest.raises(ConfigError, match=r"a.txt:1: not utf-8 at byte 6 .*data.encoding=gb18030"):
        read(path)
    with pytest.raises(ConfigError, match="unknown"):
        read(path, encoding="utf-9")
    with pytest.raises(ConfigError, match="iconv"):
        read(path, encoding="utf-16")


def test_bad_bytes_are_located(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a.txt:2: not utf-8 at byte 8 \(ff 62\)"):
        read(write(tmp_path / "a.txt", "一。\n".encode() + b"a\xffb"), rejects=None)


def test_missing_and_empty_input_is_named(tmp_path: Path) -> None:
    cases = {
        "no such file": [tmp_path / "nowhere.txt"], "no such file ": [tmp_path / "none*.txt"],
        "at least one file": [],
        "no document in it": [write(tmp_path / "empty.txt", "")],
        "no document in it ": [write(tmp_path / "blank.txt", " \n\n")],
        "unknown kind": [write(tmp_path / "a.pdf", "x")], "damaged gzip": [tmp_path / "cut.txt.gz"],
        "damaged gzip ": [tmp_path / "plain.txt.gz"], "no such file  ": [tmp_path / "folder"],
    }
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress("很多文字。".encode() * 1000)[:60])
    (tmp_path / "plain.txt.gz").write_bytes("不是压缩文件。".encode())
    for message, paths in cases.items():
        with pytest.raises(ConfigError, match=message.strip()):
            list(read_documents(paths))


def test_paths_are_sorted_and_each_comes_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt.gz", "sub/d.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "x")
    found = expand_paths([tmp_path / "*.txt", str(tmp_path / "a.txt"), str(tmp_path / "**" / "*.gz"), tmp_path / "sub"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.txt", "b.txt", "sub/c.txt.gz"]
    write(tmp_path / "[1].txt", "x")
    assert expand_paths([tmp_path / "[1].txt"]) == [tmp_path / "[1].txt"]


def test_one_empty_file_among_others_is_no_mistake(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "")
    write(tmp_path / "b.txt", "一。")
    assert len(list(read_documents([tmp_path / "*.txt"]))) == 1


@pytest.mark.parametrize(("column", "rows", "labels"), [
    ("clicked", ["1", "0"], [0, 1]), ("relevance", ["2", "1", "0"], [0, 1]),
])
def test_query_logs(tmp_path: Path, column: str, rows: list[str], labels: list[int]) -> None:
    text = f"\ufeffquery\ttitle\t{column}\r\n" + "".join(f"词{n}\t标题{n}\t{value}\r\n" for n, value in enumerate(rows))
    path, rejects = write(tmp_path / "log.tsv.gz", text), RejectCounter()
    assert list(read_pairs([path], rejects)) == [RawPair(f"{path}:{n + 2}", f"词{n}", f"标题{n}", label)
                                                 for n, label in enumerate(labels)]
    assert rejects.total == 0 and rejects.notes == ({"relevance_0": 1} if column == "relevance" else {})


def test_query_log_rejects_are_counted(tmp_path: Path) -> None:
    path, rejects = tmp_path / "log.tsv", RejectCounter()
    write(path, "query\ttitle\tclicked\n\ta\t1\na\t \t1\na\tb\na\tb\tc\t1\n\na\tb\t0\n")
    assert [(pair.query, pair.label) for pair in read_pairs([path], rejects)] == [("a", 1)]
    assert rejects.counts == {"empty_query": 1, "empty_title": 1, "wrong_columns": 2}


@pytest.mark.parametrize(("content", "message"), [
    ("query\ttitle\tclick\na\tb\t1\n", r"log.tsv:1: the header is 'query\\ttitle\\tclick'.*clicked.*relevance"),
    ("", r"log.tsv:1: the header is ''"),
    ("query\ttitle\tclicked\na\tb\t1\na\tb\t2\n", r"log.tsv:3: label '2' is out of range; use one of 0, 1"),
    ("query\ttitle\trelevance\na\tb\tyes\n", r"log.tsv:2: label 'yes'.*0, 1, 2"),
    ("query\ttitle\tclicked\n", "no usable row"),
])
def test_bad_query_log_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(read_pairs([write(tmp_path / "log.tsv", content)]))


def test_reject_counter_merges_and_keeps_few_examples() -> None:
    one, two = RejectCounter(keep=2), RejectCounter()
    one.add("a:1", "bad", "x" * 100)
    for n in range(5):
        two.add(f"b:{n}", "bad")
        two.note("c", "seen")
    one.merge(two)
    assert one.counts == {"bad": 6} and one.notes == {"seen": 5} and one.total == 6
    assert one.examples["bad"] == ["a:1: " + "x" * 60, "b:0"]


def test_dev_split_is_a_share_of_the_content() -> None:
    documents = [RawDocument(f"f:{n}", [f"第{n}篇。", "完。"]) for n in range(4000)]
    dev = [is_dev(document, 0.05) for document in documents]
    assert 150 < sum(dev) < 250
    assert dev == [is_dev(RawDocument("elsewhere", document.paragraphs), 0.05) for document in documents]
    smaller = [is_dev(document, 0.01) for document in documents]
    assert all(big for big, small in zip(dev, smaller, strict=True) if small) and 0 < sum(smaller) < sum(dev)
    same_query = {is_dev(RawPair("f:1", "天气", title, label), 0.5) for title, label in (("a", 0), ("b", 1), ("c", 0))}
    assert len(same_query) == 1


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
]
EN = [
    "Dr. Smith went home.|He was tired.",
    "He paid $3.14 for it.|What?|Yes!",
    "The U.S. Army came at 5 p.m. on Monday.|It left.",
    "\"Is that so?\" he said.|\"Yes. It is.\"|Mr. Bennet replied... and left.",
    "See Fig. 3 and No. 5.|No.|He met J. R. Smith.",
    "“Come. Now,” she said.|They left (really. They did.) quickly.",
    "He lives on Main St.|It is nice.|St. Paul came.",
    "It was I.|He knew, e.g. Apple Inc. and others.",
    "Wait...|What now?|Version 2.0.1 is out.",
    "'Fine.'|They left.|It's Tom's. 'tis so.",
]


@pytest.mark.parametrize("marked", ZH)
def test_chinese_sentences(marked: str) -> None:
    assert split_sentences(marked.replace("|", ""), "zh") == marked.split("|")


@pytest.mark.parametrize("marked", EN)
def test_english_sentences(marked: str) -> None:
    assert split_sentences(marked.replace("|", " "), "en") == marked.split("|")


def test_long_quotations_are_split_inside() -> None:
    said = "很长的话。" * 40
    assert len(split_sentences(f"他说：“{said}”走了。", "zh")) == 41
    assert len(split_sentences(f"他说：“{said[:50]}”走了。", "zh")) == 2


def test_english_text_in_a_chinese_corpus() -> None:
    assert split_sentences("Hello there. It works.", "zh") == ["Hello there.", "It works."]


@pytest.mark.parametrize("language", ["zh", "en"])
def test_nothing_is_lost_and_time_is_linear(language: str) -> None:
    rng, marks = random.Random(3), "中文ab A1。！？!?.…，,“”‘’「」()（）《》\"' "
    for _ in range(2000):
        text = "".join(rng.choice(marks) for _ in range(rng.randrange(60)))
        sentences = split_sentences(text, language)
        assert "".join("".join(sentences).split()) == "".join(text.split())
        assert all(sentence == sentence.strip() != "" for sentence in sentences)
    started = time.process_time()
    for text in ("“（" * 50_000 + "”" * 25_000, "。" * 100_000, "a. " * 30_000, "中。" * 50_000, "“中。”" * 25_000,
                 "(" * 100_000 + ")"):
        split_sentences(text, language)
    assert time.process_time() - started < 10


def test_text_wins_over_title(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "正文。", "title": "题"}, ensure_ascii=False))
    assert read(path) == [(":1", ["正文。"])]
