"""Checkpoints: a kill at any instant leaves the last good one; other models, damaged files and poor warm starts are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from safetensors.numpy import load_file, save_file

from ernie2 import pretrain
from ernie2.checkpoint import atomic_folder, checkpoints
from ernie2.config import Recipe, build
from ernie2.setup_run import prepare_run
from ernie2.strict import ConfigError, apply_overrides


def prepare(mapping: dict, *overrides: str):
    return prepare_run(build(Recipe, apply_overrides(mapping, overrides), "r.yaml"), "r.yaml")


def test_a_failed_save_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "step_0000001"
    atomic_folder(folder, lambda tmp: (tmp / "a").write_text("good"))

    def fail(tmp: Path) -> None:
        (tmp / "a").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        atomic_folder(folder, fail)
    assert (folder / "a").read_text() == "good" and [p.name for p in tmp_path.iterdir()] == ["step_0000001"]


def test_keeps_the_newest_and_ignores_leftovers(tiny_recipe, tmp_path):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=10", "runtime.save_every=2", "runtime.keep_last=2"))
    assert [step for step, _ in checkpoints(tmp_path / "out")] == [8, 10]
    (tmp_path / "out" / "step_0000099.tmp-1").mkdir()
    (tmp_path / "out" / "step_0000098").mkdir()
    assert [step for step, _ in checkpoints(tmp_path / "out")] == [8, 10]


def test_another_model_is_refused(tiny_recipe):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=2"))
    for override, words in (("model.size=mini", "of another shape"), ("curriculum.stages=[[cover],[order]]", "not used"),
                            ("seed=4", "seed 3")):
        with pytest.raises(ConfigError) as error:
            prepare(tiny_recipe, override)
        assert words in str(error.value) and "step_0000002" in str(error.value)


def test_a_damaged_checkpoint_and_an_out_dir_that_is_a_file(tiny_recipe, tmp_path):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=2"))
    state = tmp_path / "out" / "step_0000002" / "trainer_state.json"
    for text, words in (("{bad", "damaged"), ("{}", "lacks step"), ("[1]", "lacks")):
        state.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=f"trainer_state.json: {words}.*remove"):
            prepare(tiny_recipe)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="out_dir: .*file cannot be made a folder: File exists"):
        prepare(tiny_recipe, f"out_dir={tmp_path / 'file'}")


def test_warm_start(tiny_recipe, tmp_path):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=2"))
    first = tmp_path / "out" / "step_0000002"
    new = [f"model.init_from={first}", f"out_dir={tmp_path / 'new'}"]
    run = prepare(tiny_recipe, *new)
    assert run.start_step == 0
    weight = load_file(first / "model.safetensors")["ernie.pooler.dense.weight"]
    assert np.array_equal(run.model.ernie.pooler.dense.weight.numpy(), weight)
    with pytest.raises(ConfigError, match=r"model.init_from: only \d+%"):
        prepare(tiny_recipe, *new, "model.size=mini")
    with pytest.raises(ConfigError, match="model.init_from.*not a folder"):
        prepare(tiny_recipe, f"model.init_from={tmp_path / 'none'}", f"out_dir={tmp_path / 'new'}")
    (first / "vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\n[MASK]\n[UNK]\n")
    with pytest.raises(ConfigError, match="is not the vocabulary"):
        prepare(tiny_recipe, *new)


def test_mistakes_stop_before_the_first_step(tiny_recipe, tmp_path):
    for override, words in (("model.vocab_file=none.txt", ["none.txt"]), ("data.shards_dir=none", ["none", "data_gen"]),
                            ("curriculum.stages=[[covr]]", ["covr", "did you mean 'cover'"]),
                            ("runtime.precision=fp16", ["runtime.precision", "GPU"]),
                            ("model.task_type_vocab_size=4", ["label.yaml", "task_type_vocab_size"])):
        with pytest.raises(ConfigError) as error:
            prepare(tiny_recipe, override)
        for word in words:
            assert word in str(error.value), str(error.value)
        assert not (tmp_path / "out").exists()
    recipe = build(Recipe, tiny_recipe, "r.yaml")
    with pytest.raises(ConfigError, match="3 ranks share 2 micro-batches"):
        prepare_run(recipe, "r.yaml", rank=0, ranks=3)
    with pytest.raises(ConfigError, match="bad.model.safetensors: no such file"):
        (tmp_path / "bad").mkdir()
        save_file({"x": np.zeros(1)}, str(tmp_path / "bad" / "other.safetensors"))
        prepare(tiny_recipe, f"model.init_from={tmp_path / 'bad'}")


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from ernie2 import tasks
tasks.TASKS_DIR = Path({tasks!r})
from ernie2 import pretrain
from ernie2.strict import cli
cli(pretrain.main)(sys.argv[1:])
"""


def test_killed_and_resumed_is_bit_for_bit(tiny_recipe, tmp_path):
    """30 steps equal 12 steps, kill -9, resume, 18 steps, through the command line."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe), encoding="utf-8")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), tasks=str(tmp_path / "tasks")), encoding="utf-8")

    def start(out: str, *overrides: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(driver), str(recipe), f"out_dir={tmp_path / out}", *overrides],
                                env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)

    whole = start("whole", "runtime.max_steps=30")
    assert whole.wait() == 0, whole.stderr.read()
    killed = start("part", "runtime.save_every=12")
    for line in killed.stderr:
        if line.startswith("step 15/"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    assert checkpoints(tmp_path / "part")[-1][0] >= 12
    rest = start("part", "runtime.max_steps=30", "runtime.save_every=12")
    assert rest.wait() == 0, rest.stderr.read()
    a, b = (load_file(tmp_path / out / "step_0000030" / "model.safetensors") for out in ("whole", "part"))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_sigterm_saves_and_leaves(tiny_recipe, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({**tiny_recipe, "curriculum": {"stages": [["cover"]], "steps_per_task": 100_000}}))
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), tasks=str(tmp_path / "tasks")), encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(driver), str(recipe)], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 5/"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 0 and "stopped by SIGTERM" in rest
    assert checkpoints(tmp_path / "out")[-1][0] >= 5
