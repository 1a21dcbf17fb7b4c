"""A fine-tuning that is killed, stopped or started twice: one run in one folder, and the same numbers as one
in one go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from finetuning import SETTINGS, write_checkpoint, write_data
from safetensors.numpy import load_file
from test_checkpoint import prepare
from test_finetune import TASKS, lines, run
from test_resume import ranks_of, wait_for

from ernie2 import pretrain
from ernie2.finetune import __main__ as finetune
from ernie2.finetune.job import FinetuneLog, prepare_job
from ernie2.strict import ConfigError, cli

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "classification", "classification")


def start(checkpoint: Path, data: Path, out: Path, *extra: str, nproc: int = 1) -> subprocess.Popen:
    arguments = [
        str(TASKS / "chnsenticorp.yaml"),
        f"init_from={checkpoint}",
        f"data_dir={data}",
        f"out_dir={out}",
        *SETTINGS,
        "head_dropout=0.3",
        *extra,
    ]
    launch = [
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        str(nproc),
        "--log_dir",
        str(out) + "_logs",
        sys.executable,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "2"}
    return subprocess.Popen(
        [sys.executable, *(launch if nproc > 1 else []), "-m", "ernie2.finetune", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def results(out: Path) -> tuple:
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    runs = [{key: value for key, value in entry.items() if key != "seconds"} for entry in result["runs"]]
    train = [
        (line["run"], line["step"], line["loss"], line["grad_norm"]) for line in lines(out / "train.jsonl")
    ]
    return (
        runs,
        result["metrics"],
        train,
        lines(out / "metrics.jsonl"),
        load_file(out / "best/model.safetensors"),
    )


def stop_at(process: subprocess.Popen, words: str, number: int) -> str:
    """Sends a signal when a line of its output holds `words`. Returns the rest of its output."""
    for line in process.stderr:
        if words in line:
            process.send_signal(number)
            break
    rest = process.stderr.read()
    process.wait(timeout=60)
    return rest


def test_killed_and_stopped_it_goes_on_to_the_same_bits(checkpoint, data, tmp_path):
    """kill -9 in run 2, again before its first checkpoint is passed, then SIGTERM in run 3."""
    extra = ("repeat=3", "epochs=2", "eval_every=7", "save_every=4")
    whole = start(checkpoint, data, tmp_path / "whole", *extra)
    assert whole.wait() == 0, whole.stderr.read()
    part = tmp_path / "part"
    stop_at(start(checkpoint, data, part, *extra), "run 2  step 10/", signal.SIGKILL)
    said = stop_at(start(checkpoint, data, part, *extra), "run 2  step 9/", signal.SIGKILL)
    assert "run 1 " not in said
    term = start(checkpoint, data, part, *extra)
    rest = stop_at(term, "run 3  step 10/", signal.SIGTERM)
    assert term.returncode == 0 and "stopped by SIGTERM in run 3; the same command goes on" in rest, rest
    last = start(checkpoint, data, part, *extra)
    said = last.stderr.read()
    assert last.wait() == 0 and "2 of 3 runs have ended before" in said and "run 3: going on from" in said, (
        said
    )
    one, two = results(tmp_path / "whole"), results(part)
    assert one[:4] == two[:4] and all(np.array_equal(one[4][name], two[4][name]) for name in one[4])
    assert not list(part.rglob("step_*"))
    again = start(checkpoint, data, part, *extra)  # nothing is left to do
    said = again.stderr.read()
    assert (
        again.wait() == 0
        and "has ended before" in said
        and "step 1/" not in said
        and results(part)[:4] == two[:4]
    )


def test_what_is_left_of_kills_does_not_stay(checkpoint, data, tmp_path):
    """Killed while the best model was replaced, between the test and its note, and between the note and the
    tidying."""
    out, args = tmp_path / "out", ("classification", checkpoint, data)
    whole = run(*args, tmp_path / "whole", "max_steps=4", "eval_every=2", "save_every=2", "peak_lr=1e-9")
    run(*args, out, "max_steps=4", "eval_every=2", "save_every=2", "peak_lr=1e-9")
    metrics, runs = (out / "metrics.jsonl").read_text(), (out / "runs.json").read_text()
    assert (
        metrics == (tmp_path / "whole" / "metrics.jsonl").read_text()
        and '"step": 2' in metrics.splitlines()[-1]
    )
    (out / "result.json").unlink()
    (out / "best").rename(out / "best.old-99")
    (out / "best.tmp-98").mkdir()
    (out / "step_0000004").mkdir()
    (out / "step_0000004" / "trainer_state.json").write_text("{}")
    assert (
        run(*args, out, "max_steps=4", "eval_every=2", "save_every=2", "peak_lr=1e-9")["metrics"]
        == whole["metrics"]
    )
    names = {path.name for path in out.iterdir()}
    assert "best" in names and not {"best.old-99", "best.tmp-98", "step_0000004"} & names
    (out / "runs.json").write_text(runs[:-9])
    with pytest.raises(ConfigError, match="runs.json: damaged"):
        run(*args, out, "max_steps=4", "eval_every=2", "save_every=2", "peak_lr=1e-9")
    log = FinetuneLog(
        prepare_job(
            TASKS / "chnsenticorp.yaml",
            [f"init_from={checkpoint}", f"data_dir={data}", f"out_dir={out}", *SETTINGS],
        ),
        1,
        4,
        4,
        None,
    )
    log.close()
    assert [line["step"] for line in lines(out / "metrics.jsonl")] == [
        2
    ]  # step 4 and the test are made again


def test_folders_of_pretraining_and_of_fine_tuning(checkpoint, data, tmp_path, tiny_recipe):
    run("classification", checkpoint, data, tmp_path / "a", "max_steps=1")
    with pytest.raises(ConfigError, match="out_dir: .* holds a fine-tuning"):
        prepare(tiny_recipe, f"out_dir={tmp_path / 'a'}")
    pretrain.train(prepare(tiny_recipe, f"out_dir={tmp_path / 'b'}", "runtime.max_steps=1"))
    shutil.rmtree(tmp_path / "b" / "step_0000001")
    with pytest.raises(ConfigError, match="holds the results of another run"):
        run("classification", checkpoint, data, tmp_path / "b", "max_steps=1")


def test_two_at_once_in_one_folder(checkpoint, data, tmp_path):
    first = start(checkpoint, data, tmp_path / "out", "epochs=2000", "log_every=1")
    for line in first.stderr:
        if "step 3/" in line:
            break
    second = start(checkpoint, data, tmp_path / "out", "seed=2")
    said = second.stderr.read()
    first.kill()
    assert (
        second.wait() == 2
        and "out_dir: " in said
        and f"process {first.pid} on" in said
        and "Traceback" not in said
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed=2", "settings.seed: 1 there, 2 here"),
        ("peak_lr=0.001", "settings.peak_lr: 0.005 there, 0.001 here"),
        ("lower_case=false", "lower_case: True there, False here"),
        ("data", "files.train.tsv"),
        ("weights", "weights: "),
        ("unknown", "origin.json"),
    ],
)
def test_another_run_in_the_folder_is_refused(checkpoint, data, tmp_path, change, words):
    out = tmp_path / "out"
    run("classification", checkpoint, data, out, "max_steps=2")
    before = {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"
    }
    if change == "data":
        data = write_data(tmp_path / "data", "classification", train=170)
    elif change == "weights":
        checkpoint = write_checkpoint(tmp_path / "tiny", layers=1)
    elif change == "unknown":
        (out / "origin.json").unlink()
        before.pop(out / "origin.json")
    with pytest.raises(
        ConfigError, match=f"holds the results of another run .*{words}.*name another out_dir, or remove"
    ):
        run("classification", checkpoint, data, out, "max_steps=2", *([change] if "=" in change else []))
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_dropout_depends_neither_on_processes_nor_on_micro_tokens(checkpoint, data, tmp_path):
    seen = []
    for number, (nproc, micro_tokens) in enumerate(((1, 8192), (1, 100), (2, 8192), (2, 64))):
        out = tmp_path / str(number)
        process = start(checkpoint, data, out, "epochs=1", f"micro_tokens={micro_tokens}", nproc=nproc)
        said = process.stderr.read()
        assert process.wait() == 0, said
        seen.append([(line["loss"], line["grad_norm"]) for line in lines(out / "train.jsonl")])
    assert all(np.allclose(seen[0], other, rtol=1e-4) for other in seen[1:]), seen


def test_a_killed_process_takes_the_other_along_and_is_named(checkpoint, data, tmp_path):
    out = tmp_path / "out"
    process = start(checkpoint, data, out, "epochs=1000", nproc=2)
    wait_for(lambda: (out / "train.jsonl").exists())
    victim = ranks_of(out)[1]
    os.kill(victim, signal.SIGKILL)
    assert process.wait(timeout=60)
    said = (tmp_path / "out_logs/workerlog.0").read_text(encoding="utf-8")
    assert f"error: rank 1 (process {victim} on" in said and "Traceback" not in said


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_run_that_diverges_ends_with_one_message(kind, checkpoint, tmp_path, capsys):
    folder = write_data(tmp_path / "data", kind)
    argv = [
        str(TASKS / f"{'stsb' if kind == 'regression' else 'chnsenticorp'}.yaml"),
        f"init_from={checkpoint}",
        f"data_dir={folder}",
        f"out_dir={tmp_path / 'out'}",
        *SETTINGS,
        "peak_lr=1e38",
        "lr_schedule=linear",
    ]
    with pytest.raises(SystemExit) as stop:
        cli(finetune.main)(argv)
    error = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and "error: seed 1, step 2: the loss is " in error
        and "lower peak_lr (now 1e+38)" in error
    )
    assert not (tmp_path / "out/result.json").exists()


def test_a_run_killed_before_its_first_evaluation_leaves_nothing_to_serve(checkpoint, data, tmp_path):
    """Another task in a folder with results is refused, so that its own predictions cannot come from
    theirs."""
    out = tmp_path / "out"
    run("classification", checkpoint, data, out, "max_steps=2")
    folder = write_data(tmp_path / "ner", "tagging")
    job = prepare_job(
        TASKS / "msra_ner.yaml",
        [f"init_from={checkpoint}", f"data_dir={folder}", f"out_dir={out}", *SETTINGS],
    )
    with pytest.raises(ConfigError, match="holds the results of another run"):
        finetune.fine_tune(job)
