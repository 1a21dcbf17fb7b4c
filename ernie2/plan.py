"""`python -m ernie2.plan RECIPE.yaml [key=value ...]`: stages, batches, memory and time of a run, before it
starts.

The stage table, the batch arithmetic, an estimate of memory with the largest batch.micro_tokens that fits,
and of time, before anything is computed. No tensors here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.batching import TaskStream
from ernie2.config import SIZES, Recipe, cli, load_recipe
from ernie2.curriculum import Plan, make_plan
from ernie2.disk import size
from ernie2.memory import (
    GIB,
    V100_MEMORY,
    device_kind,
    estimate_memory,
    host_memory,
    largest_micro_tokens,
    parameter_count,
    usable_bytes,
    vocabulary_rows,
    with_runtime,
)
from ernie2.shards import ShardReader, read_index
from ernie2.strict import ConfigError
from ernie2.tasks import Task, select_tasks
from ernie2.tokenizer import Vocab

DEFAULT_RECIPE = "tasks/recipes/demo.yaml"


def recipe_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser for RECIPE.yaml [key=value ...]."""
    parser = argparse.ArgumentParser(
        prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipe", nargs="?", default=DEFAULT_RECIPE, help=f"recipe (default {DEFAULT_RECIPE})"
    )
    parser.add_argument(
        "overrides", nargs="*", help="key=value, for example seed=2 or curriculum.steps_per_task=100"
    )
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
    rows = [
        [name, *(_steps(count) for count in counts), _steps(sum(counts))] for name, counts in plan.table()
    ]
    rows.append(["steps", *(_steps(stage.steps) for stage in plan.stages), _steps(plan.steps)])
    return _align([head, *rows])


def estimate(
    recipe: Recipe, plan: Plan, vocab_rows: int, tokens_per_s: float | None, ranks: int = 1
) -> dict[str, Any]:
    """Arithmetic on memory (bytes on one of `ranks` devices, see ernie2.memory), work and time."""
    layers, width, _, inner = SIZES[recipe.model.size]
    parameters, memory = parameter_count(recipe, vocab_rows), estimate_memory(recipe, vocab_rows, ranks)
    attention = 12 * layers * width * recipe.data.max_seq_len
    unread = 6 * (1 - recipe.data.mask_prob) * width * (width + 2 * inner)  # of the last layer's feed-forward
    flops = (
        6 * (parameters - vocab_rows * width)
        + attention
        + 6 * recipe.data.mask_prob * vocab_rows * width
        - unread
    )
    tokens = sum(sum(counts) for _, counts in plan.table()) * recipe.batch.tokens
    result = {
        "parameters": parameters,
        "state_bytes": memory.states,
        "activation_bytes": memory.activations + memory.logits,
        "memory": memory.to_json(),
        "tokens": tokens,
        "flops_per_token": int(flops),
        "flops": flops * tokens,
    }
    if tokens_per_s:
        result["hours"] = tokens / tokens_per_s / 3600
    return result


def fits(
    recipe: Recipe, vocab_rows: int, ranks: int = 1, device_memory: float | None = None
) -> list[dict[str, Any]]:
    """Whether a step fits a device, and what would, one entry a device.

    Args:
        recipe: fp16 and bf16 are for a GPU, fp32 for a CPU, whose memory all ranks share.
        vocab_rows: rows of the token embedding.
        ranks: devices that share a step.
        device_memory: GiB of a device; default: both kinds of V100, or this machine's memory for fp32.

    Returns:
        Of each device: device_memory_gib, usable_bytes (of a rank), fits, largest_micro_tokens and the same
        with runtime.recompute=true (largest_micro_tokens_recompute); None where not even one sample fits."""
    kind, wanted = device_kind(recipe), estimate_memory(recipe, vocab_rows, ranks).total
    devices = (
        [device_memory]
        if device_memory
        else list(V100_MEMORY)
        if kind == "gpu"
        else [round(host_memory() / GIB, 1)]
    )
    ways = {"": recipe, "_recompute": with_runtime(recipe, recompute=True)}
    found = []
    for gib in devices:
        usable = usable_bytes(kind, gib * GIB, ranks if kind == "cpu" else 1)
        found.append(
            {
                "device_memory_gib": gib,
                "usable_bytes": usable,
                "fits": wanted <= usable,
                **{
                    f"largest_micro_tokens{way}": largest_micro_tokens(changed, vocab_rows, ranks, usable)
                    for way, changed in ways.items()
                },
            }
        )
    return found


def opening_page(
    recipe: Recipe,
    plan: Plan,
    ranks: int = 1,
    tokens_per_s: float | None = None,
    device_memory: float | None = None,
) -> str:
    """What a run prints before its first step; `ranks` and `device_memory` as in `fits`."""
    figures = estimate(recipe, plan, vocabulary_rows(recipe), tokens_per_s, ranks)
    batch = recipe.batch
    lines = [
        f"{recipe.name}: {recipe.curriculum.mode}, {recipe.curriculum.step}, optimizer steps by task and "
        "stage",
        "",
        stage_table(plan),
        "",
        f"batch    {batch.tokens:,} tokens a step = {batch.micro_batches} "
        f"micro-batch{'es' if batch.micro_batches > 1 else ''} of "
        f"{batch.micro_tokens:,} over {ranks} rank{'s' if ranks > 1 else ''}",
        f"model    {recipe.model.size}, {figures['parameters'] / 1e6:.1f} M parameters, "
        f"{recipe.model.hidden_act}, "
        f"{recipe.runtime.precision}",
        *memory_lines(recipe, figures["memory"], fits(recipe, vocabulary_rows(recipe), ranks, device_memory)),
        f"work     {figures['tokens'] / 1e6:,.1f} M tokens, {figures['flops']:.1e} floating-point operations"
        + (f", {figures['hours']:.1f} h at {tokens_per_s:,.0f} tokens/s" if tokens_per_s else ""),
    ]
    stages = [" | ".join(recipe.masking.levels(stage.number)) for stage in plan.stages]
    lines.append(f"masking  {', '.join(stages) if len(set(stages)) > 1 else stages[0]}")
    if recipe.runtime.max_steps:
        lines.append(f"stops after {recipe.runtime.max_steps} steps (runtime.max_steps)")
    return "\n".join(lines)


def memory_lines(recipe: Recipe, memory: dict[str, int], devices: list[dict[str, Any]]) -> list[str]:
    """What a device holds at the peak of a step, and for each device whether that fits and what to set."""
    parts = {
        "weights": "weights",
        "gradients": "gradients",
        "moments": "moments",
        "master": "master weights",
        "exchange": "gradients in transit",
        "activations": "activations",
        "logits": "masked-LM logits",
    }
    lines = [
        f"memory   about {size(memory['total'])} on a device (estimate):",
        "         "
        + ", ".join(f"{words} {size(memory[part])}" for part, words in parts.items() if memory[part]),
    ]
    now = recipe.batch.micro_tokens
    for number, device in enumerate(devices):
        most = device["largest_micro_tokens"]
        text = f"{device['device_memory_gib']:g} GiB: {'fits' if device['fits'] else 'does not fit'}; "
        if most:
            text += (
                f"largest that fits: batch.micro_tokens={most}"
                if most != now
                else f"batch.micro_tokens={now} is the largest"
            )
        else:
            text += "no batch.micro_tokens does"
        more = device["largest_micro_tokens_recompute"] or 0
        lines.append(
            f"{'fit' if not number else '':<9}{text}"
            + (f" ({more} with runtime.recompute=true)" if more > (most or 0) else "")
        )
    return lines


def closing_page(recipe: Recipe, where: str, result: dict[str, Any]) -> str:
    """What a run prints last: each task's dev result beside its chance level, and what to run next."""
    rows = [["task", "head", "dev loss", "dev accuracy", "chance"]]
    for task, splits in result["tasks"].items():
        dev = splits["dev"]
        for head, loss in dev["losses"].items():
            rows.append(
                [task, head, f"{loss:.3f}", f"{dev['accuracy'][head]:.3f}", f"{dev['chance'][head]:.3f}"]
            )
    newest = f"{recipe.out_dir}/step_{result['steps']:07d}"
    first = next(iter(result["tasks"]), recipe.task_names()[0])
    return "\n".join(
        [
            "",
            f"{recipe.name}: {result['steps']} steps, {result['tokens'] / 1e6:.2f} M tokens, "
            f"{result['seconds']:.0f} s",
            "",
            _align(rows),
            "",
            "what next",
            f"  fine-tune     bash run_finetune.sh tasks/finetune/chnsenticorp.yaml init_from={newest} "
            "data_dir=FOLDER",
            f"  see the data  python -m data_gen.show {recipe.data.shards_dir}/{first}",
            f"  see the run   python -m ernie2.report {recipe.out_dir}",
        ]
    )


def _steps(count: int) -> str:
    if not count:
        return "-"
    return f"{count // 1000}k" if count % 1000 == 0 else f"{count:,}"


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [
        [
            cell.ljust(w) if i == 0 or not _numeric(cell) and r else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for r, row in enumerate(rows)
    ]
    return "\n".join("  ".join(row).rstrip() for row in text)


def _numeric(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()


def main(argv: list[str]) -> None:
    """Command line."""
    parser = recipe_parser("python -m ernie2.plan", __doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ranks", type=int, default=1, help="devices that share a step")
    parser.add_argument(
        "--device-memory",
        type=float,
        metavar="GIB",
        help="memory of a device (default: 32 and 16, the two "
        "V100s, for fp16 and bf16; this machine's for fp32)",
    )
    parser.add_argument(
        "--tokens-per-s", type=float, help="throughput over all devices, for the time estimate"
    )
    recipe, where, args = parse_recipe(parser, argv)
    for option, value in (
        ("--ranks", args.ranks),
        ("--device-memory", args.device_memory),
        ("--tokens-per-s", args.tokens_per_s),
    ):
        if value is not None and value <= 0:
            raise ConfigError(f"{option}: found {value}, expected more than 0")
    tasks = select_tasks(recipe.task_names(), f"{where}: curriculum.stages")
    plan = make_plan(recipe.curriculum)
    if args.json:
        stages = [
            {"stage": s.number, "first_step": s.first_step, "steps": s.steps, "tasks": s.shares}
            for s in plan.stages
        ]
        rows = vocabulary_rows(recipe)
        page = json.dumps(
            {
                "name": recipe.name,
                "steps": plan.steps,
                "stages": stages,
                "micro_batches": recipe.batch.micro_batches,
                "ranks": args.ranks,
                **estimate(recipe, plan, rows, args.tokens_per_s, args.ranks),
                "fits": fits(recipe, rows, args.ranks, args.device_memory),
                **(balance(recipe, tasks, args.ranks) or {"imbalance": None, "padding": None}),
            },
            indent=1,
        )
    else:
        page = "\n".join(
            [
                opening_page(recipe, plan, args.ranks, args.tokens_per_s, args.device_memory),
                *balance_lines(balance(recipe, tasks, args.ranks), args.ranks),
                *(shards_line(recipe, plan, task) for task in tasks),
            ]
        )
    sys.stdout.write(page + "\n")


def balance(recipe: Recipe, tasks: list[Task], ranks: int) -> dict[str, float] | None:
    """How evenly the samples in the shards fall on `ranks` devices, over a pool of batches of each task.

    Returns:
        imbalance: cost of the costliest rank over the mean rank's. padding: share of what is computed. None
        where there are no shards yet."""
    try:
        digest = Vocab.load(recipe.model.vocab_file).digest
        readers = [(ShardReader(Path(recipe.data.shards_dir) / t.name, "train", t, digest), t) for t in tasks]
    except ConfigError:
        return None
    streams = [TaskStream(reader, task, recipe) for reader, task in readers]
    found = np.array([stream.imbalance(ranks, recipe.batch.pool_batches) for stream in streams])
    return dict(zip(("imbalance", "padding"), found.mean(0).tolist(), strict=True))


def balance_lines(found: dict[str, float] | None, ranks: int) -> list[str]:
    """`balance` for people."""
    if found is None:
        return []
    return [
        f"balance  costliest of {ranks} ranks {found['imbalance'] - 1:.1%} above the mean, "
        f"{found['padding']:.1%} padding (measured on the shards)"
    ]


def shards_line(recipe: Recipe, plan: Plan, task: Task) -> str:
    """What a task has to train on, and how often the plan goes through it."""
    try:
        index = read_index(Path(recipe.data.shards_dir) / task.name)
    except ConfigError:
        return f"shards   {task.name}: none yet in {recipe.data.shards_dir}"
    asked = sum(dict(plan.table())[task.name]) * recipe.batch.tokens
    return (
        f"shards   {task.name}: {index['samples']['train']:,} samples, {index['tokens']['train'] / 1e6:.2f} "
        "M tokens, "
        f"{asked / max(index['tokens']['train'], 1):.1f} epochs"
    )


if __name__ == "__main__":
    cli(main)()
