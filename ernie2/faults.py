"""Steps whose loss or gradient is not a number: named, kept in OUT_DIR/faults/, skipped as the recipe allows.
And steps that find no memory: the message says what to set.

A skipped step leaves weights, moments and everything else as they were. All ranks decide alike."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle

from ernie2 import distributed
from ernie2.batching import Batch
from ernie2.config import Recipe
from ernie2.logs import logger
from ernie2.optim import LossScaler
from ernie2.plan import remedy
from ernie2.strict import ConfigError
from ernie2.tasks import Task

DUMPS = 8  # bad steps whose batches are kept, for one start of a run
# What paddle's allocators say, on GPUs and on CPUs.
OUT_OF_MEMORY = re.compile(r"ResourceExhausted|out of memory|bad_alloc|cannot allocate memory", re.IGNORECASE)


@contextlib.contextmanager
def missing_memory_named(recipe: Recipe, ranks: int) -> Iterator[None]:
    """Turns an allocator's error into a ConfigError with the keys to set."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        raise ConfigError(f"rank {distributed.rank()} found no memory: {remedy(recipe, ranks)}") from error


class MicroStep(NamedTuple):
    """A micro-batch of this step: its number in the global batch; losses: head -> loss sum, on the device."""

    micro: int
    batch: Batch
    losses: dict[str, paddle.Tensor]

    def bad(self) -> list[str]:
        """Heads whose loss is not a number."""
        return [head for head, loss in self.losses.items() if not math.isfinite(float(loss))]


class BadSteps:
    """The recipe's policy for steps that are not numbers.

    `allowed` bad steps in a row are skipped, one more stops the run (runtime.max_bad_steps). With fp16 an
    overflow of the gradients is the loss scaler's business and no fault."""

    def __init__(self, out_dir: Path, tasks: list[Task], scaler: LossScaler, allowed: int) -> None:
        self.folder, self.scaler, self.allowed = out_dir / "faults", scaler, allowed
        self.keys = sorted((task.name, loss.head) for task in tasks for loss in task.losses)
        self.skipped = self.in_a_row = self.dumps = 0

    def accepts(self, step: int, lr: float, grad_norm: paddle.Tensor, done: list[MicroStep]) -> bool:
        """Whether a step (from 1) may move the weights; `done`: this rank's micro-batches.

        Reads one number from the device. Raises ConfigError where more bad steps in a row than allowed
        came, or the loss scale fell below its floor."""
        losses = [loss for micro in done for loss in micro.losses.values()]
        total = float(paddle.add_n([grad_norm.astype("float32"), *losses]))
        if not distributed.any_rank(not math.isfinite(total)):
            self.scaler.update(overflow=False)
            self.in_a_row = 0
            return True
        self.skipped += 1
        bad = [self.keys.index((micro.batch.task.name, head)) for micro in done for head in micro.bad()]
        bad = np.bincount(np.array(bad, np.int64), minlength=len(self.keys))
        counts = distributed.sum_over_ranks(bad).tolist()
        if self.scaler.enabled and not any(counts):
            overflow = "step %d: the gradients overflow at loss scale %.3g; step skipped"
            logger.info(overflow, step, self.scaler.scale)
            self.scaler.update(overflow=True)
            return False
        tasks = ", ".join(sorted({micro.batch.task.name for micro in done}))
        what = ", ".join(
            f"{head} loss of task {task} is not a number in {count} micro-batch{'es' * (count > 1)}"
            for (task, head), count in zip(self.keys, counts, strict=True)
            if count
        )
        what = what or f"the gradient of task {tasks} is not a number, though the losses are"
        text = f"step {step}: {what} (learning rate {lr:.3g}, gradient norm {float(grad_norm):.3g})"
        self._fault(step, text, [micro for micro in done if micro.bad() or not any(counts)])
        return False

    def state_dict(self) -> dict[str, int]:
        """What a resume needs."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restores what `state_dict` gave."""
        self.skipped, self.in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)

    def _fault(self, step: int, text: str, guilty: list[MicroStep]) -> None:
        self.in_a_row += 1
        if guilty and self.dumps < DUMPS:
            self.dumps += 1
            try:
                text += f"; batch kept in {dump(self.folder, step, guilty)}"
            except OSError as error:  # a full disk must not hide the fault itself
                text += f"; its batch could not be kept in {self.folder} ({error.strerror})"
        if self.in_a_row > self.allowed:
            raise ConfigError(
                f"{text}. {self.in_a_row} bad steps in a row, runtime.max_bad_steps allows {self.allowed}: "
                f"no checkpoint holds any of them. Look at the batch; lower lr.peak, lengthen "
                f"lr.warmup_steps, or raise runtime.max_bad_steps, and start the same command again"
            )
        allowed = f"{self.in_a_row} in a row (runtime.max_bad_steps allows {self.allowed})"
        logger.warning("%s; step skipped, %s", text, allowed)


def dump(folder: Path, step: int, done: list[MicroStep]) -> Path:
    """Writes micro-batches for looking at. Returns the .npz file. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:07d}.rank{distributed.rank()}.npz"
    arrays: dict[str, np.ndarray] = {"step": np.array(step)}
    for micro, batch, losses in done:
        fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        fields |= {f"loss.{head}": np.array(float(loss)) for head, loss in losses.items()}
        fields["task"] = batch.task.name
        arrays |= {f"{micro}.{name}": np.asarray(value) for name, value in fields.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path
