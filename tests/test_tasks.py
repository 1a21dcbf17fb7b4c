"""Every task that is found: declared soundly, made from examples/ and trained a few steps, and its loss
falls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from ernie2 import tasks as tasks_module
from ernie2.config import load_recipe
from ernie2.pretrain import train
from ernie2.run import prepare_run
from ernie2.strict import ConfigError
from ernie2.tasks import load_task, load_tasks, select_tasks

TASKS = load_tasks()
DEMO = ROOT / "tasks/recipes/demo.yaml"


def demo_recipe(folder: Path, *overrides: str):
    return load_recipe(
        DEMO,
        [
            f"data.shards_dir={folder / 'shards'}",
            f"model.vocab_file={folder / 'vocab.txt'}",
            "data.corpus=[examples/zh/encyclopedia_*.txt, examples/en/corpus.txt]",
            *overrides,
        ],
    )


@pytest.fixture(scope="session")
def demo_shards(tmp_path_factory):
    """Shards of every task, made from examples/."""
    from data_gen.pipeline import build_shards

    folder = tmp_path_factory.mktemp("demo")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(ROOT)
    build_shards(demo_recipe(folder), list(TASKS.values()), workers=1, out=lambda line: None)
    monkeypatch.undo()
    return folder


def test_the_papers_seven_are_there():
    ids = {name: task.task_id for name, task in TASKS.items()}
    assert ids == {
        "knowledge_masking": 0,
        "capitalization": 1,
        "token_document": 2,
        "sentence_reordering": 3,
        "sentence_distance": 4,
        "discourse_relation": 5,
        "ir_relevance": 6,
    }
    assert TASKS["sentence_reordering"].sentence_classes == 33  # 1! + 2! + 3! + 4!
    assert all(task.has_masked_lm for task in TASKS.values())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_and_its_losses_fall(name, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = demo_recipe(
        demo_shards,
        f"out_dir={tmp_path}",
        f"curriculum.stages=[[{name}]]",
        "masking.level=entity",
        "curriculum.steps_per_task=80",
        "runtime.log_every=1",
        "lr.warmup_steps=10",
        "lr.peak=2e-3",
        "batch.tokens=1024",
        "runtime.eval_tokens=2048",
    )
    train(prepare_run(recipe, "demo"))
    records = [
        json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for head in {loss.head for loss in TASKS[name].losses}:
        losses = [record["losses"][head] for record in records]
        first, last = np.mean(losses[:10]), np.mean(losses[-10:])
        # In so few steps the hardest sentence heads stay at chance; none may get worse than noise.
        assert last < (0.9 if head == "masked_lm" else 1.02) * first, (head, first, last)


def test_nothing_else_knows_a_tasks_name():
    """A task is one YAML and one generator: its name stands nowhere else in the code."""
    for folder in ("ernie2", "data_gen"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in TASKS:
                if path.stem == name:
                    continue
                text = path.read_text(encoding="utf-8")
                assert name not in text, f"{path} mentions {name}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task_id": 0}, ["task_id", "already used", "next free one is 1"]),
        ({"name": "other"}, ["name", "'other'", "b"]),
        ({"losses": []}, ["losses", "at least one"]),
        ({"losses": [{"head": "sentence"}]}, ["losses[0]", "num_classes"]),
        ({"losses": [{"head": "masked_lm", "num_classes": 3}]}, ["losses[0]", "num_classes"]),
        ({"losses": [{"head": "sentense", "num_classes": 3}]}, ["losses[0].head", "sentence"]),
        ({"losses": [{"head": "token", "num_classes": 500}]}, ["num_classes", "127"]),
        ({"losses": [{"head": "masked_lm", "weight": -1}]}, ["weight"]),
        ({"lossess": []}, ["lossess", "did you mean 'losses'"]),
        ({"generator": "os; rm"}, ["generator", "dotted"]),
        ({"task_id": "one"}, ["task_id", "whole number"]),
        ({"source": "webpages"}, ["source", "documents, pairs, marked_pairs"]),
    ],
)
def test_mistakes_in_a_task_file_are_named(tmp_path, change, words):
    base = {
        "task_id": 1,
        "source": "documents",
        "generator": "data_gen.generators.x",
        "losses": [{"head": "masked_lm"}],
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**base, "name": "a", "task_id": 0}), encoding="utf-8")
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({**base, "name": "b", **change}), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_tasks(tmp_path)
    for word in ["b.yaml", *words]:
        assert word in str(error.value), str(error.value)


def test_unknown_task_and_empty_folder(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'sentence_distance'"):
        select_tasks(["sentence_distence"], "r.yaml")
    with pytest.raises(ConfigError, match="no task files"):
        load_tasks(tmp_path)
    monkeypatch.setattr(tasks_module, "TASKS_DIR", tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        load_task(tmp_path / "x.yaml")


def test_every_yaml_belongs_to_a_loader():
    """Whatever YAML is in tasks/ is loaded by a test: this file's, test_config's or test_finetune_task's."""
    found = {path.relative_to(ROOT / "tasks").parent.as_posix() for path in (ROOT / "tasks").rglob("*.y*ml")}
    assert found == {"pretrain", "recipes", "finetune"}
    assert not [
        path
        for folder in ("ernie2", "data_gen", "examples", "tests", "docs", "benchmarks")
        for path in (ROOT / folder).rglob("*.y*ml")
    ]
    assert len(TASKS) == len(list((ROOT / "tasks/pretrain").glob("*.yaml")))
