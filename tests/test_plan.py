"""The plan page: Table 7 as the paper prints it, batch arithmetic, parameters, memory and what fits, the
command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from activation_memory import bytes_per_token
from conftest import ROOT

from ernie2 import plan
from ernie2.config import Recipe, build, load_recipe
from ernie2.curriculum import make_plan
from ernie2.plan import (
    GIB,
    estimate_memory,
    largest_micro_tokens,
    micro_token_choices,
    parameter_count,
    remedy,
    usable_bytes,
    with_settings,
)

LARGE = "tasks/recipes/ernie2_zh_large.yaml"
ROWS = 18_000


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ernie2.plan", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_table7_is_printed():
    page = command("tasks/recipes/table7.yaml").stdout
    rows = {line.split()[0]: line.split()[1:] for line in page.splitlines() if line.endswith("50k")}
    assert rows == {
        "knowledge_masking": ["20k", "10k", "10k", "10k", "50k"],
        "capitalization": ["-", "30k", "10k", "10k", "50k"],
        "token_document": ["-", "-", "40k", "10k", "50k"],
        "sentence_reordering": ["-", "-", "-", "50k", "50k"],
    }
    assert "48 micro-batches of 8,192" in page


@pytest.mark.parametrize(("mode", "stages"), [("multitask", 1), ("continual", 4)])
def test_other_modes_and_json(mode, stages):
    found = json.loads(command("tasks/recipes/table7.yaml", f"curriculum.mode={mode}", "--json").stdout)
    assert len(found["stages"]) == stages and found["steps"] == 200_000
    assert found["tokens"] == 200_000 * 393_216


def test_mistakes_exit_with_2():
    done = command("tasks/recipes/table7.yaml", "curriculum.mde=multitask")
    assert (
        done.returncode == 2
        and "did you mean 'curriculum.mode'" in done.stderr
        and "Traceback" not in done.stderr
    )
    done = command("tasks/recipes/tabel7.yaml")
    assert done.returncode == 2 and "tabel7.yaml: no such file" in done.stderr


def test_parameter_count_is_the_models():
    """The estimate counts what the model has (encoder and masked-LM head)."""
    from ernie2.encoder import EncoderConfig
    from ernie2.model import ErnieForPretraining

    recipe = load_recipe(ROOT / "tasks/recipes/demo.yaml")
    model = ErnieForPretraining(EncoderConfig.from_recipe(recipe.model, 500, 0), [])
    assert parameter_count(recipe, 500) == sum(parameter.size for parameter in model.parameters())


def test_time_estimate():
    recipe = load_recipe(ROOT / "tasks/recipes/table7.yaml")
    figures = plan.estimate(recipe, make_plan(recipe.curriculum), 30_522, tokens_per_s=1e6)
    assert figures["hours"] == pytest.approx(200_000 * 393_216 / 1e6 / 3600)
    assert 100e6 < figures["parameters"] < 115e6


# ---- memory
# ---------------------------------------------------------------------------------------------------------


def recipe(path: str = LARGE, *overrides: str) -> Recipe:
    return load_recipe(ROOT / path, [*overrides])


def test_states_of_a_rank():
    whole, alone = (estimate_memory(recipe(), ROWS, ranks) for ranks in (8, 1))
    count = parameter_count(recipe(), ROWS)
    assert (whole["weights"], whole["gradients"], whole["moments"], whole["master"]) == (
        2 * count,
        6 * count,
        8 * count,
        4 * count,
    )
    assert whole["total"] == sum(value for name, value in whole.items() if name != "total")
    assert (
        alone["exchange"] == 0
        and whole["exchange"] == 2 * count
        and whole["total"] == alone["total"] + whole["exchange"]
    )


def test_activations_follow_the_micro_batch_and_recompute():
    now = estimate_memory(recipe(), ROWS)
    half = estimate_memory(with_settings(recipe(), "batch", micro_tokens=4096), ROWS)
    assert now["activations"] == pytest.approx(2 * half["activations"], rel=1e-6)
    assert (
        estimate_memory(with_settings(recipe(), "runtime", recompute=True), ROWS)["activations"]
        < now["activations"] / 5
    )
    # In half precision: half the weights and half the numbers' size, but master weights; fp32 is a CPU's,
    # which keeps fewer.
    single = estimate_memory(with_settings(recipe(), "runtime", precision="fp32"), ROWS)
    assert single["weights"] == 2 * now["weights"] and single["master"] == 0
    assert 1.3 < single["activations"] / now["activations"] < 2.2


def test_choices_leave_the_step_alone_and_are_even_over_the_ranks():
    choices = micro_token_choices(recipe(), 48)
    assert choices[0] == 8192 and choices == sorted(choices, reverse=True) and choices[-1] >= 512
    assert all(393_216 % (48 * tokens) == 0 for tokens in choices)
    assert all(
        393_216 % tokens == 0 and 393_216 // tokens >= 7 for tokens in micro_token_choices(recipe(), 7)
    )
    assert micro_token_choices(recipe(), 1024) == []  # not one sample of 512 tokens for each


def test_the_largest_fits_and_the_next_does_not():
    usable = usable_bytes("gpu", 16 * GIB)
    found = largest_micro_tokens(recipe(), ROWS, 48, usable)
    larger = min(tokens for tokens in micro_token_choices(recipe(), 48) if tokens > found)
    assert estimate_memory(with_settings(recipe(), "batch", micro_tokens=found), ROWS, 48)["total"] <= usable
    assert estimate_memory(with_settings(recipe(), "batch", micro_tokens=larger), ROWS, 48)["total"] > usable
    assert largest_micro_tokens(recipe(), ROWS, 48, usable_bytes("gpu", 2 * GIB)) is None


def test_page_and_json_say_what_fits_and_which_key_to_set():
    page = command(LARGE, "--ranks", "48").stdout
    assert (
        "\nfit      32 GiB: fits" in page
        and "\nfit      16 GiB: does not fit; largest that fits: batch.micro_tokens=" in page
    )
    assert "master 1." in page
    found = json.loads(command(LARGE, "--ranks", "48", "--device-memory", "24", "--json").stdout)
    (device,) = found["fits"]
    assert device["device_memory_gib"] == 24 and device["usable_bytes"] < 24 * GIB
    assert device["fits"] == (found["memory"]["total"] <= device["usable_bytes"])
    assert found["memory"]["total"] == found["state_bytes"] + found["activation_bytes"]
    on_a_cpu = json.loads(command("tasks/recipes/demo.yaml", "--json").stdout)["fits"]
    assert len(on_a_cpu) == 1 and on_a_cpu[0]["fits"]


def test_options_of_no_sense_are_refused():
    for option in ("--ranks", "--device-memory"):
        done = command(LARGE, option, "0")
        assert done.returncode == 2 and f"{option}: found 0" in done.stderr


def test_remedies_name_keys_that_help():
    text = remedy(recipe(), ranks=48)
    assert "batch.micro_tokens=4096 instead of 8192" in text and "the step stays the same" in text
    assert "runtime.recompute=true" in text
    last = recipe(LARGE, "batch.tokens=512", "batch.micro_tokens=512", "runtime.recompute=true")
    assert "data.max_seq_len below 512" in remedy(last)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "recompute", "library"),
    [(128, False, False), (256, False, False), (256, True, False), (256, False, True)],
)
def test_the_estimate_is_what_a_token_keeps(length, recompute, library):
    """Against the kernel's high-water mark; docs/scaling.md has the same of larger models."""
    measured, estimated = bytes_per_token("mini", length, 1024, 4096, recompute, library)
    assert estimated == pytest.approx(measured, rel=0.25)


def test_overrides_alone_mean_the_default_recipe(monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe, where, _ = plan.parse_recipe(plan.recipe_parser("x", None), ["seed=5"])
    assert (recipe.name, recipe.seed, where) == ("demo", 5, plan.DEFAULT_RECIPE)


def test_balance_is_measured_on_the_shards(tiny_recipe, tiny_tasks):
    recipe = build(Recipe, tiny_recipe, "test")
    found = plan.balance(recipe, list(tiny_tasks.values()), 2)
    assert 1 <= found["imbalance"] < 1.3 and 0 <= found["padding"] < 0.2
    assert plan.balance(recipe, list(tiny_tasks.values()), 1)["imbalance"] == 1
    recipe.data.shards_dir = "nowhere"
    assert plan.balance(recipe, list(tiny_tasks.values()), 2) is None
