"""data_gen.audit: damaged files and rejects are named, and the page is whole as a browser draws it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from shard_making import audited, write_two_tasks, write_vocab

from data_gen.audit import read_rejects
from ernie2.tokenizer import Vocab


@pytest.fixture
def vocab(tmp_path: Path) -> Vocab:
    return write_vocab(tmp_path / "shards")


@pytest.fixture
def shards(tmp_path: Path, vocab: Vocab) -> Path:
    return write_two_tasks(tmp_path / "shards", vocab)


# ---- files
# --------------------------------------------------------------------------------------------------------------


def test_damaged_files_are_named_and_the_rest_is_audited(shards: Path, capsys: pytest.CaptureFixture) -> None:
    assert "WRONG" not in audited(capsys, shards, "--digests")
    path = shards / "knowledge_masking/train/00001.span_ids_word.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "WRONG" not in audited(capsys, shards)
    out = audited(capsys, shards, "--digests", code=1)
    assert "knowledge_masking/train/00001.*.npy: not the bytes that were written" in out
    path.write_bytes(whole[:-70])
    out = audited(capsys, shards, code=1)
    assert "00001.span_ids_word.npy: truncated" in out and "● sentence_distance  fine" in out
    page = (shards / "audit.html").read_text(encoding="utf-8")
    assert "00001.span_ids_word.npy: truncated" in page and '<section><h2 id="sentence_distance">' in page
    path.write_bytes(whole)
    (shards / "knowledge_masking/train/00000.offsets.npy").unlink()
    assert "00000.offsets.npy: missing" in audited(capsys, shards, code=1)
    np.save(shards / "knowledge_masking/train/00000.offsets.npy", np.arange(51)[::-1])
    assert "knowledge_masking/train: offsets do not rise" in audited(capsys, shards, code=1)


def test_an_index_that_cannot_be_read(shards: Path, capsys: pytest.CaptureFixture) -> None:
    (shards / "broken").mkdir()
    (shards / "broken/index.json").write_text("{", encoding="utf-8")
    (shards / "half.tmp").mkdir()
    (shards / "half.tmp/index.json").write_text("{", encoding="utf-8")
    out = audited(capsys, shards, code=1)
    assert "WRONG: broken: " in out and "not JSON" in out and "half" not in out
    assert "not JSON" in audited(capsys, shards / "broken", code=2)


def test_rejects_of_each_reason(tmp_path: Path) -> None:
    rows = [
        {"task": None, "file": "a.jsonl", "line": 2, "reason": "bad_json", "text": ""},
        *(
            {"task": "t", "file": "b.txt", "line": line, "reason": "short", "text": "了"}
            for line in (1, 1, 2, 3, 4)
        ),
        {"task": None, "file": "c.gz", "line": None, "reason": "truncated", "text": ""},
    ]
    path = tmp_path / "rejects.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + '\n[1]\n{"task', encoding="utf-8")
    found = read_rejects(path)
    assert found == {
        (None, "bad_json"): ["a.jsonl:2"],
        ("t", "short"): ["b.txt:1: 了", "b.txt:2: 了", "b.txt:3: 了"],
        (None, "truncated"): ["c.gz"],
    }
    assert read_rejects(tmp_path / "none.jsonl") == {}


def test_mistakes(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other.txt"
    other.write_text("[PAD]\n[CLS]\n[SEP]\n[MASK]\n[UNK]\na\n", encoding="utf-8")
    for arguments, part in [
        ((tmp_path / "empty",), "no finished shards"),
        ((tmp_path / "nowhere",), "no finished shards"),
        ((shards, "--vocab", other), "not the vocabulary"),
        ((shards, "--recipe", tmp_path / "no.yaml"), "no such file"),
        ((shards, "--out", tmp_path / "no/page.html"), "choose another place with --out"),
    ]:
        assert part in audited(capsys, *arguments, code=2)
    assert not list(shards.glob("*.part"))


# ---- the page
# -----------------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_loads_nothing(shards: Path, capsys: pytest.CaptureFixture) -> None:
    bad = {
        "task": "sentence_distance",
        "file": "<script>x</script>",
        "line": 3,
        "reason": "document of one sentence",
        "text": "\x00&\ud800",
    }
    (shards / "rejects.jsonl").write_text(json.dumps(bad) + "\n", encoding="utf-8")
    audited(capsys, shards)
    text = (shards / "audit.html").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text.partition("\n")[2])
    plain = text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xhtml", "")
    assert not any(word in plain for word in ("http", "<script", "url(", "@import", "src=", "<link", "<b>图"))
    assert re.findall(r'href="([^"]*)"', text) == ["#knowledge_masking", "#sentence_distance"]
    pictures = [one.get("aria-label") for one in root.iter() if one.get("role") == "img"]
    assert pictures == [
        "Lengths of the examples",
        "What the masked tokens are part of",
        "Lengths of the examples",
        "Share of each class",
        "What the masked tokens are part of",
    ]
    for words in (
        "● Nothing is wrong or odd in 2 tasks",
        "居里夫人",
        "html left-overs",
        "prefers-color-scheme",
        "40 documents, 123.5 kB",
        "&lt;script&gt;x&lt;/script&gt;:3: \ufffd&amp;\ufffd",
    ):
        assert words in text
    assert text.count('<div class="example">') == 6 and 'class="unit e' in text and 'class="m masked"' in text
    for label in (
        "label 0: adjacent",
        "label 1: same document, not adjacent",
        "label 2: different documents",
    ):
        assert label in text, "the examples are of different classes"


def test_the_recipes_batches_count(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = {
        "name": "mine",
        "out_dir": "x",
        "model": {"vocab_file": "v"},
        "data": {"shards_dir": "s", "max_seq_len": 32},
        "batch": {"tokens": 128, "micro_tokens": 64, "pool_batches": 2},
        "lr": {"peak": 1e-3},
        "curriculum": {"stages": [["knowledge_masking"]], "steps_per_task": 1},
        "masking": {"level": "word"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    audited(capsys, shards, "--recipe", tmp_path / "mine.yaml")
    text = (shards / "audit.html").read_text(encoding="utf-8")
    assert "padding, batches of 64" in text
    audited(capsys, shards)
    text = (shards / "audit.html").read_text(encoding="utf-8")
    assert "padding, batches of 8,192" in text
