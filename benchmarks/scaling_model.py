"""A model of data-parallel training: seconds of an optimizer step on n devices. Pure functions.

A step is the compute of the busiest rank's micro-batches, what ranks lose waiting for each other, the
optimizer's update, and that part of the gradients' all-reduce that the backward pass does not hide. The
formulas, what is assumed and how far the model can be trusted: docs/scaling.md. That of the all-reduce is of
nccl-tests, doc/PERFORMANCE.md; levels (inside a node, between nodes) are added as if they did not overlap."""

import math
from dataclasses import dataclass

BACKWARD_SHARE = 2 / 3  # of a micro-batch's compute: two matrix products for each of the forward pass


@dataclass(frozen=True)
class Link:
    """One level of the network."""

    bandwidth: float  # bytes/s: a device's inside a node, a node's between nodes (NCCL's bus bandwidth)
    latency: float  # seconds of a hop


@dataclass(frozen=True)
class Cluster:
    """Devices and what joins them."""

    flops: float  # operations a second that a device reaches in training (peak times utilisation)
    memory_bandwidth: float  # bytes a second that the optimizer's update moves
    per_node: int  # devices of a node
    inside: Link  # within a node
    between: Link  # between nodes
    overlap: float = 0.0  # share of the last backward pass that hides gradients; 0 where a CPU also sends
    jitter: float = 0.0  # share of its compute that a step of several ranks loses to whoever is slow
    update_seconds: float = 0.0  # of an update, beside what the memory bandwidth tells


@dataclass(frozen=True)
class Work:
    """One optimizer step."""

    flops_per_token: float  # forward and backward, of a padded token
    micro_tokens: int  # real tokens of a micro-batch
    micro_batches: int  # of the step, over all ranks
    gradient_bytes: float  # that travel from every rank
    last_bytes: float = 0.0  # of these, ready only after the backward pass: the tied word embedding's
    update_bytes: float = 0.0  # that the optimizer reads and writes on a rank
    bucket_bytes: float = float(25 << 20)  # of a flat piece in which gradients travel
    padding: float = 0.03  # padded tokens over real ones, less 1
    exchanges: int = 3  # small ones that nothing hides: counts, whether to stop, whether it is good


@dataclass(frozen=True)
class Step:
    """A predicted step, in seconds."""

    compute: float  # of the busiest rank
    waiting: float  # what ranks lose to imbalance and jitter
    update: float  # the optimizer's
    exposed: float  # that part of the all-reduce that the step waits for, small exchanges included
    tokens: int  # real tokens of the step

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.compute + self.waiting + self.update + self.exposed

    @property
    def tokens_per_s(self) -> float:
        """Real tokens a second over all ranks."""
        return self.tokens / self.seconds


def ring_seconds(size: float, ranks: int, link: Link) -> float:
    """Seconds of a ring all-reduce of `size` bytes over `ranks` that share one kind of link."""
    return 2 * (ranks - 1) / ranks * size / link.bandwidth + 2 * (ranks - 1) * link.latency


def all_reduce_seconds(size: float, ranks: int, cluster: Cluster) -> float:
    """Seconds to sum `size` bytes over `ranks`: within each node, then between nodes, where every device
    sends its share, so that a node's link carries `size` in all."""
    inside = min(ranks, cluster.per_node)
    nodes = math.ceil(ranks / cluster.per_node)
    return ring_seconds(size, inside, cluster.inside) + ring_seconds(size, nodes, cluster.between)


def step_seconds(work: Work, cluster: Cluster, ranks: int, imbalance: float = 1.0) -> Step:
    """Predicts a step; imbalance: cost of the costliest rank's micro-batches over the mean rank's.

    Raises ValueError where there are more ranks than micro-batches."""
    if not 1 <= ranks <= work.micro_batches:
        raise ValueError(f"{ranks} ranks cannot share {work.micro_batches} micro-batches")
    micro = work.micro_tokens * (1 + work.padding) * work.flops_per_token / cluster.flops
    compute, tokens = math.ceil(work.micro_batches / ranks) * micro, work.micro_tokens * work.micro_batches
    update = cluster.update_seconds + work.update_bytes / cluster.memory_bandwidth
    if ranks == 1:
        return Step(compute, 0.0, update, 0.0, tokens)
    last = _in_buckets(work.last_bytes, work, ranks, cluster)
    rest = _in_buckets(work.gradient_bytes - work.last_bytes, work, ranks, cluster)
    exposed = last + max(0.0, rest - cluster.overlap * BACKWARD_SHARE * micro)
    small = work.exchanges * all_reduce_seconds(0.0, ranks, cluster)
    waiting = compute * (imbalance * (1 + cluster.jitter) - 1)
    return Step(compute, waiting, update, exposed + small, tokens)


def efficiency(work: Work, cluster: Cluster, ranks: int, imbalance: float = 1.0) -> float:
    """Tokens a second of `ranks` devices over `ranks` times those of one that does the same step alone."""
    together = step_seconds(work, cluster, ranks, imbalance).tokens_per_s
    return together / (ranks * step_seconds(work, cluster, 1).tokens_per_s)


def fit_compute(small: tuple[int, float], large: tuple[int, float]) -> tuple[float, float]:
    """Seconds of a micro-batch and of the rest of a step (not below 0), from two measured steps of one rank:
    (micro-batches, seconds)."""
    slope = (large[1] - small[1]) / (large[0] - small[0])
    return slope, max(0.0, small[1] - small[0] * slope)


def _in_buckets(size: float, work: Work, ranks: int, cluster: Cluster) -> float:
    """Seconds of an all-reduce in pieces of bucket_bytes: the bandwidth of one, the latency of each."""
    pieces = math.ceil(size / work.bucket_bytes)
    return pieces * all_reduce_seconds(size / pieces, ranks, cluster) if pieces else 0.0
