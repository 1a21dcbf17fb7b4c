"""What a token keeps until the backward pass has used it: peak memory of a CPU beside the estimate of
`ernie2.plan`.

Resident memory is read as the kernel's high-water mark (VmHWM), for two micro-batches of one model, each in a
process of its own; their difference over the difference of their tokens is what a token keeps. Weights,
gradients and the interpreter fall out of it. Freed memory is kept, as a GPU's allocator keeps it: glibc's
changing thresholds would make the peak a matter of the threads' timing. Linux."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from ernie2.batching import Batch
from ernie2.config import Recipe, load_recipe
from ernie2.malloc import keep_freed_memory
from ernie2.plan import PADDING, estimate_memory, with_settings
from ernie2.tasks import Task, select_tasks

ROOT = Path(__file__).resolve().parent.parent
VOCAB_ROWS = 8_000
TASK = "knowledge_masking"


def recipe_of(size: str, length: int, tokens: int, recompute: bool) -> Recipe:
    """One task, micro-batches of `tokens` tokens, samples of `length`."""
    overrides = {
        "model.size": size,
        "model.vocab_rows": VOCAB_ROWS,
        "data.max_seq_len": length,
        "batch.tokens": tokens,
        "batch.micro_tokens": tokens,
        "curriculum.stages": f"[[{TASK}]]",
        "runtime.recompute": str(recompute).lower(),
        "masking.level": "[basic]",
        "model.max_position_embeddings": 513,
        "model.hidden_act": "relu",
        "model.dropout": 0.1,
    }
    return load_recipe(
        ROOT / "tasks/recipes/demo.yaml", [f"{key}={value}" for key, value in overrides.items()]
    )


def peak_bytes(recipe: Recipe, library: bool) -> int:
    """Growth of resident memory in one forward and backward pass, at its peak; `library`: without ernie2.cpu,
    as on a GPU."""
    from ernie2 import cpu
    from ernie2.encoder import EncoderConfig
    from ernie2.model import ErnieForPretraining

    cpu.prepare(enabled=not (library or recipe.runtime.recompute))
    keep_freed_memory()
    task = select_tasks([TASK], "test")[0]
    model = ErnieForPretraining(
        EncoderConfig.from_recipe(recipe.model, VOCAB_ROWS, 0), [task], recipe.runtime.recompute
    )
    model.train()
    batch, before = random_batch(recipe, task), _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM starts anew
    model(batch)["masked_lm"].loss_sum.backward()
    return _status("VmHWM") - before


def random_batch(recipe: Recipe, task: Task) -> Batch:
    """A micro-batch of random tokens with data.mask_prob of them predicted; a token of each sample is
    padding."""
    rng, length, none = np.random.default_rng(0), recipe.data.max_seq_len, np.zeros(0, np.int64)
    shape = (recipe.batch.micro_tokens // length, length)
    count = shape[0] * length
    positions = np.sort(rng.choice(count, int(recipe.data.mask_prob * count), replace=False)).astype(np.int64)
    labels = rng.integers(0, VOCAB_ROWS, len(positions))
    return Batch(
        task,
        rng.integers(0, VOCAB_ROWS, shape),
        np.zeros(shape, np.int64),
        np.full(shape[0], length - 1),
        positions,
        labels,
        none,
        none,
        none,
    )


def bytes_per_token(
    size: str, length: int, few: int, many: int, recompute: bool, library: bool
) -> tuple[float, float]:
    """(measured, estimated) bytes that a padded token keeps, from micro-batches of `few` and `many`
    tokens."""
    measured, estimated = [], []
    for tokens in (few, many):
        command = [sys.executable, __file__, json.dumps([size, length, tokens, recompute]), str(int(library))]
        measured.append(int(subprocess.check_output(command, cwd=ROOT, text=True).split()[-1]))
        recipe = recipe_of(size, length, tokens, recompute)
        memory = estimate_memory(recipe, VOCAB_ROWS)
        activations = memory["activations"]
        if library:  # what a GPU keeps, in numbers of four bytes
            on_gpu = with_settings(recipe, "runtime", precision="fp16")
            activations = 2 * estimate_memory(on_gpu, VOCAB_ROWS)["activations"]
        estimated.append((activations + memory["logits"]) / PADDING)
    return (measured[1] - measured[0]) / (many - few), (estimated[1] - estimated[0]) / (many - few)


def _status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[1]) * 1024


if __name__ == "__main__":
    print(peak_bytes(recipe_of(*json.loads(sys.argv[1])), sys.argv[2] == "1"))
