"""docs/shards.md is enough to write a reader: the one printed there, which knows struct and json only, agrees
with ours."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT, tiny_example, write_tiny_shards

from ernie2.shards import SPLITS, ShardReader, ShardWriter
from ernie2.tokenizer import Vocab

PAGE = (ROOT / "docs/shards.md").read_text(encoding="utf-8")
FIELDS = {
    "token_ids": lambda e: e.token_ids,
    "sentence_ids": lambda e: e.sentence_ids,
    "token_labels": lambda e: e.token_labels,
    "sentence_label": lambda e: e.sentence_label,
} | {f"span_ids_{level}": lambda e, level=level: e.span_ids[level] for level in ("word", "phrase", "entity")}


@pytest.fixture()
def page_reader(tmp_path: Path) -> ModuleType:
    """The page's code block as a module."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    imported = {
        alias.name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"struct", "json"} and "from " not in code.split('"""', 2)[2].split("def ")[0]
    path = tmp_path / "page_reader.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("page_reader", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_reader_agrees_with_ours(page_reader, tiny_tasks, tiny_vocab, tmp_path):
    write_tiny_shards(tmp_path / "shards", tiny_tasks, Vocab.load(tiny_vocab))
    seen = set()
    for name, task in tiny_tasks.items():
        for split, count in (("train", 120), ("dev", 24)):
            ours, theirs = ShardReader(tmp_path / "shards" / name, split, task), []
            theirs = list(page_reader.read_examples(tmp_path / "shards" / name, split))
            assert len(theirs) == len(ours) == count
            for i, example in enumerate(theirs):
                assert set(example) | {"offsets"} == set(ours.index["fields"])
                for field, values in example.items():
                    assert np.array_equal(values, FIELDS[field](ours[i])), (name, split, i, field)
                seen |= set(example)
    assert seen == set(FIELDS)


def test_digests_types_and_headers_are_what_the_page_says(tiny_tasks, tiny_vocab, tmp_path):
    vocab = Vocab.load(tiny_vocab)
    write_tiny_shards(tmp_path, tiny_tasks, vocab)
    assert hashlib.sha256("\n".join(vocab.id_to_token).encode()).hexdigest() == vocab.digest
    for name in tiny_tasks:
        index = json.loads((tmp_path / name / "index.json").read_text(encoding="utf-8"))
        assert index["vocab_digest"] == vocab.digest and index["vocab_size"] == len(vocab)
        for split in SPLITS:
            for shard in index["shards"][split]:
                files = [
                    tmp_path / name / split / f"{shard['name']}.{field}.npy" for field in index["fields"]
                ]
                assert (
                    hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
                    == shard["digest"]
                )
                for file in files:
                    data = file.read_bytes()
                    length = int.from_bytes(data[8:10], "little")
                    assert (10 + length) % 64 == 0 and data[9 + length] == 0x0A
            assert index["samples"][split] == sum(shard["samples"] for shard in index["shards"][split])
        on_the_page = set(re.findall(r"^\| `(\w+)` \| u?int", PAGE, re.M))
        assert set(index["fields"]) <= on_the_page == {*FIELDS, "offsets"}


def test_a_large_vocabulary_has_wider_ids(page_reader, tiny_tasks, tiny_vocab, tmp_path):
    writer = ShardWriter(tmp_path / "cover", tiny_tasks["cover"], 70_000)
    example = tiny_example(tiny_tasks["cover"], Vocab.load(tiny_vocab), np.random.default_rng(0))
    example.token_ids[3] = 69_999
    for split in SPLITS:
        writer.write(split, example)
    assert writer.close({})["fields"]["token_ids"] == "int32"
    assert next(page_reader.read_examples(tmp_path / "cover", "dev"))["token_ids"][3] == 69_999


def test_the_pages_reader_refuses_what_does_not_fit(page_reader, tiny_tasks, tiny_vocab, tmp_path):
    write_tiny_shards(tmp_path, tiny_tasks, Vocab.load(tiny_vocab))
    path = tmp_path / "cover/train/00000.token_ids.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="token_ids"):
        next(page_reader.read_examples(tmp_path / "cover", "train"))
    index = tmp_path / "order/index.json"
    index.write_text(
        index.read_text(encoding="utf-8").replace('"format_version": 1', '"format_version": 2'),
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="version 2"):
        next(page_reader.read_examples(tmp_path / "order", "train"))
