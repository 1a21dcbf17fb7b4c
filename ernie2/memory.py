"""How much memory a training step takes on one device, before it runs, and what fits. No tensors here.

Exact but for the heads of single tasks and for activations, which are counted from what the layers keep: on a
CPU checked against the kernel's high-water mark (tests/activation_memory.py), on a GPU not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ernie2.config import SIZES, Recipe
from ernie2.disk import size

GIB = 2**30
PADDING = 1.05  # padded tokens of a micro-batch over its real ones, rather too many
USABLE = 0.9  # the rest goes to holes between blocks of the allocator
RESERVED = {"gpu": 1.0, "cpu": 0.5}  # GiB: CUDA context and libraries; the interpreter with paddle


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

    Each holds a sample of data.max_seq_len and divides the step evenly over the ranks; where batch.tokens is
    no multiple of the ranks, there are as many micro-batches as ranks at least."""
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
    return (
        f"a step needs about {size(needed)} on a device (estimate); set {', or '.join(ways)}; "
        f"python -m ernie2.plan RECIPE.yaml --ranks {ranks} says what fits"
    )
