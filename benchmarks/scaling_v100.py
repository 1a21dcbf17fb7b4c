"""Predictions for V100s from public figures: nothing here was measured by this project, and no GPU was.

Every figure is a range, cautious, expected and optimistic, with its source. Cautious predictions take every figure from its
cautious end at once, optimistic ones from the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ernie2.config import SIZES, Recipe, load_recipe
from ernie2.curriculum import make_plan
from ernie2.memory import parameter_count
from ernie2.plan import estimate
from ernie2.scaling import Cluster, Link, Step, Work, efficiency, step_seconds

CASES = ("cautious", "expected", "optimistic")
RECIPES = {"base": "tasks/recipes/ernie2_zh_base.yaml", "large": "tasks/recipes/ernie2_zh_large.yaml"}
RANKS = (8, 48, 64)
VOCAB_ROWS = 18_000  # the released Chinese models
PAGE_IMBALANCES = {8: 1.02, 48: 1.13, 64: 1.16}  # measured on 2.3 MB of Chinese news and web text; for docs/scaling.md
PER_NODE = 8


@dataclass(frozen=True)
class Assumed:
    """A figure that was not measured here."""

    what: str
    unit: str
    values: tuple[float, float, float]
    """Cautious, expected, optimistic."""
    source: str


_NVIDIA_BERT = ("NVIDIA DeepLearningExamples, BERT for PyTorch and TensorFlow, tables of training performance on V100 "
                "(https://github.com/NVIDIA/DeepLearningExamples)")
PEAK = Assumed("fp16 peak of a V100", "TFLOP/s", (125, 125, 125), "NVIDIA, Programming Tensor Cores in CUDA 9 "
               "(https://developer.nvidia.com/programming-tensor-cores-cuda-9-0)")
UTILISATION = Assumed("share of the peak that training reaches", "%", (15, 25, 33),
                      f"{_NVIDIA_BERT}: BERT large, fp16, 512 tokens: 30 to 35 sequences/s on one V100, which is 25 to 29% by the "
                      "plan's operations per token, at 128 tokens 33 to 36%; the cautious end is ours, for code never tuned on one")
MEMORY = Assumed("memory bandwidth that the optimizer's update reaches, of 900 GB/s", "GB/s", (400, 550, 700),
                 "900 GB/s: NVIDIA's white paper on the V100 (notes: "
                 "https://gist.github.com/wolfram77/a42aeb021a2fec7b7e85ceb71b398772); the share is ours")
LAUNCH = Assumed("time of an update for each tensor, whatever its size", "us", (100, 50, 20), "ours")
NVLINK = Assumed("bus bandwidth of NCCL inside a node of 8", "GB/s", (60, 120, 150),
                 "6 links of 25 GB/s each way, about 20 effective (https://github.com/NVIDIA/nccl-tests/issues/149, a maintainer)")
_EFA = ("small all-reduces over 2, 4 and 8 nodes of 8 V100 take 163, 319 and 631 us over AWS's network adapter "
        "(https://gist.github.com/jacobkahn/a92f4425abf831ac0799fabe9079263d, 1fb3977e99056b7935a6c63dda1e145f, "
        "3150a1a38abba40f58d8263d9c55969f)")
INSIDE_LATENCY = Assumed("hop inside a node", "us", (10, 6, 3), f"{_EFA}: 85 us are left for the 14 hops inside")
IB_LATENCY = Assumed("hop between nodes, InfiniBand", "us", (20, 10, 5), "ours: below the next line")
TCP_LATENCY = Assumed("hop between nodes, Ethernet", "us", (100, 50, 30), f"{_EFA}: 39 us for each of 2 (nodes - 1) hops; TCP is "
                      "no faster")
OVERLAP = Assumed("share of a backward pass that hides communication", "%", (50, 80, 100), "ours")
JITTER_INSIDE = Assumed("compute lost to slow ranks inside a node", "%", (9, 5, 0),
                        f"{_NVIDIA_BERT}: 8 V100 reach 0.91 to 1.0 of eight times one, with micro-batches of one length and "
                        "gradients exchanged once in hundreds of them")
JITTER_BETWEEN = Assumed("the same over several nodes", "%", (15, 8, 3),
                         f"{_NVIDIA_BERT}: 4 to 64 nodes reach 0.88 to 0.99 of as many times one node, likewise")
NETWORKS = {
    "4 x 100 Gb/s InfiniBand": (Assumed("bus bandwidth between nodes, 4 x 100 Gb/s InfiniBand", "GB/s", (20, 30, 40),
                                        "40 GB/s: NVIDIA's figure for DGX-1 as quoted in "
                                        "https://github.com/NVIDIA/nccl-tests/issues/29 (where somebody's own nodes reached 6)"),
                                IB_LATENCY),
    "100 Gb/s InfiniBand": (Assumed("the same, one 100 Gb/s port", "GB/s", (8, 10, 12), "line rate 12.5; the share is ours"),
                            IB_LATENCY),
    "100 Gb/s Ethernet, TCP": (Assumed("the same, 100 Gb/s TCP", "GB/s", (4, 5, 6), "four nodes of 8 V100: "
                                       "https://github.com/NVIDIA/nccl/issues/450"), TCP_LATENCY),
    "25 Gb/s Ethernet, TCP": (Assumed("the same, 25 Gb/s TCP", "GB/s", (1.2, 1.9, 2.5), "line rate 3.1; about 60% of it over "
                                      "TCP: https://github.com/NVIDIA/nccl/issues/209"), TCP_LATENCY),
}
# fp16 gradient, twice (norm and update), its scaling, float32 master weight and two moments read and written, weight written.
UPDATE_BYTES = 2 * 4 + 12 * 2 + 2


@dataclass(frozen=True)
class Row:
    """One prediction, by case."""

    size: str
    ranks: int
    network: str
    """Empty within one node."""
    micro_tokens: int
    micro_batches: int
    """Of a rank."""
    steps: tuple[Step, Step, Step]
    efficiencies: tuple[float, float, float]


def assumptions() -> list[Assumed]:
    """All of them."""
    return [PEAK, UTILISATION, MEMORY, LAUNCH, NVLINK, INSIDE_LATENCY, *(bandwidth for bandwidth, _ in NETWORKS.values()),
            IB_LATENCY, TCP_LATENCY, OVERLAP, JITTER_INSIDE, JITTER_BETWEEN]


def cluster_of(size: str, ranks: int, network: str, case: int) -> Cluster:
    """V100s under one of CASES."""
    bandwidth, latency = NETWORKS[network]
    jitter = JITTER_INSIDE if ranks <= PER_NODE else JITTER_BETWEEN
    tensors = 16 * SIZES[size][0] + 14  # a layer has 16, embeddings, pooler and masked-LM head about 14
    return Cluster(flops=PEAK.values[case] * 1e12 * UTILISATION.values[case] / 100, memory_bandwidth=MEMORY.values[case] * 1e9,
                   per_node=PER_NODE, inside=Link(NVLINK.values[case] * 1e9, INSIDE_LATENCY.values[case] * 1e-6),
                   between=Link(bandwidth.values[case] * 1e9, latency.values[case] * 1e-6),
                   overlap=OVERLAP.values[case] / 100, jitter=jitter.values[case] / 100,
                   update_seconds=tensors * LAUNCH.values[case] * 1e-6)


def work_of(recipe: Recipe) -> Work:
    """A step of a recipe, fp16."""
    parameters = parameter_count(recipe, VOCAB_ROWS)
    figures = estimate(recipe, make_plan(recipe.curriculum), VOCAB_ROWS, None)
    return Work(flops_per_token=figures["flops_per_token"], micro_tokens=recipe.batch.micro_tokens,
                micro_batches=recipe.batch.micro_batches, gradient_bytes=2.0 * parameters,
                last_bytes=2.0 * VOCAB_ROWS * SIZES[recipe.model.size][1], update_bytes=float(UPDATE_BYTES * parameters))


def predict(size: str, ranks: int, network: str, imbalance: float = 1.0, more: int = 1) -> Row:
    """A step of the paper's batch, or of `more` times as many tokens.

    Args:
        size: "base" or "large".
        ranks: V100s, 8 a node.
        network: one of NETWORKS.
        imbalance: measured, of so many ranks at the paper's batch; what exceeds 1 falls with the root of `more`, as sums of
            independent costs do.
        more: micro-batches of a rank, as a multiple of the paper's batch.
    """
    recipe, imbalance = load_recipe(RECIPES[size]), 1 + (imbalance - 1) / math.sqrt(more)
    # 8,192 tokens where there are enough micro-batches for all (48), else the step divided over the ranks (64 x 6,144).
    share = min(recipe.batch.micro_tokens, recipe.batch.tokens // ranks)
    recipe = load_recipe(RECIPES[size], [f"batch.tokens={recipe.batch.tokens * more}", f"batch.micro_tokens={share}"])
    work, steps, shares = work_of(recipe), [], []
    for case in range(len(CASES)):
        cluster = cluster_of(size, ranks, network, case)
        steps.append(step_seconds(work, cluster, ranks, imbalance))
        shares.append(efficiency(work, cluster, ranks, imbalance))
    return Row(size, ranks, network if ranks > PER_NODE else "", share, -(-work.micro_batches // ranks), tuple(steps),
               tuple(shares))


def predictions(imbalances: dict[int, float]) -> Iterator[Row]:
    """Base and large on RANKS, over each network where there is more than one node."""
    for size in RECIPES:
        for ranks in RANKS:
            for network in NETWORKS if ranks > PER_NODE else [next(iter(NETWORKS))]:
                yield predict(size, ranks, network, imbalances.get(ranks, 1.0))


def batch_for(size: str, ranks: int, network: str, wanted: float, imbalance: float = 1.0, limit: int = 64) -> int | None:
    """How many times the paper's batch it takes until the expected efficiency is `wanted`; None beyond `limit`."""
    return next((more for more in range(1, limit + 1)
                 if predict(size, ranks, network, imbalance, more).efficiencies[1] >= wanted), None)
