"""How much memory a run takes on one device, before it starts, and what fits. No tensors here.

The states (weights, gradients, moments, master weights) are exact but for the heads of single tasks.
Activations are counted from what the layers keep for the backward pass. On a CPU the count is checked against
the kernel's own high-water mark (tests/activation_memory.py); fp16 on a GPU keeps the same tensors in half
the bytes, which has not been measured. Shape letters: H width, I feed-forward width, A heads, T tokens of the
longest sample, V vocabulary rows."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ernie2.config import SIZES, Recipe
from ernie2.disk import size

GIB = 2**30
V100_MEMORY = (32, 16)  # GiB; the two V100s there are
PADDING = 1.05  # padded tokens of a micro-batch over its real ones, rather too many
USABLE = 0.9  # the rest goes to holes between blocks of the allocator
RESERVED = {"gpu": 1.0, "cpu": 0.5}  # GiB: CUDA context and libraries; the interpreter with paddle
UP_TO_ATTENTION = 5
"""Arrays of width H that a layer keeps until its heads are mixed: input, query, key, value, the heads'
output.
"""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a step."""

    weights: int
    """Of the model, in the precision of the forward pass."""
    gradients: int
    """float32, and in half precision those of the micro-batch under way besides."""
    moments: int
    """Adam's two, float32."""
    master: int
    """float32 copies of half-precision weights."""
    exchange: int
    """Copies of the gradients in which paddle.DataParallel sends them; 0 for one rank."""
    activations: int
    """What a micro-batch's layers keep for the backward pass."""
    logits: int
    """Of the masked LM, at the predicted positions only, with their softmax and gradient."""

    @property
    def states(self) -> int:
        """What does not depend on the micro-batch."""
        return self.weights + self.gradients + self.moments + self.master + self.exchange

    @property
    def total(self) -> int:
        """All of it."""
        return self.states + self.activations + self.logits

    def to_json(self) -> dict[str, int]:
        """Every part and the total, in bytes."""
        return {**asdict(self), "total": self.total}


def parameter_count(recipe: Recipe, vocab_rows: int) -> int:
    """Parameters of the encoder and the masked-LM head."""
    layers, width, _, inner = SIZES[recipe.model.size]
    rows = vocab_rows + recipe.model.max_position_embeddings + recipe.model.sentence_type_vocab_size
    embeddings = (rows + recipe.model.task_type_vocab_size + 2) * width
    layer = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    return embeddings + layers * layer + 2 * width * (width + 1) + 2 * width + vocab_rows


def vocabulary_rows(recipe: Recipe) -> int:
    """Rows of the token embedding, as far as the recipe tells before its vocabulary exists."""
    if recipe.model.vocab_rows:
        return recipe.model.vocab_rows
    path = Path(recipe.model.vocab_file)
    if path.is_file():
        return sum(1 for line in path.read_text(encoding="utf-8").split("\n") if line)
    return recipe.data.vocab_size or 18_000


def device_kind(recipe: Recipe) -> str:
    """What the recipe is for, "gpu" or "cpu": half precision needs a GPU, fp32 is taken for a CPU."""
    return "cpu" if recipe.runtime.precision == "fp32" else "gpu"


def estimate_memory(recipe: Recipe, vocab_rows: int, ranks: int = 1) -> Memory:
    """Peak of a training step on one of `ranks` devices.

    Args:
        recipe: its batch.micro_tokens are real tokens; PADDING is added.
        vocab_rows: rows of the token embedding.
        ranks: devices that share a step."""
    count, half = parameter_count(recipe, vocab_rows), recipe.runtime.precision != "fp32"
    unit = 2 if half else 4
    tokens = recipe.batch.micro_tokens * PADDING
    # Logits, their softmax and their gradient in float32; in half precision the matrix product's own output
    # besides.
    per_logit = 14 if half else 12
    return Memory(
        weights=count * unit,
        gradients=count * (6 if half else 4),
        moments=count * 8,
        master=count * 4 if half else 0,
        exchange=count * unit if ranks > 1 else 0,
        activations=int(tokens * activation_bytes_per_token(recipe)),
        logits=int(tokens * recipe.data.mask_prob * vocab_rows * per_logit),
    )


def activation_bytes_per_token(recipe: Recipe) -> int:
    """Bytes that a padded token of a sample of data.max_seq_len keeps until the backward pass has used them.

    Counted, in each layer: copies of the input, query, key, value, the heads' output, LayerNorm inputs, and
    the inner activations before and after their function (H and I); attention scores, their softmax,
    dropout's mask and product (A * T for every token). The last layer keeps what comes after its attention
    for data.mask_prob of the tokens, for more where a task labels tokens. A CPU's own ways (ernie2.cpu) keep
    the softmax and its product with the mask alone, and no input of a sum. With runtime.recompute, which
    leaves all to the library, every layer keeps its input, and one layer at a time all of it, with the
    gradients that pass through it."""
    layers, width, heads, inner = SIZES[recipe.model.size]
    half, dropout = recipe.runtime.precision != "fp32", recipe.model.dropout > 0
    pairs = heads * recipe.data.max_seq_len
    own_ways = not half and not recipe.runtime.recompute
    wide = (11 if half else 8 if own_ways else 12) * width + (
        3 if recipe.model.hidden_act == "relu" else 4
    ) * inner
    with_dropout, without = (2, 1) if own_ways else (3 if half else 4, 2)
    narrow = with_dropout if dropout else without  # of half-precision numbers, or of float32
    layer, unit = wide + narrow * pairs, 2 if half else 4
    if recipe.runtime.recompute:
        return int(unit * (layer + 6 * width + 2 * inner + layers * width))
    unread = (1 - recipe.data.mask_prob) * (wide - UP_TO_ATTENTION * width)
    return int(unit * (layers * layer + layers * width - unread))


def usable_bytes(kind: str, device_bytes: float, processes: int = 1) -> int:
    """What a process may fill of a device's memory.

    Args:
        kind: "gpu" or "cpu".
        device_bytes: of the device.
        processes: that share it: all of a machine's on a CPU, one on a GPU."""
    return int(max(0.0, USABLE * device_bytes / processes - RESERVED[kind] * GIB))


def micro_token_choices(recipe: Recipe, ranks: int = 1) -> list[int]:
    """Values of batch.micro_tokens that leave batch.tokens as it is, the largest first.

    They divide the step evenly over the ranks (over as many micro-batches as there are ranks, at least, where
    batch.tokens is no multiple of the ranks) and hold a sample of data.max_seq_len."""
    tokens = recipe.batch.tokens
    share = ranks if tokens % ranks == 0 else 1
    most = tokens // ranks
    divisors = (share * rounds for rounds in range(1, tokens // (share * recipe.data.max_seq_len) + 1))
    return [tokens // divisor for divisor in divisors if tokens % divisor == 0 and tokens // divisor <= most]


def largest_micro_tokens(recipe: Recipe, vocab_rows: int, ranks: int, usable: int) -> int | None:
    """The largest batch.micro_tokens whose estimate is within `usable` bytes; None where even one sample is
    too much."""
    return next(
        (
            tokens
            for tokens in micro_token_choices(recipe, ranks)
            if estimate_memory(with_micro_tokens(recipe, tokens), vocab_rows, ranks).total <= usable
        ),
        None,
    )


def with_micro_tokens(recipe: Recipe, micro_tokens: int) -> Recipe:
    """The recipe with another batch.micro_tokens."""
    return replace(recipe, batch=replace(recipe.batch, micro_tokens=micro_tokens))


def with_runtime(recipe: Recipe, **settings: object) -> Recipe:
    """The recipe with other keys of runtime."""
    return replace(recipe, runtime=replace(recipe.runtime, **settings))


def remedy(recipe: Recipe, ranks: int = 1) -> str:
    """What to set where a run of this recipe on `ranks` devices found no memory: keys with values, for an
    error message."""
    rows = vocabulary_rows(recipe)
    now = estimate_memory(recipe, rows, ranks)
    smaller = [
        tokens for tokens in micro_token_choices(recipe, ranks) if tokens <= recipe.batch.micro_tokens // 2
    ]
    ways = []
    if smaller:
        less = estimate_memory(with_micro_tokens(recipe, smaller[0]), rows, ranks)
        ways.append(
            f"batch.micro_tokens={smaller[0]} instead of {recipe.batch.micro_tokens} (about "
            f"{size(now.total - less.total)} "
            f"less; the step stays {recipe.batch.tokens:,} tokens)"
        )
    if not recipe.runtime.recompute:
        less = estimate_memory(with_runtime(recipe, recompute=True), rows, ranks)
        ways.append(
            f"runtime.recompute=true (about {size(now.total - less.total)} less, about a third more time)"
        )
    if not ways:
        ways.append(
            f"a smaller data.max_seq_len (now {recipe.data.max_seq_len}), a smaller model.size or a larger "
            "device"
        )
    return (
        f"a step wants about {size(now.total)} on a device (estimate); set {', or '.join(ways)}; "
        f"python -m ernie2.plan RECIPE.yaml --ranks {ranks} says what fits"
    )


def host_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
