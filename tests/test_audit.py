"""data_gen.audit: figures of shards made by hand, verdicts and exit codes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from shard_making import TEXTS, audited, example, shuffled, write_shards, write_two_tasks, write_vocab

from data_gen.audit.files import CODES, in_words
from data_gen.audit.measure import LEVELS, Units, measure, padding
from data_gen.audit.task import Expectation, default_recipe
from data_gen.audit.verdict import Verdict, _apart, _labels, small_corpus
from data_gen.generators.ir_relevance import LABELS
from data_gen.reading import cleaning
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
    assert (found.samples, found.tokens, found.longest) == (3, sum(lengths), max(lengths))
    assert found.lengths[lengths[0]] == 1 and found.lengths[lengths[1]] == 2 and found.lengths.sum() == 3
    assert (found.percentile(0.5), found.percentile(0.95)) == (lengths[1], lengths[0])
    assert found.labels["sentence"].tolist() == [1, 0, 2]
    assert (found.unknown, found.ordinary) == (1, sum(lengths) - 3 - 4)
    assert found.repeated_share == pytest.approx(1 / 3) and found.sampled == 3
    unk = tuple(vocab.token_to_id[token] for token in "在京")
    assert found.contexts.most_common(1) == [(unk, 1)]
    # 居里|夫人 发现 了 放射|元素 。 | 他们 在 [UNK]|京|图书馆 看书 ， : one entity of 4 and one of 2 tokens,
    # phrases of 4 and 5
    for level, tokens in (("phrase", 9), ("entity", 6)):
        units = found.units[level]
        assert units.tokens[LEVELS.index(level)] == tokens and units.units[LEVELS.index(level)] == 2
        assert units.tokens.sum() == found.ordinary and units.shares.sum() == pytest.approx(1)
    assert found.units["phrase"].longest == 5 and found.units["basic"].mean_length == 1


def test_units_agree_with_masking(vocab: Vocab) -> None:
    made = [*shuffled(vocab, 30), example(vocab, ["mar+ie saw the cu+rie ."])]
    offsets = np.cumsum([0] + [len(one.token_ids) for one in made])
    for level in LEVELS:
        ids = np.concatenate([units_of(one, level, vocab.continuation) for one in made])
        words = np.concatenate([one.span_ids["word"] for one in made])
        units = Units()
        units.add(ids, words, level, offsets, np.concatenate([one.token_ids for one in made]))
        expected = 0
        for one in made:
            of = units_of(one, level, vocab.continuation)
            expected += len(np.unique(of[of >= 0]))
        assert units.units.sum() == expected
        assert units.tokens.sum() == (ids >= 0).sum()
    latin = Units()
    latin.add(
        units_of(made[-1], "basic", vocab.continuation),
        made[-1].span_ids["word"],
        "basic",
        np.array([0, len(made[-1].token_ids)]),
        made[-1].token_ids,
    )
    assert latin.tokens.tolist() == [3, 4, 0, 0] and latin.longest == 2


def test_a_sample_is_spread_over_the_shards_and_bounded(tmp_path: Path, vocab: Vocab) -> None:
    made = shuffled(vocab, 200)
    folder = write_shards(tmp_path / "shards", "knowledge_masking", made, [], vocab, samples_per_shard=10)
    reader, task = ShardReader(folder, "train"), load_tasks()["knowledge_masking"]
    found = measure(reader, task, vocab, 500)
    assert 500 <= found.sampled_tokens < 500 + 20 * 32 and found.sampled >= 20
    assert found.samples == found.lengths.sum() == 200, "lengths are counted over all"
    whole = measure(reader, task, vocab)
    assert whole.sampled == 200 and whole.sampled_tokens == reader.tokens


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
    assert found.batches == len(groups) == 12
    assert found.planned == pytest.approx(1 - sum(group.sum() for group in groups) / padded)
    assert (
        found.longest == pytest.approx(1 - np.concatenate(groups).mean() / 32)
        and found.planned < found.longest
    )


# ---- verdicts
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "counts", "bad", "odd"),
    [
        ("sentence", [50, 50, 50], 0, 0),
        ("sentence", [50, 0, 50], 1, 0),
        ("sentence", [0, 0, 0], 1, 0),
        ("sentence", [960, 20, 20], 1, 0),
        ("sentence", [900, 50, 50], 0, 1),
        ("sentence", [60, 20, 20], 0, 1),
        ("sentence", [1000] * 32 + [0], 1, 0),
        ("sentence", [10] * 32 + [0], 0, 1),
        ("sentence", [1] * 33, 0, 0),
        ("token", [99, 0], 1, 0),
        ("token", [97, 3], 1, 0),
        ("token", [70, 30], 0, 0),
        ("token", [85, 15], 0, 1),
    ],
)
def test_labels(head: str, counts: list[int], bad: int, odd: int) -> None:
    found = SimpleNamespace(labels={head: np.array(counts)}, samples=100)
    even = None if head == "token" else 1 / len(counts)
    task = SimpleNamespace(
        splits={"train": found},
        used=lambda head: np.arange(len(counts)),
        name_of=str,
        imported=None,
        no_such_label=set(),
        expectation=lambda head: Expectation("", even),
    )
    verdict = Verdict()
    _labels(task, head, verdict, False)
    assert (len(verdict.bad), len(verdict.odd + verdict.small)) == (bad, odd), verdict


@pytest.mark.parametrize(
    ("train", "dev", "odd"),
    [
        ([50, 50, 50], [40, 40, 40], 0),
        ([50, 50, 50], [75, 25, 20], 1),
        ([50, 50, 50], [75, 10, 10], 0),
        ([0, 0, 0], [99, 9, 9], 0),
        ([10] * 33, [6, 0, 3] * 11, 0),
        ([10] * 33, [99] + [1] * 32, 1),
    ],
)
def test_dev_classes_are_those_of_train(train: list[int], dev: list[int], odd: int) -> None:
    splits = {
        "train": SimpleNamespace(labels={"sentence": np.array(train)}),
        "dev": SimpleNamespace(labels={"sentence": np.array(dev)}),
    }
    verdict = Verdict()
    _apart(SimpleNamespace(splits=splits, name_of=str), "sentence", verdict)
    assert len(verdict.odd) == odd and not verdict.bad
    if odd and len(train) == 3:
        assert (
            "class 0 (0) is 33.3% of train, 62.5% of dev" in verdict.odd[0]
            and "29% of its examples" in verdict.odd[0]
        )


def test_a_small_corpus_is_said_once() -> None:
    """Few dev examples in most tasks are one remark; a task that alone is small is odd."""

    def tasks(*sizes: int) -> list[tuple[SimpleNamespace, Verdict]]:
        return [
            (
                SimpleNamespace(name=f"task{size}", splits={"dev": SimpleNamespace(samples=size)}),
                Verdict(small=["only few"] * (size < 100)),
            )
            for size in sizes
        ]

    found = tasks(20, 30, 5000)
    found[0][1].small.append("3 of 9 classes have no example; that may be chance: give more text")
    note = small_corpus(found)
    assert "2 of 3 tasks have 20 to 30 dev examples" in note
    assert "task20: 3 of 9 classes have no example; that may be chance; give more text" in note
    assert {verdict.state for _, verdict in found} == {"good"}
    for found in (tasks(20), tasks(20, 5000), tasks(20, 5000, 6000)):
        assert small_corpus(found) is None and found[0][1].state == "odd"


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
    assert "unknown tokens, most often － · <「 · 」: another vocabulary may help" in out
    assert "[UNK] stands most often for: － 40 · <「 9 · 」 8 · \ufffd 7" in out
    assert (
        "top dictionary entity of several words: 中国 人民 1,200" in out
        and "top dictionary phrase: 放射 9" in out
    )
    assert (
        "◐ dictionary a&b.txt: 0 of 1,300 entries found" in out
        and " dictionary c.txt: 4 of 9 entries found" in out
    )
    page = (tmp_path / "shards/audit.html").read_text(encoding="utf-8")
    assert re.search(r"a&amp;b.txt</td>\s*<td>1,300</td>\s*<td>", page) and "◐ none" in page
    assert "<span>&lt;「 <small>9</small></span>" in page and "where they stand most often" not in page
    assert "<b>Entities of several words</b><span>中国 人民 <small>1,200</small>" in page
    statistics["unknown_tokens"].append(["ＡＢＣ", 1])
    write_shards(tmp_path / "shards", "knowledge_masking", made, made[:1], vocab, statistics=statistics)
    assert "or data.normalise_width=true, may help" in re.sub(
        r"\s+", " ", audited(capsys, tmp_path / "shards")
    )


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
    assert out.count("left out while reading: too_short") == 1 and ": 7, for example a.txt:7: x" in out
    assert out.count("changed or set aside: html") == 1 and "replaced): 3\n" in out


def test_advice_fits_imported_shards(tmp_path: Path, vocab: Vocab, capsys: pytest.CaptureFixture) -> None:
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
        "class 1 same document, not adjacent has no example, as is to be expected",
        "raise --dev-share",
        "no entity of several words is ever masked: Baidu's format",
        "import them again",
        "the import rejected more",
        "not 5 fields: 99, for example a.gz:7: x;y",
        "imported: 60 train",
    ):
        assert words in out
    assert (
        "entity_dicts" not in out
        and "data." not in out.replace("python -m data_gen.", "")
        and "WRONG" not in out
    )
    imported["labels"]["2"] = 1
    write_shards(tmp_path / "shards", "sentence_distance", made, made[:1], vocab, imported=imported)
    assert "class 1 same document, not adjacent has no example" in audited(
        capsys, tmp_path / "shards", code=1
    )


def test_every_code_of_the_readers_has_words() -> None:
    found = {"html"}
    files = [
        *(ROOT / "data_gen/reading").glob("*.py"),
        ROOT / "data_gen/text/annotate.py",
        ROOT / "data_gen/block_work.py",
    ]
    for path in files:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'ejects\.(?:note|add)\(.*?, "([a-z][a-z_0-9-]*)"', text))
        found |= set(re.findall(r'_change\("(\w+)"', text)) | set(re.findall(r'"(empty_\w+)"', text))
    found |= set(cleaning._KINDS) | {"traditional"}
    assert len(found) > 25 and not [code for code in found if not in_words(code)]
    documented = set(re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs/data.md").read_text(encoding="utf-8")))
    assert len(set(CODES) & documented) > 12
    assert in_words("not_gb18030").startswith("bytes that are not gb18030") and in_words("of one's own") == ""


def test_all_is_well(shards: Path, capsys: pytest.CaptureFixture) -> None:
    out = audited(capsys, shards)
    assert "== sentence_distance (task_id 4, zh, max_seq_len 32)" in out and "== knowledge_masking" in out
    assert "WRONG" not in out and f"wrote {shards / 'audit.html'}" in out
    assert re.search(r"0 adjacent +100 +33.3% +33.3% +10 +33.3%", out)
    assert "rejected: document of one sentence: 7" in out and "top dictionary entity: 居里夫人 21" in out
    assert "3 classes, 33.3% each" in out
    assert "== sentence_distance" in audited(
        capsys, shards / "sentence_distance", "--out", shards / "one.html"
    )
    assert "knowledge_masking" not in (shards / "one.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0] * 60 + [2] * 60, "class 1 weak: shown and not clicked, or the middle grade has no example"),
        ([0] * 196 + [1, 2], "99.0% of the examples have class 0 (strong: clicked, or the top grade)"),
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
    missing = re.search(r"(\d+) of (\d+) classes have no example: 0 \[no-conn\],", out)
    assert missing and int(missing[2]) < 174, "classes that the generator declares unused are not expected"
    assert int(missing[2]) - int(missing[1]) == 3 and "may be chance" in re.sub(r"\s+", " ", out)
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
        "only 1 dev example:",
        "96.7% of the training examples looked at repeat",
        "is this the right vocabulary?",
        "no entity of several words is ever masked: give entities of several words",
        "no phrase of several words",
        "1 of 1 dev examples occur word for word",
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
