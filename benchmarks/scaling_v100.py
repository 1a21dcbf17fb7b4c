"""Predictions for V100s from public figures: nothing here was measured by this project, and no GPU was.

    python -m benchmarks.scaling_v100      the tables of docs/scaling.md

Every figure is a range, cautious, expected and optimistic; its source is in docs/scaling.md, "Assumed".
Cautious predictions take every figure from its cautious end at once, optimistic ones from the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness import page, table
from benchmarks.scaling_model import Cluster, Link, Step, Work, efficiency, step_seconds
from ernie2.config import SIZES, load_recipe
from ernie2.curriculum import make_plan
from ernie2.plan import estimate, parameter_count

RECIPES = {"base": "tasks/recipes/ernie2_zh_base.yaml", "large": "tasks/recipes/ernie2_zh_large.yaml"}
RANKS = (8, 48, 64)
PER_NODE = 8
VOCAB_ROWS = 18_000  # the released Chinese models
PAGE_IMBALANCES = {
    8: 1.003,
    48: 1.016,
    64: 1.022,
}  # measured on 2.3 MB of Chinese news and web text; for docs/scaling.md
GOAL, MOST_BATCHES = 0.8, 64  # expected efficiency that "what it would take" speaks of, and how far it looks
# fp16 gradient, twice (norm and update), its scaling, float32 master weight and two moments read and written,
# weight written.
UPDATE_BYTES = 2 * 4 + 12 * 2 + 2

Range = tuple[float, float, float]  # cautious, expected, optimistic
PEAK: Range = (125, 125, 125)  # TFLOP/s, fp16
UTILISATION: Range = (15, 25, 33)  # % of the peak that training reaches
MEMORY: Range = (400, 550, 700)  # GB/s that the optimizer's update reaches
LAUNCH: Range = (100, 50, 20)  # us of an update for each tensor
NVLINK: Range = (60, 120, 150)  # GB/s, bus bandwidth of NCCL inside a node of 8
INSIDE_LATENCY: Range = (10, 6, 3)  # us of a hop inside a node
IB_LATENCY: Range = (20, 10, 5)  # us of a hop between nodes
TCP_LATENCY: Range = (100, 50, 30)
OVERLAP: Range = (50, 80, 100)  # % of a backward pass that hides communication
JITTER_INSIDE: Range = (9, 5, 0)  # % of compute lost to slow ranks inside a node
JITTER_BETWEEN: Range = (15, 8, 3)  # % over several nodes
NETWORKS: dict[str, tuple[Range, Range]] = {  # bus bandwidth between nodes, GB/s, and hop
    "4 x 100 Gb/s InfiniBand": ((20, 30, 40), IB_LATENCY),
    "100 Gb/s InfiniBand": ((8, 10, 12), IB_LATENCY),
    "100 Gb/s Ethernet, TCP": ((4, 5, 6), TCP_LATENCY),
    "25 Gb/s Ethernet, TCP": ((1.2, 1.9, 2.5), TCP_LATENCY),
}


@dataclass(frozen=True)
class Prediction:
    """A size of model on some V100s, by case: cautious, expected, optimistic."""

    size: str
    ranks: int
    network: str
    micro_tokens: int
    micro_batches: int  # of a rank
    steps: Sequence[Step]
    efficiencies: Sequence[float]

    @property
    def cells(self) -> list[str]:
        """The row of a table."""
        share = self.steps[1].exposed / self.steps[1].seconds
        return [
            self.size,
            str(self.ranks),
            self.network if self.ranks > PER_NODE else "one node",
            f"{self.micro_batches} x {self.micro_tokens:,}",
            _range([1e3 * step.seconds for step in self.steps]),
            _range([step.tokens_per_s / 1e6 for step in self.steps], 2),
            _range([100 * value for value in self.efficiencies]),
            f"{100 * share:.0f}",
        ]


def _range(values: Sequence[float], digits: int = 0) -> str:
    cautious, expected, optimistic = (f"{value:,.{digits}f}" for value in values)
    return f"{expected} ({cautious} to {optimistic})"


def cluster_of(size: str, ranks: int, network: str, case: int) -> Cluster:
    """V100s; case: 0 cautious, 1 expected, 2 optimistic."""
    bandwidth, latency = NETWORKS[network]
    jitter = JITTER_INSIDE if ranks <= PER_NODE else JITTER_BETWEEN
    tensors = 16 * SIZES[size][0] + 14  # a layer has 16; embeddings, pooler and masked-LM head about 14
    return Cluster(
        flops=PEAK[case] * 1e12 * UTILISATION[case] / 100,
        memory_bandwidth=MEMORY[case] * 1e9,
        per_node=PER_NODE,
        inside=Link(NVLINK[case] * 1e9, INSIDE_LATENCY[case] * 1e-6),
        between=Link(bandwidth[case] * 1e9, latency[case] * 1e-6),
        overlap=OVERLAP[case] / 100,
        jitter=jitter[case] / 100,
        update_seconds=tensors * LAUNCH[case] * 1e-6,
    )


def work_of(size: str, ranks: int, more: int) -> Work:
    """A step of `more` times the paper's batch, fp16, divided over the ranks."""
    recipe = load_recipe(RECIPES[size])
    # 8,192 tokens where there are enough micro-batches for all (48), else the step divided over the ranks (64
    # x 6,144).
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


def predict(size: str, ranks: int, network: str, imbalance: float = 1.0, more: int = 1) -> Prediction:
    """A step of the paper's batch on V100s, 8 a node, or of `more` times as many tokens.

    `imbalance` is measured, of so many ranks at the paper's batch; what exceeds 1 falls with the root of
    `more`, as sums of independent costs do."""
    work, imbalance = work_of(size, ranks, more), 1 + (imbalance - 1) / math.sqrt(more)
    clusters = [cluster_of(size, ranks, network, case) for case in range(3)]
    steps = [step_seconds(work, cluster, ranks, imbalance) for cluster in clusters]
    shares = [efficiency(work, cluster, ranks, imbalance) for cluster in clusters]
    return Prediction(size, ranks, network, work.micro_tokens, -(-work.micro_batches // ranks), steps, shares)


def predictions(imbalances: Mapping[int, float]) -> Iterator[Prediction]:
    """Base and large on RANKS, over each network where there is more than one node."""
    for size in RECIPES:
        for ranks in RANKS:
            for network in NETWORKS if ranks > PER_NODE else [next(iter(NETWORKS))]:
                yield predict(size, ranks, network, imbalances.get(ranks, 1.0))


def batch_for(size: str, ranks: int, network: str, wanted: float, imbalance: float = 1.0) -> int | None:
    """How many times the paper's batch it takes until the expected efficiency is `wanted`; None beyond
    MOST_BATCHES."""
    for more in range(1, MOST_BATCHES + 1):
        if predict(size, ranks, network, imbalance, more).efficiencies[1] >= wanted:
            return more
    return None


def v100_parts(imbalances: Mapping[int, float]) -> Iterable[tuple[str, list[str]]]:
    """(heading, table) of everything about V100s."""
    head = ["size", "V100s", "between nodes", "micro-batches a card", "ms a step", "M tokens/s"]
    head += ["efficiency %", "of it exchange %"]
    cases = "expected (cautious to optimistic); predicted, not measured"
    rows = [prediction.cells for prediction in predictions(imbalances)]
    yield f"V100s at 393,216 tokens a step, fp16: {cases}", table(head, rows)
    pairs = [(size, ranks) for size in RECIPES for ranks in RANKS if ranks > PER_NODE]
    rows = []
    for network in NETWORKS:
        times = [batch_for(*pair, network, GOAL, imbalances.get(pair[1], 1.0)) for pair in pairs]
        rows.append([network, *(str(one or f"over {MOST_BATCHES}") for one in times)])
    head = ["between nodes", *(f"{size} on {ranks}" for size, ranks in pairs)]
    yield f"How many times the paper's batch it takes until {100 * GOAL:.0f}% is expected", table(head, rows)


if __name__ == "__main__":
    print(page("V100s, predicted", [], v100_parts(PAGE_IMBALANCES)))
