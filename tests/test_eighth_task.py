"""Adding an eighth task costs one YAML and one generator: done here exactly as the pages say, in a copy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

FENCE = re.compile(r"^`(?P<path>[\w/]+\.(?:py|yaml))`\n\n```(?:python|yaml)\n(?P<text>.*?)^```$", re.M | re.S)


PAGES = {
    "paragraph_boundary": ("tasks/README.md", "the second sentence opens a new paragraph"),
    "sentence_order": ("README.md", "label 1"),
}
"""Task -> the page that adds it, and what show says of its class 1."""


@pytest.mark.parametrize("task", PAGES)
def test_the_pages_task_is_made_and_learns(tmp_path, task):
    page, label = PAGES[task]
    for folder in ("ernie2", "data_gen", "tasks", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    files = {
        match["path"]: match["text"] for match in FENCE.finditer((ROOT / page).read_text(encoding="utf-8"))
    }
    assert sorted(files) == [f"data_gen/generators/{task}.py", f"tasks/pretrain/{task}.yaml"]
    for path, text in files.items():
        assert not (tmp_path / path).exists(), "the page's task is not shipped"
        (tmp_path / path).write_text(text, encoding="utf-8")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    recipe = [
        "tasks/recipes/demo.yaml",
        f"curriculum.stages=[[{task}]]",
        "masking.level=word",
        "out_dir=out/eighth",
    ]
    run("data_gen", *recipe, "--workers", "1")
    shown = run("data_gen.show", f"out/demo/shards/{task}", "-n", "2", "--class", "1")
    assert label in shown
    run("data_gen.audit", f"out/demo/shards/{task}")
    run(
        "ernie2.pretrain",
        *recipe,
        "curriculum.steps_per_task=40",
        "runtime.log_every=1",
        "batch.tokens=1024",
        "lr.warmup_steps=5",
    )
    records = [
        json.loads(line)
        for line in (tmp_path / "out/eighth/train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    losses = [record["loss"] for record in records]
    assert len(losses) == 40 and np.mean(losses[-8:]) < np.mean(losses[:8])
