"""Predictions for V100s from public figures: nothing here was measured by this project, and no GPU was.

    python -m benchmarks.scaling_v100      the tables of docs/scaling.md

Cautious predictions take every figure from its cautious end at once, optimistic ones from the other."""

import math
from collections.abc import Iterator, Sequence

from benchmarks.harness import table
from benchmarks.scaling_model import Cluster, Link, Step, Work, efficiency, step_seconds
from ernie2.config import SIZES, load_recipe
from ernie2.curriculum import make_plan
from ernie2.plan import estimate, parameter_count

RECIPES = {"base": "tasks/recipes/ernie2_zh_base.yaml", "large": "tasks/recipes/ernie2_zh_large.yaml"}
PER_NODE = 8
VOCAB_ROWS = 18_000  # the released Chinese models
# Ranks -> cost of the costliest over the mean, measured on Chinese text at the paper's batch (ernie2.plan).
IMBALANCES = {8: 1.003, 48: 1.016, 64: 1.022}
GOAL, MOST_BATCHES = 0.8, 64  # expected efficiency that `batch_for` looks for, and how far
# fp16 gradient, twice (norm and update), its scaling, float32 master weight and two moments read and written,
# weight written.
UPDATE_BYTES = 2 * 4 + 12 * 2 + 2
ASSUMED = {  # cautious, expected, optimistic; the sources: docs/scaling.md, "Assumed"
    "peak": (125, 125, 125),  # TFLOP/s, fp16
    "utilisation": (15, 25, 33),  # % of the peak that training reaches
    "memory": (400, 550, 700),  # GB/s that the optimizer's update reaches
    "launch": (100, 50, 20),  # us of an update for each tensor
    "nvlink": (60, 120, 150),  # GB/s, bus bandwidth of NCCL inside a node of 8
    "inside hop": (10, 6, 3),  # us inside a node
    "4 x 100 Gb/s InfiniBand": (20, 30, 40),  # GB/s, bus bandwidth between nodes
    "100 Gb/s InfiniBand": (8, 10, 12),
    "100 Gb/s Ethernet, TCP": (4, 5, 6),
    "25 Gb/s Ethernet, TCP": (1.2, 1.9, 2.5),
    "InfiniBand hop": (20, 10, 5),  # us between nodes
    "TCP hop": (100, 50, 30),
    "overlap": (50, 80, 100),  # % of a backward pass that hides communication
    "jitter inside": (9, 5, 0),  # % of compute lost to slow ranks inside a node
    "jitter between": (15, 8, 3),  # % over several nodes
}
NETWORKS = [name for name in ASSUMED if "Gb/s" in name]


def _range(values: Sequence[float], digits: int = 0) -> str:
    cautious, expected, optimistic = (f"{value:,.{digits}f}" for value in values)
    return f"{expected} ({cautious} to {optimistic})"


def cluster_of(size: str, ranks: int, network: str, case: int) -> Cluster:
    """V100s; case: 0 cautious, 1 expected, 2 optimistic."""
    figure = {name: values[case] for name, values in ASSUMED.items()}
    hop = figure["TCP hop" if "TCP" in network else "InfiniBand hop"]
    tensors = 16 * SIZES[size][0] + 14  # a layer has 16; embeddings, pooler and masked-LM head about 14
    return Cluster(
        flops=figure["peak"] * 1e12 * figure["utilisation"] / 100,
        memory_bandwidth=figure["memory"] * 1e9,
        per_node=PER_NODE,
        inside=Link(figure["nvlink"] * 1e9, figure["inside hop"] * 1e-6),
        between=Link(figure[network] * 1e9, hop * 1e-6),
        overlap=figure["overlap"] / 100,
        jitter=figure["jitter inside" if ranks <= PER_NODE else "jitter between"] / 100,
        update_seconds=tensors * figure["launch"] * 1e-6,
    )


def work_of(size: str, ranks: int, more: int) -> Work:
    """A step of `more` times the paper's batch, fp16, divided over the ranks."""
    recipe = load_recipe(RECIPES[size])
    # 8,192 tokens where there are enough micro-batches for all (48), else the step over the ranks.
    micro = min(recipe.batch.micro_tokens, recipe.batch.tokens // ranks)
    parameters = parameter_count(recipe, VOCAB_ROWS)
    return Work(
        flops_per_token=estimate(recipe, make_plan(recipe.curriculum), VOCAB_ROWS, None)["flops_per_token"],
        micro_tokens=micro,
        micro_batches=recipe.batch.tokens * more // micro,
        gradient_bytes=2.0 * parameters,
        last_bytes=2.0 * VOCAB_ROWS * SIZES[size][1],
        update_bytes=float(UPDATE_BYTES * parameters),
    )


def predict(size: str, ranks: int, network: str, more: int = 1) -> tuple[Work, list[Step], list[float]]:
    """A step of `more` times the paper's batch on V100s: work, and by case step and efficiency. What of the
    imbalance exceeds 1 falls with the root of `more`, as sums of independent costs do."""
    work, imbalance = work_of(size, ranks, more), 1 + (IMBALANCES[ranks] - 1) / math.sqrt(more)
    clusters = [cluster_of(size, ranks, network, case) for case in range(3)]
    steps = [step_seconds(work, cluster, ranks, imbalance) for cluster in clusters]
    return work, steps, [efficiency(work, cluster, ranks, imbalance) for cluster in clusters]


def cases() -> Iterator[tuple[str, int, str]]:
    """(size, V100s, network): base and large, over each network where there is more than one node."""
    for size in RECIPES:
        for ranks in IMBALANCES:
            for network in NETWORKS if ranks > PER_NODE else NETWORKS[:1]:
                yield size, ranks, network


def cells(size: str, ranks: int, network: str) -> list[str]:
    """A prediction as the row of a table."""
    work, steps, efficiencies = predict(size, ranks, network)
    return [
        *(size, str(ranks), network if ranks > PER_NODE else "one node"),
        f"{-(-work.micro_batches // ranks)} x {work.micro_tokens:,}",
        _range([1e3 * step.seconds for step in steps]),
        _range([step.tokens_per_s / 1e6 for step in steps], 2),
        _range([100 * value for value in efficiencies]),
        f"{100 * steps[1].exposed / steps[1].seconds:.0f}",
    ]


def batch_for(size: str, ranks: int, network: str, wanted: float) -> int | None:
    """How many times the paper's batch it takes until the expected efficiency is `wanted`; None beyond
    MOST_BATCHES."""
    batches = range(1, MOST_BATCHES + 1)
    return next((n for n in batches if predict(size, ranks, network, n)[2][1] >= wanted), None)


def v100_parts() -> Iterator[tuple[str, list[str]]]:
    """(heading, table) of everything about V100s."""
    head = ["size", "V100s", "between nodes", "micro-batches a card", "ms a step", "M tokens/s"]
    head += ["efficiency %", "of it exchange %"]
    how = "expected (cautious to optimistic); predicted, not measured"
    rows = [cells(*case) for case in cases()]
    yield f"V100s at 393,216 tokens a step, fp16: {how}", table(head, rows)
    pairs = [(size, ranks) for size in RECIPES for ranks in IMBALANCES if ranks > PER_NODE]
    rows = []
    for network in NETWORKS:
        times = [batch_for(*pair, network, GOAL) for pair in pairs]
        rows.append([network, *(str(one or f"over {MOST_BATCHES}") for one in times)])
    head = ["between nodes", *(f"{size} on {ranks}" for size, ranks in pairs)]
    yield f"How many times the paper's batch it takes until {100 * GOAL:.0f}% is expected", table(head, rows)


if __name__ == "__main__":
    for heading, lines in v100_parts():
        print("\n".join((f"## {heading}", "", *lines, "")))
