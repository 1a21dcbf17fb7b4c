"""python -m ernie2.plan RECIPE.yaml [key=value ...] [--json] [--tokens-per-s N]

The stage table, the batch arithmetic, and an estimate of memory and time, before anything is computed. No tensors here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ernie2.config import SIZES, Recipe, cli, load_recipe
from ernie2.curriculum import Plan, make_plan
from ernie2.shards import read_index
from ernie2.strict import ConfigError
from ernie2.tasks import Task, select_tasks

DEFAULT_RECIPE = "tasks/recipes/demo.yaml"


def recipe_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser for RECIPE.yaml [key=value ...]."""
    parser = argparse.ArgumentParser(prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default=DEFAULT_RECIPE, help=f"recipe (default {DEFAULT_RECIPE})")
    parser.add_argument("overrides", nargs="*", help="key=value, for example seed=2 or curriculum.steps_per_task=100")
    return parser


def parse_recipe(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[Recipe, str, argparse.Namespace]:
    """Recipe with its overrides, where it came from, and the other arguments."""
    args = parser.parse_intermixed_args(argv)
    if "=" in args.recipe:
        args.recipe, args.overrides = DEFAULT_RECIPE, [args.recipe, *args.overrides]
    return load_recipe(args.recipe, args.overrides), args.recipe, args


def recipe_from_command_line(argv: list[str], prog: str) -> tuple[Recipe, str]:
    """For commands that take a recipe and overrides only."""
    recipe, where, _ = parse_recipe(recipe_parser(prog, None), argv)
    return recipe, where


def stage_table(plan: Plan) -> str:
    """The paper's Table 7 for this plan: optimizer steps of each task in each stage."""
    head = ["task", *(f"stage {stage.number + 1}" for stage in plan.stages), "all"]
    rows = [[name, *(_steps(count) for count in counts), _steps(sum(counts))] for name, counts in plan.table()]
    rows.append(["steps", *(_steps(stage.steps) for stage in plan.stages), _steps(plan.steps)])
    return _align([head, *rows])


def parameter_count(recipe: Recipe, vocab_rows: int) -> int:
    """Parameters of the encoder and the masked-LM head."""
    layers, width, _, inner = SIZES[recipe.model.size]
    rows = vocab_rows + recipe.model.max_position_embeddings + recipe.model.sentence_type_vocab_size
    embeddings = (rows + recipe.model.task_type_vocab_size + 2) * width
    layer = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    return embeddings + layers * layer + 2 * width * (width + 1) + 2 * width + vocab_rows


def estimate(recipe: Recipe, plan: Plan, vocab_rows: int, tokens_per_s: float | None) -> dict[str, Any]:
    """Arithmetic on memory (bytes on one device, fp32 activations stored for the backward pass) and time."""
    layers, width, heads, inner = SIZES[recipe.model.size]
    parameters = parameter_count(recipe, vocab_rows)
    half = recipe.runtime.precision != "fp32"
    unit = 2 if half else 4
    states = parameters * (unit + unit + 8 + (4 if half else 0))  # weights, gradients, two moments, master weights
    micro, length = recipe.batch.micro_tokens, recipe.data.max_seq_len
    kept_layers = 1 if recipe.runtime.recompute else layers
    per_token = (12 * width + 3 * inner + 4 * heads * length) * kept_layers + layers * width
    logits = 3 * recipe.data.mask_prob * micro * vocab_rows * 4
    flops = 6 * (parameters - vocab_rows * width) + 12 * layers * width * length + 6 * recipe.data.mask_prob * vocab_rows * width
    tokens = sum(sum(counts) for _, counts in plan.table()) * recipe.batch.tokens
    result = {"parameters": parameters, "state_bytes": states, "activation_bytes": int(micro * per_token * unit + logits),
              "tokens": tokens, "flops_per_token": int(flops), "flops": flops * tokens}
    if tokens_per_s:
        result["hours"] = tokens / tokens_per_s / 3600
    return result


def vocabulary_rows(recipe: Recipe) -> int:
    """Rows of the token embedding, as far as the recipe tells before its vocabulary exists."""
    if recipe.model.vocab_rows:
        return recipe.model.vocab_rows
    path = Path(recipe.model.vocab_file)
    if path.is_file():
        return sum(1 for line in path.read_text(encoding="utf-8").split("\n") if line)
    return recipe.data.vocab_size or 18_000


def opening_page(recipe: Recipe, plan: Plan, ranks: int = 1, tokens_per_s: float | None = None) -> str:
    """What a run prints before its first step."""
    figures = estimate(recipe, plan, vocabulary_rows(recipe), tokens_per_s)
    batch = recipe.batch
    lines = [
        f"{recipe.name}: {recipe.curriculum.mode}, {recipe.curriculum.step}, optimizer steps by task and stage",
        "", stage_table(plan), "",
        f"batch    {batch.tokens:,} tokens a step = {batch.micro_batches} micro-batch{'es' if batch.micro_batches > 1 else ''} of "
        f"{batch.micro_tokens:,} over {ranks} rank{'s' if ranks > 1 else ''}",
        f"model    {recipe.model.size}, {figures['parameters'] / 1e6:.1f} M parameters, {recipe.model.hidden_act}, "
        f"{recipe.runtime.precision}",
        f"memory   about {_size(figures['state_bytes'])} of weights, gradients and moments and "
        f"{_size(figures['activation_bytes'])} of activations on a device (estimate)",
        f"work     {figures['tokens'] / 1e6:,.1f} M tokens, {figures['flops']:.1e} floating-point operations"
        + (f", {figures['hours']:.1f} h at {tokens_per_s:,.0f} tokens/s" if tokens_per_s else ""),
    ]
    stages = [" | ".join(recipe.masking.levels(stage.number)) for stage in plan.stages]
    lines.append(f"masking  {', '.join(stages) if len(set(stages)) > 1 else stages[0]}")
    if recipe.runtime.max_steps:
        lines.append(f"stops after {recipe.runtime.max_steps} steps (runtime.max_steps)")
    return "\n".join(lines)


def closing_page(recipe: Recipe, where: str, result: dict[str, Any]) -> str:
    """What a run prints last: each task's dev result beside its chance level, and what to run next."""
    rows = [["task", "head", "dev loss", "dev accuracy", "chance"]]
    for task, splits in result["tasks"].items():
        dev = splits["dev"]
        for head, loss in dev["losses"].items():
            rows.append([task, head, f"{loss:.3f}", f"{dev['accuracy'][head]:.3f}", f"{dev['chance'][head]:.3f}"])
    newest = f"{recipe.out_dir}/step_{result['steps']:07d}"
    first = next(iter(result["tasks"]), recipe.task_names()[0])
    return "\n".join([
        "", f"{recipe.name}: {result['steps']} steps, {result['tokens'] / 1e6:.2f} M tokens, {result['seconds']:.0f} s", "",
        _align(rows), "",
        "what next",
        f"  fine-tune     bash run_finetune.sh tasks/finetune/chnsenticorp.yaml init_from={newest} data_dir=FOLDER",
        f"  see the data  python -m data_gen.show {recipe.data.shards_dir}/{first}",
        f"  see the run   python -m ernie2.report {recipe.out_dir}",
    ])


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def _steps(count: int) -> str:
    if not count:
        return "-"
    return f"{count // 1000}k" if count % 1000 == 0 else f"{count:,}"


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [[cell.ljust(w) if i == 0 or not _numeric(cell) and r else cell.rjust(w)
             for i, (cell, w) in enumerate(zip(row, widths, strict=True))] for r, row in enumerate(rows)]
    return "\n".join("  ".join(row).rstrip() for row in text)


def _numeric(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()


def main(argv: list[str]) -> None:
    """Command line."""
    parser = recipe_parser("python -m ernie2.plan", __doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ranks", type=int, default=1, help="devices that share a step")
    parser.add_argument("--tokens-per-s", type=float, help="throughput over all devices, for the time estimate")
    recipe, where, args = parse_recipe(parser, argv)
    tasks = select_tasks(recipe.task_names(), f"{where}: curriculum.stages")
    plan = make_plan(recipe.curriculum)
    if args.json:
        stages = [{"stage": s.number, "first_step": s.first_step, "steps": s.steps, "tasks": s.shares} for s in plan.stages]
        page = json.dumps({"name": recipe.name, "steps": plan.steps, "stages": stages,
                           "micro_batches": recipe.batch.micro_batches,
                           **estimate(recipe, plan, vocabulary_rows(recipe), args.tokens_per_s)}, indent=1)
    else:
        page = "\n".join([opening_page(recipe, plan, args.ranks, args.tokens_per_s),
                          *(shards_line(recipe, plan, task) for task in tasks)])
    sys.stdout.write(page + "\n")


def shards_line(recipe: Recipe, plan: Plan, task: Task) -> str:
    """What a task has to train on, and how often the plan goes through it."""
    try:
        index = read_index(Path(recipe.data.shards_dir) / task.name)
    except ConfigError:
        return f"shards   {task.name}: none yet in {recipe.data.shards_dir}"
    asked = sum(dict(plan.table())[task.name]) * recipe.batch.tokens
    return (f"shards   {task.name}: {index['samples']['train']:,} samples, {index['tokens']['train'] / 1e6:.2f} M tokens, "
            f"{asked / max(index['tokens']['train'], 1):.1f} epochs")


if __name__ == "__main__":
    cli(main)()
