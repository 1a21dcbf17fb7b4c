"""data_gen as a user runs it: text to shards, the same whatever the workers; up to date or not; every mistake named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_gen import show
from data_gen.__main__ import main
from data_gen.blocks import read_blocks
from data_gen.documents import RejectCounter
from data_gen.spill import Spill, balanced_shares, merged, thin, write_spill
from ernie2 import tasks as tasks_module
from ernie2.config import load_recipe
from ernie2.shards import LEVELS, Example, ShardReader
from ernie2.tasks import load_tasks

TASKS = ["knowledge_masking", "capitalization", "token_document", "sentence_reordering", "sentence_distance",
         "discourse_relation", "ir_relevance"]
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
    rows = [f"where is place {q}\tmap of place {q} part {t}\t{int(t == 0)}" for q in range(60) for t in range(4)]
    path.write_text("\n".join(["query\ttitle\tclicked", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture()
def recipe(tmp_path: Path) -> Path:
    """A recipe whose vocabulary and shards are still to be made."""
    mapping = {
        "name": "t", "out_dir": str(tmp_path / "out"), "seed": 5,
        "model": {"size": "tiny", "vocab_file": str(tmp_path / "made" / "vocab.txt")},
        "data": {"shards_dir": str(tmp_path / "shards"), "corpus": [str(write_corpus(tmp_path / "corpus.txt"))],
                 "query_log": [str(write_log(tmp_path / "log.tsv"))], "language": "en", "max_seq_len": 48,
                 "dev_share": 0.2, "vocab_size": 300},
        "curriculum": {"stages": [TASKS], "steps_per_task": 10, "mode": "multitask"}, "lr": {"peak": 1e-3}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return path


def code_of(command: Callable, *argv: object) -> int:
    with pytest.raises(SystemExit) as caught:
        command([str(arg) for arg in argv])
    return caught.value.code


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_all_seven_tasks_whatever_the_workers(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert code_of(main, recipe, "--workers", 1) == 0
    printed = capsys.readouterr().out
    assert "MB/s" in printed and "left out by sentence_distance: document of one sentence: 1" in printed
    one = contents(tmp_path / "shards")
    assert code_of(main, recipe, f"data.shards_dir={tmp_path / 'again'}", "--workers", 2) == 0
    assert contents(tmp_path / "again") == one
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {*TASKS, "vocab.txt", "rejects.jsonl"}
    for name, task in load_tasks().items():
        readers = {split: ShardReader(tmp_path / "shards" / name, split, task) for split in ("train", "dev")}
        assert all(len(reader) for reader in readers.values())
        assert readers["train"].lengths().max() <= 48
        statistics = readers["train"].index["statistics"]
        assert statistics["accepted"]["train"] - statistics["thinned"]["train"] == len(readers["train"])
        if task.sentence_classes:
            assert sum(statistics["labels"]["dev"]) == len(readers["dev"])


def test_dev_documents_are_the_same_in_every_task(recipe: Path, tmp_path: Path) -> None:
    """No sentence of a training example of one task is in the dev split of another."""
    assert code_of(main, recipe, "--tasks", "knowledge_masking,sentence_reordering", "--workers", 1) == 0
    sentences = {}
    for name in ("knowledge_masking", "sentence_reordering"):
        for split in ("train", "dev"):
            reader = ShardReader(tmp_path / "shards" / name, split)
            text = [reader[i].token_ids.tolist() for i in range(len(reader))]
            sentences[name, split] = {tuple(ids[i:i + 12]) for ids in text for i in range(1, len(ids) - 12)}
    assert all(sentences.values())
    assert not sentences["knowledge_masking", "dev"] & sentences["sentence_reordering", "train"]
    assert not sentences["sentence_reordering", "dev"] & sentences["knowledge_masking", "train"]


def test_examples_are_shuffled_across_the_corpus(recipe: Path, tmp_path: Path) -> None:
    assert code_of(main, recipe, "--tasks", "sentence_distance", "--workers", 1) == 0
    reader = ShardReader(tmp_path / "shards" / "sentence_distance", "train")
    labels = [reader[i].sentence_label for i in range(len(reader))]
    assert labels[:len(labels) // 2].count(0) > 0 and labels != sorted(labels)


def test_only_what_changed_is_made_again(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = (recipe, "--tasks", "sentence_distance,ir_relevance", "--workers", 1)

    def said(*more: str) -> str:
        capsys.readouterr()
        assert code_of(main, *arguments, *more) == 0
        return capsys.readouterr().out

    assert said().count("not made yet") == 2
    before = contents(tmp_path / "shards")
    assert said().count("up to date") == 2 and contents(tmp_path / "shards") == before
    assert "max_seq_len changed from 48 to 40" in said("data.max_seq_len=40")
    said()
    with (tmp_path / "log.tsv").open("a", encoding="utf-8") as log:
        log.write("new query\tnew title\t1\n")
    printed = said()
    assert "ir_relevance: to be made: the input files changed" in printed and "sentence_distance: up to date" in printed
    victim = next((tmp_path / "shards" / "sentence_distance" / "train").glob("*.token_ids.npy"))
    victim.write_bytes(victim.read_bytes()[:-50])
    assert "truncated" in said()
    assert "seed changed from 5 to 6" in said("seed=6")


@pytest.mark.parametrize(("arguments", "parts"), [
    (["data.query_log=[]"], ["data.query_log", "ir_relevance"]),
    (["data.corpus=[]", "--tasks", "capitalization"], ["data.corpus", "capitalization"]),
    (["data.corpus=[nowhere.txt]"], ["nowhere.txt"]),
    (["data.dev_share=1.0e-9"], ["dev split", "data.dev_share"]),
    (["data.vocab_size=null"], ["model.vocab_file", "data.vocab_size"]),
    (["--tasks", "sentence_distanse"], ["--tasks", "did you mean 'sentence_distance'"]),
    (["--tasks", ","], ["no task named"]), (["--workers", "0"], ["--workers"]),
    (["--engine", "ray"], ["ray is not installed"]),
    (["data.curpus=[x]"], ["curpus", "did you mean"])])
def test_mistakes_leave_nothing_behind(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                                       arguments: list[str], parts: list[str]) -> None:
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
    assert not (tmp_path / "shards").exists()


def made_vocab(folder: Path) -> Path:
    path = folder / "letters.txt"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *letters, *("##" + c for c in letters)]
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


def test_a_failing_task_keeps_the_old_shards(recipe: Path, tmp_path: Path) -> None:
    assert code_of(main, recipe, "--tasks", "sentence_distance", "--workers", 1) == 0
    before = contents(tmp_path / "shards")
    assert code_of(main, recipe, "--tasks", "sentence_distance", "data.dev_share=1.0e-9", "--workers", 1) == 2
    assert contents(tmp_path / "shards") == before


EIGHTH = '''
def generate(source, rng, *, packer, language, parts=2):
    for document in source:
        if len(document.sentences) >= parts:
            yield packer.pack([[sentence] for sentence in document.sentences[:parts]], sentence_label=LABEL)
'''


@pytest.mark.parametrize(("module", "label", "code"), [
    ("my_eighth", "int(rng.integers(2))", 0), ("my_wrong_eighth", "2", 2)])
def test_an_eighth_task_is_one_yaml_and_one_generator(
        recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, label: str, code: int,
        capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (tmp_path / f"{module}.py").write_text(EIGHTH.replace("LABEL", label), encoding="utf-8")
    text = (f"name: eighth\ntask_id: 7\nsource: documents\ngenerator: {module}\n"
            "generator_args: {parts: 3}\nlosses: [{head: sentence, num_classes: 2}]\n")
    (folder / "eighth.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(tasks_module, "TASKS_DIR", folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert code_of(main, recipe, "curriculum.stages=[[eighth]]", "--workers", 1) == code
    if code:
        message = capsys.readouterr().err
        assert "task eighth" in message and "sentence_label: got 2, expected 0 to 1" in message
        assert not (tmp_path / "shards").exists()
        return
    example = ShardReader(tmp_path / "shards" / "eighth", "train")[0]
    assert example.sentence_ids.max() == 2 and example.span_ids is None
    assert code_of(show.main, tmp_path / "shards" / "eighth", "-n", 1) == 0
    assert "label" in capsys.readouterr().out


def test_blocks_do_not_depend_on_anything_but_the_input(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(recipe)
    blocks = list(read_blocks("documents", [tmp_path / "corpus.txt"], loaded, 1500, RejectCounter()))
    numbers = {split: [block.number for block in blocks if block.split == split] for split in ("train", "dev")}
    assert numbers["train"] == list(range(len(numbers["train"]))) and len(numbers["train"]) > 2
    assert sum(len(block.items) for block in blocks) == 61
    assert all(len(block.items) >= 8 for block in blocks if block.number < max(numbers[block.split]))


def spilled(folder: Path, counts: list[int], make: Callable[[int, int], Example]) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for block, count in enumerate(counts):
        examples = [make(block, i) for i in range(count)]
        paths.append(folder / f"block{block}")
        write_spill(paths[-1], examples, rng.integers(2**64, size=count, dtype=np.uint64))
    return paths


def tagged(block: int, i: int) -> Example:
    """An example of 3 to 5 tokens that names its block and place; class 1 is rare."""
    ids = np.array([block, i, *range(1 + i % 3)], np.int32)
    return Example(ids, np.zeros(len(ids), np.int8), {level: ids.astype(np.int16) for level in LEVELS},
                   (ids % 2).astype(np.int8), int(i % 10 == 0))


def test_merge_is_a_shuffle_and_the_same_for_any_bucket_size(tmp_path: Path) -> None:
    paths = spilled(tmp_path, [40, 1, 70], tagged)
    orders = [[tuple(e.token_ids[:2].tolist()) for e in merged(paths, None, tokens)] for tokens in (10**9, 64, 9)]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == [(b, i) for b, n in enumerate([40, 1, 70]) for i in range(n)]
    assert orders[0] != sorted(orders[0])
    for example in merged(paths, None):
        whole = tagged(*example.token_ids[:2].tolist())
        assert example.token_ids.tolist() == whole.token_ids.tolist() and example.sentence_label == whole.sentence_label
        assert example.token_labels.tolist() == whole.token_labels.tolist()
        assert all((example.span_ids[level] == whole.span_ids[level]).all() for level in LEVELS)


def test_thinning_keeps_the_asked_share_of_each_class(tmp_path: Path) -> None:
    paths = spilled(tmp_path, [100, 100], tagged)
    shares = np.array([0.25, 1.0])
    thinning = thin(paths, shares)
    kept = [example.sentence_label for example in merged(paths, thinning, 200)]
    assert (kept.count(0), kept.count(1), thinning.dropped) == (45, 20, 135)
    assert {b for e in merged(paths, thinning) for b in [int(e.token_ids[0])]} == {0, 1}
    first_half = [e.sentence_label for e in merged(paths, thinning)][:32]
    assert 2 < first_half.count(1) < 20  # thinning does not push a class to one end


@pytest.mark.parametrize(("counts", "balance", "kept"), [
    ([100, 10, 10, 1], 2.0, [20, 10, 10, 1]), ([5, 5, 5], 1.0, [5, 5, 5]), ([9, 0, 3], 1.0, [6, 0, 3]),
    ([50, 1, 1], 0.5, [1, 1, 1])])
def test_balance_is_against_the_median_class(counts: list[int], balance: float, kept: list[int]) -> None:
    shares = balanced_shares(np.array(counts), balance)
    assert np.ceil(shares * counts - 1e-9).astype(int).tolist() == kept


def test_spill_reads_back_by_range(tmp_path: Path) -> None:
    path = spilled(tmp_path, [30], tagged)[0]
    spill = Spill(path)
    assert (np.diff(spill.keys.astype(object)) >= 0).all()
    whole = [e.token_ids.tolist() for e in spill.examples(0, 30)]
    assert [e.token_ids.tolist() for e in spill.examples(7, 19)] == whole[7:19]
    assert spill.examples(5, 5) == []


def test_rejects_are_written_by_task_and_reason(recipe: Path, tmp_path: Path) -> None:
    assert code_of(main, recipe, "--tasks", "sentence_distance", "--workers", 1) == 0
    rows = [json.loads(line) for line in (tmp_path / "shards" / "rejects.jsonl").read_text().splitlines()]
    assert rows == [{"task": "sentence_distance", "reason": "document of one sentence", "count": 1,
                     "examples": [rows[0]["examples"][0]]}]
    assert "corpus.txt:" in rows[0]["examples"][0] and "A lone sentence" in rows[0]["examples"][0]
