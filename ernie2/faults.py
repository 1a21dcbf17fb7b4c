"""Steps whose loss or gradient is not a number: named, kept for looking at, skipped as the recipe allows. And
steps that find no memory: the message says what to set.

A skipped step leaves weights, moments and everything else as they were. All ranks decide alike.

    <out_dir>/faults/step_0001234.rank0.npz     the arrays of the micro-batches, without pickle
                     step_0001234.rank0.json    what was wrong, and the text of a few samples"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2 import distributed
from ernie2.batching import Batch
from ernie2.config import Recipe
from ernie2.logs import logger
from ernie2.memory import remedy
from ernie2.optim import LossScaler
from ernie2.strict import ConfigError
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

DUMPS = 8  # bad steps whose batches are kept, for one start of a run
TEXTS = 3  # samples of a micro-batch whose text is written out
ARRAYS = (
    "token_ids",
    "sentence_ids",
    "lengths",
    "mlm_positions",
    "mlm_labels",
    "token_positions",
    "token_labels",
    "sentence_labels",
)


OUT_OF_MEMORY = re.compile(r"ResourceExhausted|out of memory|bad_alloc|cannot allocate memory", re.IGNORECASE)
"""What paddle's allocators say, on GPUs and on CPUs."""


@contextlib.contextmanager
def missing_memory_named(recipe: Recipe, ranks: int) -> Iterator[None]:
    """Around a run: where it finds no memory, the keys to set instead of an allocator's words. Raises
    ConfigError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        raise ConfigError(f"rank {distributed.rank()} found no memory: {remedy(recipe, ranks)}") from error


@dataclass
class MicroStep:
    """A micro-batch that went through the model in this step."""

    micro: int
    """Its number in the global batch."""
    batch: Batch
    losses: dict[str, paddle.Tensor]
    """Head -> loss sum, (), on the device."""


class BadSteps:
    """The recipe's policy for steps that are not numbers.

    Args:
        out_dir: the run's folder.
        tasks: tasks of the run.
        vocab: to write samples as text.
        scaler: loss scaling; with fp16 an overflow of the gradients is its business and no fault.
        allowed: bad steps in a row that are skipped; one more stops the run (runtime.max_bad_steps)."""

    def __init__(
        self, out_dir: Path, tasks: list[Task], vocab: Vocab, scaler: LossScaler, allowed: int
    ) -> None:
        self.folder, self.vocab, self.scaler, self.allowed = out_dir / "faults", vocab, scaler, allowed
        self.keys = sorted((task.name, loss.head) for task in tasks for loss in task.losses)
        self.skipped = self.in_a_row = self.dumps = 0

    def accepts(self, step: int, lr: float, grad_norm: paddle.Tensor, done: list[MicroStep]) -> bool:
        """Whether the step may move the weights. Reads one number from the device.

        Args:
            step: its number, from 1, as in train.jsonl.
            lr: its learning rate.
            grad_norm: norm of the gradients summed over all ranks, ().
            done: this rank's micro-batches.

        Raises:
            ConfigError: more bad steps in a row than allowed, or the loss scale fell below its floor."""
        losses = [loss for micro in done for loss in micro.losses.values()]
        total = float(paddle.add_n([grad_norm.astype("float32"), *losses]))
        if not distributed.any_rank(not math.isfinite(total)):
            self.scaler.update(overflow=False)
            self.in_a_row = 0
            return True
        self.skipped += 1
        bad = self._bad_losses(done)
        if self.scaler.enabled and not bad:
            logger.info(
                "step %d: the gradients overflow at loss scale %.3g; step skipped", step, self.scaler.scale
            )
            self.scaler.update(overflow=True)
            return False
        self._fault(step, lr, float(grad_norm), bad, done)
        return False

    def state_dict(self) -> dict[str, int]:
        """What a resume needs."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where `state_dict` was taken."""
        self.skipped, self.in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)

    def _bad_losses(self, done: list[MicroStep]) -> dict[tuple[str, str], int]:
        """(task, head) -> micro-batches, over all ranks, whose loss is not a number."""
        counts = np.zeros(len(self.keys), np.int64)
        for micro in done:
            for head, loss in micro.losses.items():
                counts[self.keys.index((micro.batch.task.name, head))] += not math.isfinite(float(loss))
        counts = distributed.sum_over_ranks(counts)
        return {key: int(count) for key, count in zip(self.keys, counts, strict=True) if count}

    def _fault(
        self, step: int, lr: float, grad_norm: float, bad: dict[tuple[str, str], int], done: list[MicroStep]
    ) -> None:
        """Reports, dumps and counts a bad step."""
        self.in_a_row += 1
        what = ", ".join(
            f"{head} loss of task {task} is not a number in {count} micro-batch{'es' if count > 1 else ''}"
            for (task, head), count in bad.items()
        )
        tasks = ", ".join(sorted({micro.batch.task.name for micro in done}))
        what = what or f"the gradient of task {tasks} is not a number, though the losses are"
        text = f"step {step}: {what} (learning rate {lr:.3g}, gradient norm {grad_norm:.3g})"
        guilty = [
            micro
            for micro in done
            if not bad or not all(math.isfinite(float(x)) for x in micro.losses.values())
        ]
        if guilty and self.dumps < DUMPS:
            self.dumps += 1
            try:
                path = dump(self.folder, step, text, lr, guilty, self.vocab)
                text += f"; batch kept in {path}"
            except OSError as error:  # a full disk must not hide the fault itself
                text += f"; its batch could not be kept in {self.folder} ({error.strerror})"
        if self.in_a_row > self.allowed:
            raise ConfigError(
                f"{text}. {self.in_a_row} bad steps in a row, runtime.max_bad_steps allows {self.allowed}: "
                "no "
                "checkpoint holds any of them. Look at the batch; lower lr.peak, lengthen lr.warmup_steps, "
                "or "
                f"raise runtime.max_bad_steps, and start the same command again"
            )
        logger.warning(
            "%s; step skipped, %d in a row (runtime.max_bad_steps allows %d)",
            text,
            self.in_a_row,
            self.allowed,
        )


def dump(folder: Path, step: int, what: str, lr: float, done: list[MicroStep], vocab: Vocab) -> Path:
    """Writes micro-batches for looking at. Returns the .npz file; a .json of the same name stands beside it.

    Raises:
        OSError: they cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"step_{step:07d}.rank{distributed.rank()}"
    arrays: dict[str, np.ndarray] = {"step": np.array(step)}
    notes = []
    for micro in done:
        arrays |= {f"{micro.micro}.{name}": getattr(micro.batch, name) for name in ARRAYS}
        arrays[f"{micro.micro}.task"] = np.array(micro.batch.task.name)
        notes.append(
            {
                "micro_batch": micro.micro,
                "task": micro.batch.task.name,
                "loss_sums": {head: str(float(loss)) for head, loss in micro.losses.items()},
                "samples": [
                    _sample(micro.batch, row, vocab) for row in range(min(TEXTS, len(micro.batch.lengths)))
                ],
            }
        )
    with stem.with_suffix(f"{stem.suffix}.npz").open("wb") as file:
        np.savez_compressed(file, **arrays)
    text = json.dumps(
        {"step": step, "what": what, "lr": lr, "micro_batches": notes}, ensure_ascii=False, indent=1
    )
    stem.with_suffix(f"{stem.suffix}.json").write_text(text + "\n", encoding="utf-8")
    return stem.with_suffix(f"{stem.suffix}.npz")


def _sample(batch: Batch, row: int, vocab: Vocab) -> dict[str, Any]:
    """A sample as a reader wants it: tokens as the model saw them, what was asked for, and its labels."""
    width, length = batch.token_ids.shape[1], int(batch.lengths[row])

    def here(positions: np.ndarray, values: np.ndarray) -> list[tuple[int, int]]:
        mine = positions // width == row
        return list(zip((positions[mine] - row * width).tolist(), values[mine].tolist(), strict=True))

    return {
        "tokens": " ".join(vocab.id_to_token[i] for i in batch.token_ids[row, :length]),
        "masked": {
            position: vocab.id_to_token[i] for position, i in here(batch.mlm_positions, batch.mlm_labels)
        },
        "token_labels": dict(here(batch.token_positions, batch.token_labels)),
        "sentence_label": int(batch.sentence_labels[row]) if len(batch.sentence_labels) else None,
    }
