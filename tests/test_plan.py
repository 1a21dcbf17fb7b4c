"""The plan page: Table 7 as the paper prints it, batch arithmetic, parameter counts, the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from ernie2 import plan
from ernie2.config import load_recipe
from ernie2.curriculum import make_plan


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "ernie2.plan", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_table7_is_printed():
    page = command("tasks/recipes/table7.yaml").stdout
    rows = {line.split()[0]: line.split()[1:] for line in page.splitlines() if line.endswith("50k")}
    assert rows == {"knowledge_masking": ["20k", "10k", "10k", "10k", "50k"], "capitalization": ["-", "30k", "10k", "10k", "50k"],
                    "token_document": ["-", "-", "40k", "10k", "50k"], "sentence_reordering": ["-", "-", "-", "50k", "50k"]}
    assert "48 micro-batches of 8,192" in page


@pytest.mark.parametrize(("mode", "stages"), [("multitask", 1), ("continual", 4)])
def test_other_modes_and_json(mode, stages):
    found = json.loads(command("tasks/recipes/table7.yaml", f"curriculum.mode={mode}", "--json").stdout)
    assert len(found["stages"]) == stages and found["steps"] == 200_000
    assert found["tokens"] == 200_000 * 393_216


def test_mistakes_exit_with_2():
    done = command("tasks/recipes/table7.yaml", "curriculum.mde=multitask")
    assert done.returncode == 2 and "did you mean 'mode'" in done.stderr and "Traceback" not in done.stderr
    done = command("tasks/recipes/tabel7.yaml")
    assert done.returncode == 2 and "tabel7.yaml: no such file" in done.stderr


def test_parameter_count_is_the_models():
    """The estimate counts what the model has (encoder and masked-LM head)."""
    from ernie2.encoder import EncoderConfig
    from ernie2.model import ErnieForPretraining

    recipe = load_recipe(ROOT / "tasks/recipes/demo.yaml")
    model = ErnieForPretraining(EncoderConfig.from_recipe(recipe.model, 500, 0), [])
    assert plan.parameter_count(recipe, 500) == sum(parameter.size for parameter in model.parameters())


def test_time_estimate():
    recipe = load_recipe(ROOT / "tasks/recipes/table7.yaml")
    figures = plan.estimate(recipe, make_plan(recipe.curriculum), 30_522, tokens_per_s=1e6)
    assert figures["hours"] == pytest.approx(200_000 * 393_216 / 1e6 / 3600)
    assert 100e6 < figures["parameters"] < 115e6


def test_overrides_alone_mean_the_default_recipe(monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe, where, _ = plan.parse_recipe(plan.recipe_parser("x", None), ["seed=5"])
    assert (recipe.name, recipe.seed, where) == ("demo", 5, plan.DEFAULT_RECIPE)
