"""What a fine-tuning run writes while it trains: train.jsonl, metrics.jsonl, console lines or a progress bar."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ernie2.logs import logger, reopen, time_left


class FinetuneLog:
    """Log of one run of a repeat.

    Args:
        out_dir: folder of the .jsonl files.
        run, step: where this start goes on: what an earlier one logged later than that is dropped.
        done, total_steps: optimizer steps of all runs together, those done before this start and all of them.
        sums: `sums` of the log at that place.
        active: False on every rank but 0: nothing is written.
    """

    def __init__(
        self,
        out_dir: Path,
        run: int,
        step: int,
        done: int,
        total_steps: int,
        sums: dict[str, float] | None = None,
        active: bool = True,
    ) -> None:
        self.active, self.total_steps, self.done, self.done_before = active, total_steps, done, done
        self.started = time.monotonic()
        self.sums = sums or {"loss": 0.0, "targets": 0.0, "tokens": 0, "padded_tokens": 0}
        """Of the steps since the last line of train.jsonl."""
        self._since = time.monotonic()
        if active:
            at = (run, step)
            self._files = {
                "train": reopen(out_dir / "train.jsonl", lambda line: (line["run"], line["step"]) <= at),
                # The evaluation of the step that was saved is made again.
                "metrics": reopen(out_dir / "metrics.jsonl", lambda line: (line["run"], line["step"]) < at),
            }
            self._bar = None
            if sys.stderr.isatty():
                self._bar = tqdm(total=total_steps, initial=done, unit="step", dynamic_ncols=True)

    def step(self, loss_sum: float, targets: int, tokens: int, padded_tokens: int) -> None:
        """Counts one optimizer step: its summed loss, how many targets it has, its real and computed tokens."""
        self.done += 1
        for key, value in zip(self.sums, (loss_sum, targets, tokens, padded_tokens)):
            self.sums[key] += value
        if self.active and self._bar is not None:
            self._bar.update(1)

    def train(self, record: dict[str, Any]) -> None:
        """Writes a line of train.jsonl: `record` (run, step, lr, ...) with means since the last one."""
        sums, now = self.sums, time.monotonic()
        rate = sums["tokens"] / max(now - self._since, 1e-9)
        record = {
            **record,
            "loss": sums["loss"] / max(sums["targets"], 1),
            "tokens": sums["tokens"],
            "padded_tokens": sums["padded_tokens"],
            "tokens_per_s": round(rate, 1),
        }
        self.sums, self._since = dict.fromkeys(sums, 0), now
        if not self.active:
            return
        self._write("train", record)
        text = f"loss {record['loss']:.4f}  lr {record['lr']:.2e}  {rate:,.0f} tok/s"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
        else:
            logger.info(
                "run %d  step %d/%d  %s  %s left",
                record["run"],
                record["step"],
                record["steps"],
                text,
                time_left(self.started, self.done - self.done_before, self.total_steps - self.done),
            )

    def metrics(self, record: dict[str, Any]) -> None:
        """Writes a line of metrics.jsonl and of the console."""
        self._since = time.monotonic()  # an evaluation is not training time
        if not self.active:
            return
        self._write("metrics", record)
        splits = "  ".join(f"{name} {describe(values)}" for name, values in record["metrics"].items())
        logger.info(
            "run %d  step %d  %s%s",
            record["run"],
            record["step"],
            splits,
            "  (best)" if record.get("best") else "",
        )

    def close(self) -> None:
        """Closes files and bar."""
        if not self.active:
            return
        for file in self._files.values():
            file.close()
        if self._bar is not None:
            self._bar.close()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(record, ensure_ascii=False) + "\n")
        self._files[name].flush()


def describe(values: dict[str, float]) -> str:
    """Metrics in a few words: accuracy 90.90, f1 88.10."""
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())
