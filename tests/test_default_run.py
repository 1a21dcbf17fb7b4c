"""run_pretrain.sh as a user types it: mistakes, and the default run in one and two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_scripts import SETTLED

ROOT = Path(__file__).resolve().parent.parent


def real(*arguments: str, timeout: int = 900, **environment: str) -> subprocess.CompletedProcess:
    """run_pretrain.sh of this checkout, with this interpreter."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in SETTLED and not key.startswith("PADDLE_")
    }
    kept |= {"ERNIE2_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        ["bash", ROOT / "run_pretrain.sh", *arguments],
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def test_unknown_key_is_named():
    done = real("curriculum.steps_per_tusk=4")
    assert (
        done.returncode == 2
        and "curriculum.steps_per_tusk" in done.stderr
        and "steps_per_task" in done.stderr
    )
    assert "Traceback" not in done.stderr and done.stderr.count("error:") == 1


def test_paths_are_taken_from_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path / "here.yaml").write_text("nonsense: 1\n")
    monkeypatch.chdir(tmp_path)
    done = real("here.yaml")
    assert done.returncode == 2 and f"{tmp_path}/here.yaml" in done.stderr and "nonsense" in done.stderr


@pytest.mark.slow
def test_default_run_in_one_and_two_processes(tmp_path):
    """The whole road with few steps: stage table first, results last, the same losses whatever NPROC; a
    mistake that only the processes can see gives one message and exit code 2."""
    short = [
        "curriculum.steps_per_task=4",
        "runtime.log_every=1",
        f"data.shards_dir={tmp_path}/shards",
        f"model.vocab_file={tmp_path}/vocab.txt",
    ]
    losses = {}
    for processes in ("1", "2"):
        out = tmp_path / f"out{processes}"
        done = real(*short, f"out_dir={out}", NPROC=processes, TMPDIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        text = done.stdout + done.stderr
        assert text.index("stage 1") < text.index("step 1/") < text.rindex("chance") < text.index("what next")
        assert ("up to date" in text) == (processes == "2")
        lines = (out / "train.jsonl").read_text(encoding="utf-8").splitlines()
        losses[processes] = [json.loads(line)["loss"] for line in lines[:20]]
        assert json.loads((out / "result.json").read_text(encoding="utf-8"))["finished"]
    assert len(losses["1"]) == 20
    assert losses["2"] == pytest.approx(losses["1"], abs=1e-4)

    other_width = real(*short, f"out_dir={tmp_path}/out2", "model.size=mini", NPROC="2", TMPDIR=str(tmp_path))
    assert other_width.returncode == 2, other_width.stderr
    assert other_width.stderr.count("error:") == 1 and "Traceback" not in other_width.stderr
    assert not list(
        tmp_path.glob("ernie2.*")
    )  # logs of the processes are kept only where they tell something
