"""data_gen as a user runs it: text to shards, the same whatever the workers; up to date or not; every mistake
named."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_gen import show
from data_gen.__main__ import main
from data_gen.block_work import Settings
from data_gen.blocks import block_bytes_for
from data_gen.generators import connectives
from data_gen.reading.documents import TextOptions
from ernie2 import tasks as tasks_module
from ernie2.shards import ShardReader
from ernie2.tasks import load_tasks

TASKS = [
    "knowledge_masking",
    "capitalization",
    "token_document",
    "sentence_reordering",
    "sentence_distance",
    "discourse_relation",
    "ir_relevance",
]
OPENINGS = ["", "", "", "However, ", "Then, ", "For example, ", "But ", "Therefore, "]


def write_corpus(path: Path, documents: int = 60, seed: int = 0) -> Path:
    """English documents of 3 to 9 sentences about a few words each, one of one sentence."""
    rng = np.random.default_rng(seed)
    nouns = [a + b for a in ("Mar", "Kel", "Tob", "Rin") for b in ("in", "ot", "ase", "ude", "ell")]
    lines = []
    for _ in range(documents):
        own = rng.choice(nouns, 4, replace=False)
        for _ in range(rng.integers(3, 10)):
            a, b = rng.choice(own, 2, replace=False)
            opening = OPENINGS[rng.integers(len(OPENINGS))]
            lines.append(f"{opening}{a} saw the old {b.lower()} of house {rng.integers(99)}.")
        lines.append("")
    path.write_text("\n".join([*lines, "A lone sentence stands here.", ""]), encoding="utf-8")
    return path


def write_log(path: Path) -> Path:
    rows = [
        f"where is place {q}\tmap of place {q} part {t}\t{int(t == 0)}" for q in range(60) for t in range(4)
    ]
    path.write_text("\n".join(["query\ttitle\tclicked", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture()
def recipe(tmp_path: Path) -> Path:
    """A recipe whose vocabulary and shards are still to be made."""
    mapping = {
        "name": "t",
        "out_dir": str(tmp_path / "out"),
        "seed": 5,
        "model": {"size": "tiny", "vocab_file": str(tmp_path / "made" / "vocab.txt")},
        "data": {
            "shards_dir": str(tmp_path / "shards"),
            "corpus": [str(write_corpus(tmp_path / "corpus.txt"))],
            "query_log": [str(write_log(tmp_path / "log.tsv"))],
            "language": "en",
            "max_seq_len": 48,
            "dev_share": 0.2,
            "vocab_size": 300,
        },
        "curriculum": {"stages": [TASKS], "steps_per_task": 10, "mode": "multitask"},
        "lr": {"peak": 1e-3},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return path


def code_of(command: Callable, *argv: object) -> int:
    with pytest.raises(SystemExit) as caught:
        command([str(arg) for arg in argv])
    return caught.value.code


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which may still name a process that was killed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_all_seven_tasks_whatever_the_workers(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert code_of(main, recipe, "--workers", 1) == 0
    printed = capsys.readouterr().out
    assert "MB/s" in printed and "left out by sentence_distance: document of one sentence: 1" in printed
    one = contents(tmp_path / "shards")
    assert code_of(main, recipe, f"data.shards_dir={tmp_path / 'again'}", "--workers", 2) == 0
    assert contents(tmp_path / "again") == one
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {
        *TASKS,
        "vocab.txt",
        "rejects.jsonl",
        ".lock",
    }
    for name, task in load_tasks().items():
        readers = {split: ShardReader(tmp_path / "shards" / name, split, task) for split in ("train", "dev")}
        assert all(len(reader) for reader in readers.values())
        assert readers["train"].lengths().max() <= 48
        statistics = readers["train"].index["statistics"]
        assert statistics["accepted"]["train"] - statistics["thinned"]["train"] == len(readers["train"])
        if task.sentence_classes:
            assert sum(statistics["labels"]["dev"]) == len(readers["dev"])


def test_what_is_left_out_of_dictionaries_is_counted_once(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """However many kinds of input the tasks read."""
    (tmp_path / "terms.txt").write_text("hydrogen\nhydrogen\noxygen\n", encoding="utf-8")
    tasks = ["--tasks", "sentence_distance,ir_relevance", "--workers", 1]
    assert code_of(main, recipe, f"data.entity_dicts=[{tmp_path / 'terms.txt'}]", *tasks) == 0
    assert "dictionary entries: duplicate: 1\n" in capsys.readouterr().out


def test_dev_documents_are_the_same_in_every_task(recipe: Path, tmp_path: Path) -> None:
    """No sentence of a training example of one task is in the dev split of another."""
    assert code_of(main, recipe, "--tasks", "knowledge_masking,sentence_reordering", "--workers", 1) == 0
    sentences = {}
    for name in ("knowledge_masking", "sentence_reordering"):
        for split in ("train", "dev"):
            reader = ShardReader(tmp_path / "shards" / name, split)
            text = [reader[i].token_ids.tolist() for i in range(len(reader))]
            sentences[name, split] = {tuple(ids[i : i + 12]) for ids in text for i in range(1, len(ids) - 12)}
    assert all(sentences.values())
    assert not sentences["knowledge_masking", "dev"] & sentences["sentence_reordering", "train"]
    assert not sentences["sentence_reordering", "dev"] & sentences["knowledge_masking", "train"]


def test_examples_are_shuffled_across_the_corpus(recipe: Path, tmp_path: Path) -> None:
    assert code_of(main, recipe, "--tasks", "sentence_distance", "--workers", 1) == 0
    reader = ShardReader(tmp_path / "shards" / "sentence_distance", "train")
    labels = [reader[i].sentence_label for i in range(len(reader))]
    assert labels[: len(labels) // 2].count(0) > 0 and labels != sorted(labels)


def test_only_what_changed_is_made_again(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = (recipe, "--tasks", "sentence_distance,ir_relevance", "--workers", 1)

    def said(*more: str) -> str:
        capsys.readouterr()
        assert code_of(main, *arguments, *more) == 0
        return capsys.readouterr().out

    assert said().count("no shards yet") == 2
    before = contents(tmp_path / "shards")
    assert said().count("up to date") == 2 and contents(tmp_path / "shards") == before
    assert "max_seq_len changed from 48 to 40" in said("data.max_seq_len=40")
    said()
    with (tmp_path / "log.tsv").open("a", encoding="utf-8") as log:
        log.write("new query\tnew title\t1\n")
    printed = said()
    assert (
        "ir_relevance: to be made: the input files changed (log.tsv)" in printed
        and "sentence_distance: up to date" in printed
    )
    assert "pairs read: " in printed and "documents read: " not in printed
    victim = next((tmp_path / "shards" / "sentence_distance" / "train").glob("*.token_ids.npy"))
    victim.write_bytes(victim.read_bytes()[:-50])
    assert "truncated" in said()
    assert ": seed changed from 5 to 6" in said("seed=6")
    words = tmp_path / "words.txt"
    words.write_text("the lamp\n", encoding="utf-8")
    assert "the dictionaries changed (words.txt)" in said("seed=6", f"data.entity_dicts=[{words}]")
    assert "the dictionaries changed (one was taken away, or their order is another)" in said("seed=6")


def test_a_chinese_corpus_called_english_is_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    chinese, mixed = tmp_path / "zh.txt", tmp_path / "mixed.txt"
    chinese.write_text("\n\n".join(f"他{i}天没有回来。\n大家都很担心。" for i in range(60)), encoding="utf-8")
    arguments = (recipe, "--tasks", "sentence_distance", "--workers", 1)
    assert code_of(main, *arguments, f"data.corpus=[{chinese}]") == 2
    assert re.search(
        r"data.language: en, but \d+ of 60 documents are Chinese; set data.language=zh",
        capsys.readouterr().err,
    )
    mixed.write_text(
        (tmp_path / "corpus.txt").read_text(encoding="utf-8") + "\n\n他没有回来。\n大家都很担心。\n",
        encoding="utf-8",
    )
    assert code_of(main, *arguments, f"data.corpus=[{mixed}]", f"model.vocab_file={tmp_path / 'v.txt'}") == 0
    assert "chinese_page: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["data.query_log=[]"], ["data.query_log", "ir_relevance"]),
        (["data.corpus=[]", "--tasks", "capitalization"], ["data.corpus", "capitalization"]),
        (["data.corpus=[nowhere.txt]"], ["nowhere.txt"]),
        (["data.vocab_size=null"], ["model.vocab_file", "data.vocab_size"]),
        (["--tasks", "sentence_distanse"], ["--tasks", "did you mean 'sentence_distance'"]),
        (["--tasks", ","], ["no task named"]),
        (["--workers", "0"], ["--workers"]),
        (["data.curpus=[x]"], ["curpus", "did you mean"]),
    ],
)
def test_mistakes_leave_nothing_behind(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], parts: list[str]
) -> None:
    assert code_of(main, recipe, "--workers", "1", *arguments) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in parts), message
    assert "Traceback" not in message
    assert not (tmp_path / "shards").exists()


def test_too_many_rejects_stop_the_run(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("not json\n" * 20 + '{"text": "One. Two."}\n', encoding="utf-8")
    changes = f"data.corpus=[{bad}]", f"model.vocab_file={made_vocab(tmp_path)}"
    assert code_of(main, recipe, *changes, "--workers", 1) == 2
    message = capsys.readouterr().err
    assert "data.max_reject_share" in message and "20 of 21" in message and "bad_json" in message
    assert not list((tmp_path / "shards").glob("*/index.json"))


def made_vocab(folder: Path) -> Path:
    path = folder / "letters.txt"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *letters, *("##" + c for c in letters)]
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


def test_a_failing_task_keeps_the_old_shards(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert code_of(main, recipe, "--tasks", "sentence_distance", "--workers", 1) == 0
    before = contents(tmp_path / "shards" / "sentence_distance")
    assert code_of(main, recipe, "--tasks", "sentence_distance", "data.dev_share=1.0e-9", "--workers", 1) == 2
    message = capsys.readouterr().err
    assert "dev split" in message and "data.dev_share" in message
    assert contents(tmp_path / "shards" / "sentence_distance") == before


EIGHTH = """
def generate(source, rng, *, packer, language, parts=2):
    for document in source:
        if len(document.sentences) >= parts:
            yield packer.pack([[sentence] for sentence in document.sentences[:parts]], sentence_label=LABEL)
"""


@pytest.mark.parametrize(
    ("module", "label", "code"), [("my_eighth", "int(rng.integers(2))", 0), ("my_wrong_eighth", "2", 2)]
)
def test_an_eighth_task_is_one_yaml_and_one_generator(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    label: str,
    code: int,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (tmp_path / f"{module}.py").write_text(EIGHTH.replace("LABEL", label), encoding="utf-8")
    text = (
        f"name: eighth\ntask_id: 7\nsource: documents\ngenerator: {module}\n"
        "generator_args: {parts: 3}\nlosses: [{head: sentence, num_classes: 2}]\n"
    )
    (folder / "eighth.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(tasks_module, "TASKS_DIR", folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert code_of(main, recipe, "curriculum.stages=[[eighth]]", "--workers", 1) == code
    if code:
        message = capsys.readouterr().err
        assert "task eighth" in message and "sentence_label: got 2, expected 0 to 1" in message
        assert not (tmp_path / "shards" / "eighth").exists()
        return
    example = ShardReader(tmp_path / "shards" / "eighth", "train")[0]
    assert example.sentence_ids.max() == 2 and example.span_ids is None
    assert code_of(show.main, tmp_path / "shards" / "eighth", "-n", 1) == 0
    assert "label" in capsys.readouterr().out


def test_rejects_are_written_by_task_and_reason(recipe: Path, tmp_path: Path) -> None:
    assert code_of(main, recipe, "--tasks", "sentence_distance", "--workers", 1) == 0
    rows = [json.loads(line) for line in (tmp_path / "shards" / "rejects.jsonl").read_text().splitlines()]
    [row] = rows
    assert row["task"] == "sentence_distance" and row["reason"] == "document of one sentence"
    assert row["file"].endswith("corpus.txt") and row["text"] == "A lone sentence stands here."
    lines = Path(row["file"]).read_text().splitlines()
    assert lines[row["line"] - 1] == row["text"]


def test_ray_has_to_be_installed(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    assert code_of(main, recipe, "--engine", "ray") == 2
    assert "pip install ray" in capsys.readouterr().err


def test_classes_can_be_capped(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    text = load_tasks()["sentence_distance"].path.read_text(encoding="utf-8")
    (folder / "sentence_distance.yaml").write_text(text + "max_per_class: 7\n", encoding="utf-8")
    monkeypatch.setattr(tasks_module, "TASKS_DIR", folder)
    assert code_of(main, recipe, "curriculum.stages=[[sentence_distance]]", "--workers", 1) == 0
    index = ShardReader(tmp_path / "shards" / "sentence_distance", "train").index
    assert index["statistics"]["labels"]["train"] == [7, 7, 7] and index["samples"]["train"] == 21
    assert index["statistics"]["thinned"]["train"] == index["statistics"]["accepted"]["train"] - 21


def test_marked_pairs_join_those_that_are_mined(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = connectives.class_names("en")
    pairs = tmp_path / "pairs.tsv"
    rows = [
        f"The lamp number {i} went out.\tit was very dark in there.\t{marker}"
        for i in range(40)
        for marker in ("meanwhile", "blargh")
    ]
    pairs.write_text("\n".join(["sentence1\tsentence2\tmarker", *rows]) + "\n", encoding="utf-8")
    arguments = (recipe, "--tasks", "discourse_relation", "--workers", 1)
    assert code_of(main, *arguments) == 0
    label = names.index("meanwhile")
    folder = tmp_path / "shards" / "discourse_relation"
    assert ShardReader(folder, "train").index["statistics"]["labels"]["train"][label] == 0
    assert code_of(main, *arguments, f"data.marked_pairs=[{pairs}]") == 0
    printed = capsys.readouterr().out
    assert (
        "the input files changed" in printed
        and "marker that is no connective of data.language: 40" in printed
    )
    statistics = ShardReader(folder, "train").index["statistics"]
    assert statistics["labels"]["train"][label] + statistics["labels"]["dev"][label] > 0


def test_imported_shards_are_left_as_they_are(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert code_of(main, recipe, "--tasks", "sentence_distance", "--workers", 1) == 0
    index = tmp_path / "shards" / "sentence_distance" / "index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps({**content, "imported": {"format": "jsonl"}, "seed": 77}), encoding="utf-8")
    capsys.readouterr()
    assert code_of(main, recipe, "--tasks", "sentence_distance", "data.corpus=[]", "--workers", 1) == 0
    assert "sentence_distance: imported; left as it is" in capsys.readouterr().out
    changes = "--tasks", "sentence_distance", f"model.vocab_file={made_vocab(tmp_path)}"
    assert code_of(main, recipe, *changes, "--workers", 1) == 2
    assert "another vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "block", "shards"),
    [
        (10_000, 64_000, 1),
        (1_600_000, 100_000, 1),
        (27_000_000, 1_000_000, 3),
        (10**9, 1_000_000, 120),
        (8 * 10**9, 2_000_000, 960),
        (10**11, 8_000_000, 4500),
    ],
)
def test_blocks_and_shards_grow_with_a_very_large_corpus(size: int, block: int, shards: int) -> None:
    """Every shard is gathered from every block: their product must not grow with the square of the corpus for
    ever."""
    settings = Settings("", True, "zh", "jieba", (), TextOptions(), 0.005, 512, 1, (("task", size),), "")
    assert block_bytes_for(size) == block and settings.buckets_of("task", "train") == shards
