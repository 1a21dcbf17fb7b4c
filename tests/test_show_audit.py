"""data_gen.show and data_gen.audit: what they print about shards made from a small corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_pipeline import code_of, made_vocab, write_corpus, write_log

from data_gen import audit, show
from data_gen.__main__ import main as generate
from data_gen.audit import SpanStatistics, faults
from ernie2.shards import ShardReader

TASKS = ["capitalization", "token_document", "sentence_reordering", "sentence_distance", "discourse_relation",
         "ir_relevance"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of six tasks."""
    folder = tmp_path_factory.mktemp("shards")
    mapping = {
        "name": "t", "out_dir": str(folder / "out"), "model": {"size": "tiny", "vocab_file": str(made_vocab(folder))},
        "data": {"shards_dir": str(folder / "shards"), "corpus": [str(write_corpus(folder / "corpus.txt"))],
                 "query_log": [str(write_log(folder / "log.tsv"))], "language": "en", "max_seq_len": 128,
                 "dev_share": 0.2},
        "curriculum": {"stages": [TASKS], "steps_per_task": 10, "mode": "multitask"}, "lr": {"peak": 1e-3}}
    (folder / "r.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    assert code_of(generate, folder / "r.yaml", "--workers", 1) == 0
    return folder / "shards"


@pytest.mark.parametrize("task", TASKS)
def test_show_prints_all_there_is(shards: Path, task: str, capsys: pytest.CaptureFixture) -> None:
    assert code_of(show.main, shards / task, "-n", "2") == 0
    printed = capsys.readouterr().out
    assert printed.count(f"{task}, train, example") == 2 and "[CLS]" in printed and "[SEP]" in printed
    assert "\x1b[" not in printed  # no colour outside a terminal
    for start in ("segment 0", "word", "phrase", "entity", "mask basic", "mask phrase", "mask entity"):
        assert printed.count("\n" + start) == 2
    assert "[MASK]<" in printed
    assert ("\nlabel " in printed) == (task not in ("capitalization", "token_document"))


def test_show_says_labels_in_words(shards: Path, capsys: pytest.CaptureFixture) -> None:
    assert code_of(show.main, shards / "sentence_distance", "--class", "2", "-n", "3") == 0
    assert capsys.readouterr().out.count("label 2: different documents") == 3
    assert code_of(show.main, shards / "capitalization", "-n", "1") == 0
    assert "class 1 (capital): " in capsys.readouterr().out
    assert code_of(show.main, shards / "sentence_reordering", "--split", "dev", "-n", "1") == 0
    assert "segment" in capsys.readouterr().out
    reader = ShardReader(shards / "discourse_relation", "train")
    label = next(reader[i].sentence_label for i in range(len(reader)) if reader[i].sentence_label)
    assert code_of(show.main, shards / "discourse_relation", "--class", label, "-n", "1") == 0
    printed = capsys.readouterr().out
    assert any(f": {name}\n" in printed for name in ("however", "then", "for example", "but", "therefore"))


def test_show_in_colour(shards: Path) -> None:
    _, generator, tokenizer = show.load_shards(shards / "sentence_distance")
    example = ShardReader(shards / "sentence_distance", "train")[0]
    lines = list(show.describe(example, generator, tokenizer, np.random.default_rng(0), show.Painter(True)))
    assert lines[0].startswith("\x1b[32mlabel")
    assert any("\x1b[31m[MASK]<" in line for line in lines)


def test_show_refuses_what_is_not_there(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, part in [((tmp_path,), "no finished shards"),
                            ((shards / "ir_relevance", "--class", 9), "no such example"),
                            ((shards / "ir_relevance", "--vocab", tmp_path / "v.txt"), "no vocabulary there")]:
        assert code_of(show.main, *arguments) == 2
        assert part in capsys.readouterr().err
    other = tmp_path / "other.txt"
    other.write_text("[PAD]\n[CLS]\n[SEP]\n[MASK]\n[UNK]\na\n", encoding="utf-8")
    assert code_of(show.main, shards / "ir_relevance", "--vocab", other) == 2
    assert "not the vocabulary" in capsys.readouterr().err


def test_audit_reports_every_task(shards: Path, capsys: pytest.CaptureFixture) -> None:
    assert code_of(audit.main, shards) == 0
    printed = capsys.readouterr().out
    assert printed.count("== ") == len(TASKS) and "DEGENERATE" not in printed
    assert "rejected: document of one sentence: 1" in printed and "33.3%" in printed
    assert code_of(audit.main, shards / "ir_relevance") == 0
    assert capsys.readouterr().out.count("== ") == 1


def test_audit_fails_on_a_degenerate_label(shards: Path, capsys: pytest.CaptureFixture) -> None:
    labels = next((shards / "ir_relevance" / "train").glob("*.sentence_label.npy"))
    good = labels.read_bytes()
    np.save(labels, np.zeros_like(np.load(labels)))
    try:
        assert code_of(audit.main, shards / "ir_relevance") == 1
        printed = capsys.readouterr().out
        assert "class 1 does not occur" in printed and "class 0 has 100.0%" in printed
    finally:
        labels.write_bytes(good)


def test_audit_refuses_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert code_of(audit.main, tmp_path) == 2
    assert "no finished shards" in capsys.readouterr().err


@pytest.mark.parametrize(("labels", "count"), [
    ([], 0), ([5, 5, 5], 0), ([5, 0, 5], 1), ([0, 0, 0], 1), ([96, 4], 1), ([95, 5], 0), ([1] * 32 + [0], 0),
    ([99, 0, 1], 2)])
def test_faults(labels: list[int], count: int) -> None:
    assert len(faults("t", np.array(labels, np.int64))) == count


def test_span_statistics_count_units_of_each_example() -> None:
    statistics = SpanStatistics()
    #               -1 a a b -1 | -1 a c -1: the two a's are different units, as are neighbours across examples
    statistics.add(np.array([-1, 0, 0, 1, -1, -1, 0, 1, -1]), np.array([0, 5, 9]))
    assert (statistics.units, statistics.tokens, statistics.several) == (4, 5, 1)
    statistics.add(np.array([0, 0, 0]), np.array([0, 2, 3]))
    assert (statistics.units, statistics.tokens, statistics.several) == (6, 8, 2)
