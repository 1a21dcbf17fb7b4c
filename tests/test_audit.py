"""data_gen.audit: figures of shards made by hand, verdicts and exit codes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from shard_making import TEXTS, audited, example, shuffled, write_shards, write_two_tasks, write_vocab

from data_gen.audit import LEVELS, SplitMeasure, TaskAudit, count_units, default_recipe, measure, padding
from data_gen.audit.__main__ import judge
from data_gen.generators.ir_relevance import LABELS
from ernie2.batching import TaskStream
from ernie2.masking import units_of
from ernie2.shards import ShardReader
from ernie2.tasks import load_tasks
from ernie2.tokenizer import Vocab


@pytest.fixture
def vocab(tmp_path: Path) -> Vocab:
    return write_vocab(tmp_path / "shards")


@pytest.fixture
def shards(tmp_path: Path, vocab: Vocab) -> Path:
    return write_two_tasks(tmp_path / "shards", vocab)


# ---- figures
# ------------------------------------------------------------------------------------------------------------


def test_measures_of_a_few_examples(tmp_path: Path, vocab: Vocab) -> None:
    made = [example(vocab, TEXTS[:2], 0), example(vocab, [TEXTS[2]], 2), example(vocab, [TEXTS[2]], 2)]
    folder = write_shards(tmp_path / "shards", "sentence_distance", made, [], vocab, samples_per_shard=2)
    task = load_tasks()["sentence_distance"]
    found = measure(ShardReader(folder, "train"), task, vocab)
    lengths = [len(one.token_ids) for one in made]
    assert (found.samples, found.tokens, len(found.lengths)) == (3, sum(lengths), max(lengths) + 1)
    assert found.lengths[lengths[0]] == 1 and found.lengths[lengths[1]] == 2 and found.lengths.sum() == 3
    assert (found.percentile(0.5), found.percentile(0.95)) == (lengths[1], lengths[0])
    assert found.labels["sentence"].tolist() == [1, 0, 2]
    assert (found.unknown, found.ordinary) == (1, sum(lengths) - 3 - 4)
    assert found.repeated_share == pytest.approx(1 / 3) and found.sampled == 3
    # 居里|夫人 发现 了 放射|元素 。 | 他们 在 [UNK]|京|图书馆 看书 ， : one entity of 4 and one of 2 tokens,
    # phrases of 4 and 5
    for level, tokens in (("phrase", 9), ("entity", 6)):
        assert found.units[level][:, LEVELS.index(level)].tolist() == [2, tokens]
        assert found.units[level][1].sum() == found.ordinary
        assert found.masked_shares(level).sum() == pytest.approx(1)


def test_units_agree_with_masking(vocab: Vocab) -> None:
    made = [*shuffled(vocab, 30), example(vocab, ["mar+ie saw the cu+rie ."])]
    offsets = np.cumsum([0] + [len(one.token_ids) for one in made])
    for level in LEVELS:
        ids = np.concatenate([units_of(one, level, vocab.continuation) for one in made])
        words = np.concatenate([one.span_ids["word"] for one in made])
        units = count_units(ids, words, level, offsets)
        expected = 0
        for one in made:
            of = units_of(one, level, vocab.continuation)
            expected += len(np.unique(of[of >= 0]))
        assert units.sum(1).tolist() == [expected, (ids >= 0).sum()]
    latin, offsets = made[-1], np.array([0, len(made[-1].token_ids)])
    ids = units_of(latin, "basic", vocab.continuation)
    assert count_units(ids, latin.span_ids["word"], "basic", offsets)[1].tolist() == [3, 4, 0, 0]


def test_a_sample_is_spread_over_the_shards_and_bounded(tmp_path: Path, vocab: Vocab) -> None:
    made = shuffled(vocab, 200)
    folder = write_shards(tmp_path / "shards", "knowledge_masking", made, [], vocab, samples_per_shard=10)
    reader, task = ShardReader(folder, "train"), load_tasks()["knowledge_masking"]
    found = measure(reader, task, vocab, 500)
    assert 20 <= found.sampled <= 60
    assert found.samples == found.lengths.sum() == 200, "lengths are counted over all"
    whole = measure(reader, task, vocab)
    assert whole.sampled == 200 and sum(whole.digests.values()) == 200


def test_padding_is_that_of_the_plan(tmp_path: Path, vocab: Vocab) -> None:
    folder = write_shards(
        tmp_path / "shards", "knowledge_masking", shuffled(vocab, 300), [], vocab, samples_per_shard=70
    )
    reader, task, recipe = (
        ShardReader(folder, "train"),
        load_tasks()["knowledge_masking"],
        default_recipe(["x"]),
    )
    recipe.data.max_seq_len = 32
    recipe.batch.tokens, recipe.batch.micro_tokens, recipe.batch.pool_batches = 512, 128, 3
    found, stream, lengths = (
        padding(reader, task, recipe, 32),
        TaskStream(reader, task, recipe),
        reader.lengths(),
    )
    groups = [lengths[group] for number in range(3) for group in stream.batch(number)]
    padded = sum(len(group) * group.max() for group in groups)
    assert len(groups) == 12 and found.micro_tokens == 128
    assert found.planned == pytest.approx(1 - sum(group.sum() for group in groups) / padded)
    assert found.longest == pytest.approx(1 - lengths.mean() / 32) and found.planned < found.longest


# ---- verdicts
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "counts", "bad", "odd", "small"),
    [
        ("sentence", [50, 50, 50], 0, 0, 0),
        ("sentence", [50, 0, 50], 1, 0, 0),
        ("sentence", [0, 0, 0], 1, 0, 0),
        ("sentence", [960, 20, 20], 1, 0, 0),
        ("sentence", [900, 50, 50], 0, 1, 0),
        ("sentence", [60, 20, 20], 0, 1, 0),
        ("sentence", [60, 55, 5], 0, 1, 0),
        ("sentence", [1000] * 32 + [0], 1, 0, 0),
        ("sentence", [10] * 32 + [0], 0, 0, 1),
        ("sentence", [1] * 33, 0, 0, 0),
        ("token", [99, 0], 2, 0, 0),
        ("token", [97, 3], 1, 0, 0),
        ("token", [70, 30], 0, 0, 0),
        ("token", [85, 15], 0, 1, 0),
    ],
)
def test_limits_of_labels(head: str, counts: list[int], bad: int, odd: int, small: int) -> None:
    splits = {
        split: SplitMeasure(200, 9000, 1, np.eye(60, dtype=int)[45] * 200, {head: np.array(counts)})
        for split in ("train", "dev")
    }
    yaml = SimpleNamespace(path=Path("x.yaml"), digest=lambda: "d", balance=None, max_per_class=None)
    generator = SimpleNamespace(task=yaml, describe=str)
    task = TaskAudit("x", {"task_digest": "d"}, generator, splits=splits)
    judge(task, allow_missing=False)
    assert (len(task.bad), len(task.odd), len(task.small)) == (bad, odd, small), task


def test_little_text_is_no_oddity(tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture) -> None:
    for seed, name in enumerate(("knowledge_masking", "sentence_distance")):
        made = [one for label in range(3) for one in shuffled(vocab, 30, label, 3 * seed + label)]
        write_shards(tmp_path / "shards", name, made, shuffled(vocab, 9, 0, 9), vocab)
    out = re.sub(r"\s+", " ", audited(capsys, tmp_path / "shards"))
    assert "● knowledge_masking fine ● sentence_distance fine" in out
    assert "a noisy measure (knowledge_masking, sentence_distance): give more text" in out


def test_what_is_unknown_is_named(tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture) -> None:
    made = [example(vocab, ["北 国 的 科学家 北 北 ."]) for _ in range(2)] + shuffled(vocab, 8)
    statistics = {
        "accepted": {"train": 21, "dev": 1},
        "unknown_tokens": [["－", 40], ["<「", 9], ["」", 8], ["\x1b", 7]],
        "dictionaries": [["a&b.txt", 1300, 0], ["c.txt", 9, 4]],
        "dictionary_hits": [["放射", "phrase", 9]],
        "dictionary_hits_joined": [["中国 人民", "entity", 1200]],
    }
    write_shards(tmp_path / "shards", "knowledge_masking", made, made[:1], vocab, statistics=statistics)
    raw = audited(capsys, tmp_path / "shards")
    out = re.sub(r"\s+", " ", raw)
    assert "[UNK], mostly for － · <「 · 」: another vocabulary?" in out
    assert "as [UNK] － 40 · <「 9 · 」 8 · \ufffd 7" in out
    assert (
        "entity of several words 中国 人民 1,200" in out
        and "phrase 放射 9" in out
        and "a&b.txt 1,300 ◐ none" in out
        and "c.txt 9 4" in out
    )
    page = (tmp_path / "shards/audit.html").read_text(encoding="utf-8")
    assert re.search(r"a&amp;b.txt</td>\s*<td>1,300</td>\s*<td>◐ none", page)
    assert "－ 40 · &lt;「 9 · 」 8 · \ufffd 7" in page and "中国 人民 1,200" in page


def test_what_the_readers_left_out_is_said_once(
    tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture
) -> None:
    for name, count, made in (
        ("knowledge_masking", 7, [example(vocab, TEXTS[:1])] * 30),
        ("sentence_distance", 5, [example(vocab, TEXTS[:2], i % 3) for i in range(30)]),
    ):
        write_shards(
            tmp_path / "shards",
            name,
            made,
            made[:1],
            vocab,
            statistics={"read_rejected": {"too_short": count}, "notes": {"html": 3}},
        )
    (tmp_path / "shards/rejects.jsonl").write_text(
        '{"task": null, "file": "a.txt", "line": 7, "reason": "too_short", "text": "x"}\n', encoding="utf-8"
    )
    out = audited(capsys, tmp_path / "shards", "--allow-missing")
    assert re.findall(r"left out +too_short +(\d+) +(.*\S)", out) == [("7", "a.txt:7: x")]
    assert re.findall(r"changed or set aside +html +(\d+)", out) == ["3"]


def test_imported_shards(tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture) -> None:
    made = [
        example(
            vocab,
            [" ".join(np.random.default_rng(i).permutation(list("居里夫人发现了放射元素他们")))],
            2 * (i % 2),
        )
        for i in range(60)
    ]
    imported = {"format": "baidu", "labels": {"1": 0, "0": 2}, "dev_files": []}
    write_shards(
        tmp_path / "shards",
        "sentence_distance",
        made,
        made[:1],
        vocab,
        imported=imported,
        task_digest="0" * 64,
        statistics={"accepted": {"train": 60, "dev": 1}, "rejected": {"not 5 fields": 99}},
    )
    (tmp_path / "shards/sentence_distance.rejects.jsonl").write_text(
        '{"file": "a.gz", "line": 7, "reason": "not 5 fields", "text": "x;y"}\n', encoding="utf-8"
    )
    out = re.sub(r"\s+", " ", audited(capsys, tmp_path / "shards"))
    for words in (
        "no example of 1 (same document, not adjacent): the imported format has no such label",
        "only 0.00% of what level entity masks",
        "make them again",
        "62% was rejected, mostly as: not 5 fields",
        "not 5 fields 99 a.gz:7: x;y",
    ):
        assert words in out
    assert "WRONG" not in out
    imported["labels"]["2"] = 1
    write_shards(tmp_path / "shards", "sentence_distance", made, made[:1], vocab, imported=imported)
    out = audited(capsys, tmp_path / "shards", code=1)
    assert "1 of 3 classes have no example: 1 (same document, not adjacent)" in out


def test_all_is_well(shards: Path, capsys: pytest.CaptureFixture) -> None:
    out = audited(capsys, shards)
    assert "== sentence_distance (task_id 4, zh)" in out and "== knowledge_masking" in out
    assert "WRONG" not in out and f"wrote {shards / 'audit.html'}" in out
    assert re.search(r"0 adjacent +100 +33.3% +33.3% +- +10 +33.3%", out)
    assert re.search("document of one sentence +7", out) and "● sentence_distance  fine" in out
    assert re.search("entity +居里夫人 21", out)
    assert "== sentence_distance" in audited(
        capsys, shards / "sentence_distance", "--out", shards / "one.html"
    )
    assert "knowledge_masking" not in (shards / "one.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            [0] * 60 + [2] * 60,
            "1 of 3 classes have no example: 1 (weak: shown and not clicked, or the middle grade)",
        ),
        ([0] * 196 + [1, 2], "99.0% have class 0 (strong: clicked, or the top grade)"),
    ],
)
def test_a_degenerate_label_fails(
    tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture, labels: list[int], words: str
) -> None:
    made = [shuffled(vocab, 1, label, seed)[0] for seed, label in enumerate(labels)]
    write_shards(tmp_path / "shards", "ir_relevance", made, made[:5], vocab)
    assert f"WRONG: ir_relevance: {words}" in audited(capsys, tmp_path / "shards", code=1)
    page = (tmp_path / "shards/audit.html").read_text(encoding="utf-8")
    assert words in page and "▼ Something is wrong in 1 of 1 task" in page and LABELS[1] in page


def test_missing_classes(tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture) -> None:
    few = [shuffled(vocab, 1, label, label)[0] for label in (1, 2, 3)]
    write_shards(tmp_path / "shards", "discourse_relation", few, few[:1], vocab)
    out = audited(capsys, tmp_path / "shards")
    missing = re.search(r"(\d+) of (\d+) classes have no example, perhaps by chance", out)
    assert missing and int(missing[2]) < 174, "classes that the generator declares unused are not expected"
    assert int(missing[2]) - int(missing[1]) == 3
    pairs = [shuffled(vocab, 1, label, seed)[0] for seed, label in enumerate([0, 1] * 30)]
    write_shards(tmp_path / "pairs", "ir_relevance", pairs, pairs[:1], vocab)
    shutil.copy(tmp_path / "shards/vocab.txt", tmp_path / "pairs")
    audited(capsys, tmp_path / "pairs", code=1)
    audited(capsys, tmp_path / "pairs", "--allow-missing")


def test_what_is_odd_is_said(tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture) -> None:
    plain = [example(vocab, ["北 国 的 科学家 北 北 ."]) for _ in range(30)]
    write_shards(tmp_path / "shards", "knowledge_masking", plain, plain[:1], vocab, task_digest="0" * 64)
    out = re.sub(r"\s+", " ", audited(capsys, tmp_path / "shards"))
    for words in (
        "fewer than 100 dev examples",
        "96.7% of the training examples repeat",
        "[UNK], mostly for ?: another vocabulary?",
        "only 0.00% of what level entity masks is in entities",
        "only 0.00% of what level phrase masks",
        "100.0% of the dev examples are in train",
        "knowledge_masking.yaml is not the one",
    ):
        assert words in out


def test_labels_beyond_the_classes(shards: Path, capsys: pytest.CaptureFixture) -> None:
    path = shards / "sentence_distance/train/00000.sentence_label.npy"
    labels = np.load(path)
    labels[:2] = 7, -3
    np.save(path, labels)
    assert "train: sentence labels -3, 7 are none of the 3 classes" in audited(capsys, shards, code=1)
    ids = np.load(shards / "knowledge_masking/dev/00000.token_ids.npy")
    ids[3] = 9999
    np.save(shards / "knowledge_masking/dev/00000.token_ids.npy", ids)
    assert "dev: token id 9999 is beyond the vocabulary" in audited(capsys, shards, code=1)
