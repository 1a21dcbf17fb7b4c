"""`python -m ernie2.plan RECIPE.yaml [key=value ...]`: what a run will do, before it starts.

The stage table, the batch arithmetic, an estimate of memory with the largest batch.micro_tokens that fits,
and of time. No tensors here. Memory is exact but for heads of single tasks and activations, which are counted
from what the layers keep: on a CPU checked (tests/activation_memory.py), on a GPU not measured."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.batching import TaskStream
from ernie2.config import SIZES, Recipe, load_recipe
from ernie2.curriculum import Plan, make_plan
from ernie2.disk import size
from ernie2.shards import ShardReader, read_index
from ernie2.strict import ConfigError, cli
from ernie2.tasks import Task, select_tasks
from ernie2.tokenizer import Vocab

DEFAULT_RECIPE = "tasks/recipes/demo.yaml"
V100_MEMORY = (32, 16)  # GiB
GIB = 2**30
PADDING = 1.05  # padded tokens of a micro-batch over its real ones, rather too many
USABLE = 0.9  # the rest goes to holes between blocks of the allocator
RESERVED = {"gpu": 1.0, "cpu": 0.5}  # GiB: CUDA context and libraries; the interpreter with paddle


def recipe_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser for RECIPE.yaml [key=value ...]."""
    parser = argparse.ArgumentParser(prog=prog, description=doc)
    parser.add_argument("recipe", nargs="?", default=DEFAULT_RECIPE, help=f"default {DEFAULT_RECIPE}")
    parser.add_argument("overrides", nargs="*", help="key=value, for example curriculum.steps_per_task=100")
    return parser


def parse_recipe(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[Recipe, str, argparse.Namespace]:
    """Recipe with its overrides, where it came from, and the other arguments."""
    args = parser.parse_intermixed_args(argv)
    if "=" in args.recipe:
        args.recipe, args.overrides = DEFAULT_RECIPE, [args.recipe, *args.overrides]
    return load_recipe(args.recipe, args.overrides), args.recipe, args


def parameter_count(recipe: Recipe, vocab_rows: int) -> int:
    """Parameters of the encoder and the masked-LM head."""
    layers, width, _, inner = SIZES[recipe.model.size]
    rows = vocab_rows + recipe.model.max_position_embeddings + recipe.model.sentence_type_vocab_size
    embeddings = (rows + recipe.model.task_type_vocab_size + 2) * width
    layer = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    return embeddings + layers * layer + 2 * width * (width + 1) + 2 * width + vocab_rows


def vocabulary_rows(recipe: Recipe) -> int:
    """Rows of the token embedding, as far as the recipe tells before its vocabulary exists."""
    path = Path(recipe.model.vocab_file)
    if not recipe.model.vocab_rows and path.is_file():
        return sum(1 for line in path.read_text(encoding="utf-8").split("\n") if line)
    return recipe.model.vocab_rows or recipe.data.vocab_size or 18_000


def estimate_memory(recipe: Recipe, vocab_rows: int, ranks: int = 1) -> dict[str, int]:
    """Bytes at the peak of a training step on one of `ranks` devices: of each part, and their total."""
    count, half = parameter_count(recipe, vocab_rows), recipe.runtime.precision != "fp32"
    tokens = recipe.batch.micro_tokens * PADDING
    logit = 14 if half else 12  # with its softmax and gradient in float32
    parts = {
        "weights": count * (2 if half else 4),
        "gradients": count * (6 if half else 4),  # float32, and those of the micro-batch under way
        "moments": count * 8,
        "master": count * 4 if half else 0,  # weights in float32
        "exchange": count * (2 if half else 4) if ranks > 1 else 0,  # gradients as DataParallel sends them
        "activations": int(tokens * activation_bytes_per_token(recipe)),
        "logits": int(tokens * recipe.data.mask_prob * vocab_rows * logit),  # at predicted positions only
    }
    return parts | {"total": sum(parts.values())}


def activation_bytes_per_token(recipe: Recipe) -> int:
    """Bytes that a padded token of a sample of data.max_seq_len keeps for the backward pass.

    In each layer: copies of the input, query, key, value, the heads' output, LayerNorm inputs, and the inner
    activations before and after their function; attention scores, their softmax, dropout's mask and product.
    The last layer keeps what follows its attention for data.mask_prob of the tokens. The CPU's own functions
    keep the softmax and its product with the mask alone, and no input of a sum. With runtime.recompute every
    layer keeps its input, and one layer at a time all of it, with the gradients that pass through it."""
    layers, width, heads, inner = SIZES[recipe.model.size]
    half, dropout = recipe.runtime.precision != "fp32", recipe.model.dropout > 0
    on_cpu = not half and not recipe.runtime.recompute
    wide = (11 if half else 8 if on_cpu else 12) * width
    wide += (3 if recipe.model.hidden_act == "relu" else 4) * inner
    with_dropout, without = (2, 1) if on_cpu else (3 if half else 4, 2)
    scores = (with_dropout if dropout else without) * heads * recipe.data.max_seq_len
    layer, unit = wide + scores, 2 if half else 4
    if recipe.runtime.recompute:
        return int(unit * (layer + 6 * width + 2 * inner + layers * width))
    unread = (1 - recipe.data.mask_prob) * (wide - 5 * width)  # input, query, key, value, heads' output
    return int(unit * (layers * layer + layers * width - unread))


def usable_bytes(kind: str, device_bytes: float, processes: int = 1) -> int:
    """What a process may fill of the memory of a "gpu" or "cpu" that so many processes share."""
    return int(max(0.0, USABLE * device_bytes / processes - RESERVED[kind] * GIB))


def micro_token_choices(recipe: Recipe, ranks: int = 1) -> list[int]:
    """Values of batch.micro_tokens that leave batch.tokens as it is, the largest first.

    Each holds a sample of data.max_seq_len and gives every rank equally many micro-batches, or at least one
    where batch.tokens is no multiple of the ranks."""
    tokens = recipe.batch.tokens
    share = ranks if tokens % ranks == 0 else 1
    divisors = range(share, tokens // recipe.data.max_seq_len + 1, share)
    return [tokens // divisor for divisor in divisors if tokens % divisor == 0 and divisor >= ranks]


def largest_micro_tokens(recipe: Recipe, vocab_rows: int, ranks: int, usable: int) -> int | None:
    """The largest batch.micro_tokens whose estimate is within `usable` bytes; None: not one sample is."""
    for tokens in micro_token_choices(recipe, ranks):
        smaller = with_settings(recipe, "batch", micro_tokens=tokens)
        if estimate_memory(smaller, vocab_rows, ranks)["total"] <= usable:
            return tokens
    return None


def with_settings(recipe: Recipe, section: str, **settings: Any) -> Recipe:
    """The recipe with other keys of a section."""
    return replace(recipe, **{section: replace(getattr(recipe, section), **settings)})


def remedy(recipe: Recipe, ranks: int = 1) -> str:
    """What to set where a run on `ranks` devices found no memory: keys with values, for an error message."""
    needed = estimate_memory(recipe, vocabulary_rows(recipe), ranks)["total"]
    micro, ways = recipe.batch.micro_tokens, []
    if smaller := [tokens for tokens in micro_token_choices(recipe, ranks) if tokens <= micro // 2]:
        ways.append(f"batch.micro_tokens={smaller[0]} instead of {micro} (the step stays the same)")
    if not recipe.runtime.recompute:
        ways.append("runtime.recompute=true (about a third more time)")
    ways.append(f"a data.max_seq_len below {recipe.data.max_seq_len} or a smaller model.size")
    found = f"a step needs about {size(needed)} on a device (estimate)"
    return (
        f"{found}; set {', or '.join(ways)}; python -m ernie2.plan RECIPE.yaml --ranks {ranks} says what fits"
    )


def estimate(
    recipe: Recipe, plan: Plan, vocab_rows: int, tokens_per_s: float | None, ranks: int = 1
) -> dict[str, Any]:
    """Parameters, memory (bytes on one of `ranks` devices), tokens, floating-point operations and hours."""
    layers, width, _, inner = SIZES[recipe.model.size]
    parameters, predicted = parameter_count(recipe, vocab_rows), recipe.data.mask_prob
    parts = estimate_memory(recipe, vocab_rows, ranks)
    activations = parts["activations"] + parts["logits"]
    attention = 12 * layers * width * recipe.data.max_seq_len
    unread = 6 * (1 - predicted) * width * (width + 2 * inner)  # of the last layer's feed-forward
    dense = 6 * (parameters - vocab_rows * width)
    flops = dense + attention + 6 * predicted * vocab_rows * width - unread
    tokens = sum(sum(counts) for _, counts in plan.table()) * recipe.batch.tokens
    found = {
        "parameters": parameters,
        "state_bytes": parts["total"] - activations,
        "activation_bytes": activations,
        "memory": parts,
        "tokens": tokens,
        "flops_per_token": int(flops),
        "flops": flops * tokens,
    }
    return found | ({"hours": tokens / tokens_per_s / 3600} if tokens_per_s else {})


def fits(
    recipe: Recipe, vocab_rows: int, ranks: int = 1, device_memory: float | None = None
) -> list[dict[str, Any]]:
    """Whether a step fits a device of so many GiB, and the largest micro_tokens that does; one entry each.

    Default: both kinds of V100; for fp32 this machine, whose memory all ranks share."""
    needed = estimate_memory(recipe, vocab_rows, ranks)["total"]
    devices, kind, processes = V100_MEMORY, "gpu", 1
    if recipe.runtime.precision == "fp32":
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
        devices, kind, processes = [round(here, 1)], "cpu", ranks
    recomputed, found = with_settings(recipe, "runtime", recompute=True), []
    for gib in [device_memory] if device_memory else devices:
        usable = usable_bytes(kind, gib * GIB, processes)
        most, most_recomputed = (
            largest_micro_tokens(one, vocab_rows, ranks, usable) for one in (recipe, recomputed)
        )
        device = {"device_memory_gib": gib, "usable_bytes": usable, "fits": needed <= usable}
        device |= {"largest_micro_tokens": most, "largest_micro_tokens_recompute": most_recomputed}
        found.append(device)
    return found


def figures(
    recipe: Recipe, plan: Plan, ranks: int, tokens_per_s: float | None = None, memory: float | None = None
) -> dict[str, Any]:
    """All that --json prints but the balance; the arguments are those of `estimate` and `fits`."""
    rows = vocabulary_rows(recipe)
    stages = [
        {"stage": stage.number, "first_step": stage.first_step, "steps": stage.steps, "tasks": stage.shares}
        for stage in plan.stages
    ]
    return {
        "name": recipe.name,
        "steps": plan.steps,
        "stages": stages,
        "micro_batches": recipe.batch.micro_batches,
        "ranks": ranks,
        **estimate(recipe, plan, rows, tokens_per_s, ranks),
        "fits": fits(recipe, rows, ranks, memory),
    }


def opening_page(recipe: Recipe, plan: Plan, found: dict[str, Any]) -> str:
    """What a run prints before its first step; `found` is what `figures` gave."""
    hours, ranks = found.get("hours"), found["ranks"]
    time = f", {hours:.1f} h at {found['tokens'] / hours / 3600:,.0f} tokens/s" if hours else ""
    schedule, batch, model, parts = recipe.curriculum, recipe.batch, recipe.model, found["memory"]
    count = batch.micro_batches
    masking = [" | ".join(recipe.masking.levels(stage.number)) for stage in plan.stages]
    lines = [
        f"{recipe.name}: {schedule.mode}, {schedule.step}, optimizer steps by task and stage",
        f"\n{stage_table(plan)}\n",
        f"batch    {batch.tokens:,} tokens a step = {count} micro-batch{'es' * (count > 1)} of "
        f"{batch.micro_tokens:,} over {ranks} rank{'s' * (ranks > 1)}",
        f"model    {model.size}, {found['parameters'] / 1e6:.1f} M parameters, {model.hidden_act}, "
        f"{recipe.runtime.precision}",
        f"memory   about {size(parts['total'])} on a device (estimate):",
        "         " + ", ".join(f"{name} {size(part)}" for name, part in list(parts.items())[:-1] if part),
        *(f"fit      {fit_line(device)}" for device in found["fits"]),
        f"work     {found['tokens'] / 1e6:,.1f} M tokens, {found['flops']:.1e} floating-point operations"
        + time,
        f"masking  {', '.join(masking if len(set(masking)) > 1 else masking[:1])}",
    ]
    if recipe.runtime.max_steps:
        lines.append(f"stops after {recipe.runtime.max_steps} steps (runtime.max_steps)")
    return "\n".join(lines)


def fit_line(device: dict[str, Any]) -> str:
    """Whether a step fits a device, and what to set."""
    most, recomputed = device["largest_micro_tokens"] or 0, device["largest_micro_tokens_recompute"] or 0
    text = f"{device['device_memory_gib']:.4g} GiB: {'fits' if device['fits'] else 'does not fit'}; "
    text += f"largest that fits: batch.micro_tokens={most}" if most else "no batch.micro_tokens does"
    return text + (f" ({recomputed} with runtime.recompute=true)" if recomputed > most else "")


def closing_page(recipe: Recipe, where: str, result: dict[str, Any]) -> str:
    """What a run prints last: each task's dev result beside its chance level, and what to run next."""
    rows = [["task", "head", "dev loss", "dev accuracy", "chance"]]
    for task, splits in result["tasks"].items():
        dev = splits["dev"]
        for head, loss in dev["losses"].items():
            values = (loss, dev["accuracy"][head], dev["chance"][head])
            rows.append([task, head, *(f"{value:.3f}" for value in values)])
    newest = f"{recipe.out_dir}/step_{result['steps']:07d}"
    first = next(iter(result["tasks"]), recipe.task_names()[0])
    return f"""
{recipe.name}: {result["steps"]} steps, {result["tokens"] / 1e6:.2f} M tokens, {result["seconds"]:.0f} s

{_align(rows, left=2)}

what next
  fine-tune     bash run_finetune.sh tasks/finetune/chnsenticorp.yaml init_from={newest} data_dir=FOLDER
  see the data  python -m data_gen.show {recipe.data.shards_dir}/{first}
  see the run   python -m ernie2.report {recipe.out_dir}"""


def stage_table(plan: Plan) -> str:
    """The paper's Table 7 for this plan: optimizer steps of each task in each stage."""

    def row(name: str, counts: Sequence[int], total: int) -> list[str]:
        found = (*counts, total)
        return [name, *(f"{n // 1000}k" if n and n % 1000 == 0 else f"{n:,}" if n else "-" for n in found)]

    head = ["task", *(f"stage {stage.number + 1}" for stage in plan.stages), "all"]
    tasks = [row(name, counts, sum(counts)) for name, counts in plan.table()]
    return _align([head, *tasks, row("steps", [stage.steps for stage in plan.stages], plan.steps)])


def _align(rows: list[list[str]], left: int = 1) -> str:
    """Columns of a table, `left` of them aligned left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = ["<" if column < left else ">" for column in range(len(widths))]
    lines = [[f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths)] for row in rows]
    return "\n".join(map("  ".join, lines))


def balance(recipe: Recipe, tasks: list[Task], ranks: int) -> dict[str, float] | None:
    """How evenly the samples in the shards fall on `ranks` devices, over a pool of batches of each task.

    imbalance: cost of the costliest rank over the mean's; padding: its share. None without shards."""
    try:
        digest = Vocab.load(recipe.model.vocab_file).digest
        readers = [(ShardReader(Path(recipe.data.shards_dir) / t.name, "train", t, digest), t) for t in tasks]
    except ConfigError:
        return None
    streams = [TaskStream(reader, task, recipe) for reader, task in readers]
    found = np.array([stream.imbalance(ranks, recipe.batch.pool_batches) for stream in streams])
    return dict(zip(("imbalance", "padding"), found.mean(0).tolist(), strict=True))


def shards_page(recipe: Recipe, plan: Plan, tasks: list[Task], ranks: int) -> str:
    """What is measured on the shards: balance, samples, and how often the plan goes through them."""
    lines, steps = [], {name: sum(counts) for name, counts in plan.table()}
    if found := balance(recipe, tasks, ranks):
        above = f"costliest of {ranks} ranks {found['imbalance'] - 1:.1%} above the mean, " * (ranks > 1)
        lines.append(f"balance  {above}{found['padding']:.1%} padding (measured on the shards)")
    for task in tasks:
        try:
            index = read_index(Path(recipe.data.shards_dir) / task.name)
        except ConfigError:
            lines.append(f"shards   {task.name}: none yet in {recipe.data.shards_dir}")
            continue
        samples, tokens = index["samples"]["train"], index["tokens"]["train"]
        epochs = steps[task.name] * recipe.batch.tokens / max(tokens, 1)
        found = f"{samples:,} samples, {tokens / 1e6:.2f} M tokens, {epochs:.1f} epochs"
        lines.append(f"shards   {task.name}: {found}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Command line."""
    parser = recipe_parser("python -m ernie2.plan", __doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ranks", type=int, default=1, help="devices that share a step")
    help_memory = "default: of V100s; fp32: this machine"
    parser.add_argument("--device-memory", type=float, metavar="GIB", help=help_memory)
    parser.add_argument("--tokens-per-s", type=float, help="over all devices, for the time estimate")
    recipe, where, args = parse_recipe(parser, argv)
    for key in ("ranks", "device_memory", "tokens_per_s"):
        value = getattr(args, key)
        if value is not None and value <= 0:
            raise ConfigError(f"--{key.replace('_', '-')}: found {value}, expected more than 0")
    tasks = select_tasks(recipe.task_names(), f"{where}: curriculum.stages")
    plan = make_plan(recipe.curriculum)
    found = figures(recipe, plan, args.ranks, args.tokens_per_s, args.device_memory)
    if args.json:
        found |= balance(recipe, tasks, args.ranks) or {"imbalance": None, "padding": None}
        print(json.dumps(found, indent=1))
    else:
        print(opening_page(recipe, plan, found))
        print(shards_page(recipe, plan, tasks, args.ranks))


if __name__ == "__main__":
    cli(main)()
