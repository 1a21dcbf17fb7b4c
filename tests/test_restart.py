"""data_gen killed at random instants ends with the same bytes; what a finished part depends on is noticed
when it changes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_pipeline import contents, write_corpus, write_log

from data_gen.pipeline import build_shards
from data_gen.work_folder import locked
from ernie2.config import ConfigError, Recipe, load_recipe
from ernie2.tasks import select_tasks

TASKS = ["knowledge_masking", "sentence_distance", "discourse_relation", "ir_relevance"]


@pytest.fixture()
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three corpus files of about 250 kB, which make some ten blocks."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # else it warns of every fork
    files = [write_corpus(tmp_path / f"corpus{i}.txt", 900, seed=i) for i in range(3)]
    mapping = {
        "name": "t",
        "seed": 3,
        "out_dir": str(tmp_path / "out"),
        "model": {"vocab_file": str(tmp_path / "vocab.txt")},
        "data": {
            "shards_dir": str(tmp_path / "shards"),
            "corpus": list(map(str, files)),
            "language": "en",
            "max_seq_len": 64,
            "query_log": [str(write_log(tmp_path / "log.tsv"))],
            "dev_share": 0.1,
            "vocab_size": 300,
        },
        "curriculum": {"stages": [TASKS], "steps_per_task": 10, "mode": "multitask"},
        "lr": {"peak": 1e-3},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return path


def build(recipe: Recipe, names: list[str] = TASKS) -> list[str]:
    said: list[str] = []
    build_shards(recipe, select_tasks(names, "test"), 1, said.append)
    return said


def killed_after(recipe: Recipe, seconds: float) -> bool:
    """Builds in a process of its own and kills it; False where it was faster."""
    child = os.fork()
    if child == 0:
        try:
            build(recipe)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    time.sleep(seconds)
    done, status = os.waitpid(child, os.WNOHANG)
    assert status == 0, "the run broke by itself"
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return not done


def test_killed_at_ten_random_instants(recipe: Path, tmp_path: Path) -> None:
    whole = load_recipe(recipe)
    begin = time.monotonic()
    build(whole)
    seconds = time.monotonic() - begin
    expected = contents(tmp_path / "shards")
    broken = load_recipe(recipe, [f"data.shards_dir={tmp_path / 'broken'}"])
    draw, kills, resumed = random.Random(0), 0, 0
    while kills < 10:
        resumed += len(list((tmp_path / "broken" / ".work" / "blocks.documents").glob("*.json"))) > 1
        if killed_after(broken, draw.uniform(0.1, 0.8) * seconds):
            kills += 1
        else:
            assert contents(tmp_path / "broken") == expected
            shutil.rmtree(tmp_path / "broken")
    said = build(broken)
    assert contents(tmp_path / "broken") == expected, said
    assert resumed >= 3


def test_interrupted_work_is_used_again(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import data_gen.job as job

    loaded = load_recipe(recipe)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "merge_buckets", stop)
        with pytest.raises(KeyboardInterrupt):
            build(loaded)
    left = next((tmp_path / "shards/.work").glob("*/merged/*")) / "00000.json.host-1.tmp"
    left.touch()  # as a kill while a note is written leaves it
    said = build(loaded)
    assert not list((tmp_path / "shards").rglob("*.tmp"))
    assert any("going on with interrupted work" in line for line in said)
    assert any("MB of it in a run before)" in line for line in said), said
    assert not (tmp_path / "shards" / ".work").exists()


def test_interrupted_when_merged_spill_files_are_gone(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is merged is deleted while the rest is merged; thinned out examples are counted all the same."""
    import data_gen.job as job

    real, loaded = job.merge_buckets, load_recipe(recipe)
    build(loaded)
    expected = contents(tmp_path / "shards")
    shutil.rmtree(tmp_path / "shards")

    def stop_at_dev(task: object, split: str, *rest: object) -> object:
        if split == "dev":
            raise KeyboardInterrupt
        return real(task, split, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(job, "merge_buckets", stop_at_dev)
        with pytest.raises(KeyboardInterrupt):
            build(loaded)
    left = {path.name.split(".")[1] for path in (tmp_path / "shards/.work").glob("*/*.spill")}
    assert left == {"dev"}
    lost = tmp_path / "shards/.work/sentence_distance"
    note = lost / "merged/train/00000.json"
    note.rename(tmp_path / "kept.json")  # as a loss of power may
    with pytest.raises(ConfigError, match=f"take the folder {lost} away"):
        build(loaded)
    shutil.rmtree(lost)
    build(loaded)
    assert contents(tmp_path / "shards") == expected


@pytest.mark.parametrize("instant", ["before the index", "before its name", "before the sweep", "taken away"])
def test_killed_while_a_task_is_finished(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: str
) -> None:
    """Its spill files are gone by then: nothing that the next run needs may go before the shards have their
    name."""
    import data_gen.job as job
    import data_gen.merge as merge

    loaded, real = load_recipe(recipe), Path.rename
    build(loaded)
    expected = contents(tmp_path / "shards")

    def stop(*_: object) -> None:
        raise SystemExit

    def stop_at_name(path: Path, target: Path) -> Path:
        return stop() if target.name == "sentence_distance" else real(path, target)

    shutil.rmtree(tmp_path / "shards")
    with monkeypatch.context() as patched:
        if instant == "before the index":
            patched.setattr(merge, "finish_shards", stop)
        elif instant == "before its name":
            patched.setattr(Path, "rename", stop_at_name)
        else:
            patched.setattr(job.Job, "_report", stop)
        with pytest.raises(SystemExit):
            build(loaded)
    if instant == "taken away":
        shutil.rmtree(tmp_path / "shards/sentence_distance")
    build(loaded)
    assert contents(tmp_path / "shards") == expected


def test_what_changed_in_between_is_thrown_away_by_name(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import data_gen.job as job

    calls: list[list[str]] = []
    real = job.work

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def counted(block: object, tasks: list, *rest: object) -> object:
        calls.append([task.name for task in tasks])
        return real(block, tasks, *rest)

    monkeypatch.setattr(job, "work", counted)
    with monkeypatch.context() as patched:
        patched.setattr(job, "merge_buckets", stop)
        with pytest.raises(KeyboardInterrupt):
            build(load_recipe(recipe))
    calls.clear()
    with (tmp_path / "log.tsv").open("a", encoding="utf-8") as log:
        log.write("new query\tnew title\t1\n")
    said = build(load_recipe(recipe))
    assert "ir_relevance: interrupted work is thrown away: the input files changed (log.tsv)" in said
    assert not any(line.startswith("knowledge_masking: interrupted") for line in said)
    assert calls == [["ir_relevance"]] * len(calls) and calls


def test_a_second_run_is_refused(recipe: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "shards"):
        with pytest.raises(
            ConfigError, match=f"another run is making shards there .process {os.getpid()} on"
        ):
            build(load_recipe(recipe))
    build(load_recipe(recipe))


def test_a_full_disk_keeps_what_is_finished(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing, a small tmpfs, is tried in test_bad_input where mounting is allowed."""
    import errno

    import data_gen.block_work as block_work

    loaded, real, calls = load_recipe(recipe), block_work.write_spill, []

    def full(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(block_work, "write_spill", full)
        with pytest.raises(ConfigError, match="no space left in .* finished blocks are kept"):
            build(loaded)
    assert len(list((tmp_path / "shards" / ".work").rglob("*.spill"))) == 5
    said = build(loaded)
    assert any("going on with interrupted work" in line for line in said)


def test_order_of_examples_does_not_follow_the_corpus(recipe: Path, tmp_path: Path) -> None:
    from ernie2.shards import ShardReader

    build(load_recipe(recipe), ["sentence_distance"])
    reader = ShardReader(tmp_path / "shards" / "sentence_distance", "train")
    labels = np.array([reader[i].sentence_label for i in range(len(reader))])
    assert abs(np.corrcoef(labels[:-1], labels[1:])[0, 1]) < 0.1
