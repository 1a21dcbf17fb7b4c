"""Console, progress bar, train.jsonl, eval.jsonl and VisualDL. Only rank 0 writes."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

logger = logging.getLogger("ernie2")


class _BarHandler(logging.Handler):
    """Writes log lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def setup(rank: int) -> logging.Logger:
    """Lines of rank 0 go to standard error as they are; other ranks show warnings alone, with their number."""
    handler = _BarHandler()
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
    return logger


class RunLog:
    """The files a run writes besides checkpoints.

    Args:
        out_dir: the run's folder.
        start_step: steps done before this start; lines of later steps, left by a crash, are dropped.
        total_steps: steps of the whole run.
        visualdl: write VisualDL curves too.
        active: False on every rank but 0: nothing is written.
    """

    def __init__(self, out_dir: Path, start_step: int, total_steps: int, visualdl: bool = False, active: bool = True) -> None:
        self.active, self.out_dir, self.total_steps = active, out_dir, total_steps
        self.start_step, self.started = start_step, time.monotonic()
        if not active:
            return
        self._files = {name: reopen(out_dir / f"{name}.jsonl", lambda line: bool(start_step) and line["step"] <= start_step)
                       for name in ("train", "eval")}
        self._bar = tqdm(total=total_steps, initial=start_step, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None
        self._writer = None
        if visualdl:
            from visualdl import LogWriter

            self._writer = LogWriter(str(out_dir / "visualdl"))

    def step(self, done: int, text: str) -> None:
        """Moves the progress bar to `done` steps."""
        if self.active and self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.set_postfix_str(text, refresh=False)

    def train(self, record: dict[str, Any]) -> None:
        """One line of train.jsonl and, where there is no progress bar, of the console."""
        if not self.active:
            return
        self._write("train", record)
        if self._bar is None:
            logger.info("step %d/%d  %s  %s tok/s  %s left", record["step"], self.total_steps, describe(record),
                        f"{record['tokens_per_s']:,.0f}",
                        time_left(self.started, record["step"] - self.start_step, self.total_steps - record["step"]))

    def eval(self, record: dict[str, Any]) -> None:
        """One line of eval.jsonl and of the console."""
        if not self.active:
            return
        self._write("eval", record)
        heads = "  ".join(f"{head} loss {record['losses'][head]:.3f} accuracy {record['accuracy'][head]:.3f} "
                          f"(chance {record['chance'][head]:.3f})" for head in record["losses"])
        logger.info("  dev  %-20s %s", record["task"], heads)

    def close(self) -> None:
        """Closes the files and the bar."""
        if not self.active:
            return
        for file in self._files.values():
            file.close()
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(record, ensure_ascii=False) + "\n")
        self._files[name].flush()
        if self._writer is not None:
            scalars = {f"{name}/{record['task']}/{head}_loss": value for head, value in record["losses"].items()}
            scalars |= {f"{name}/{record['task']}/{head}_accuracy": value for head, value in record["accuracy"].items()}
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, record["step"])


def time_left(started: float, done: int, left: int) -> str:
    """h:mm:ss for `left` steps at the mean rate of the `done` steps since `started` (time.monotonic())."""
    minutes, seconds = divmod(int((time.monotonic() - started) / max(done, 1) * left), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def describe(record: dict[str, Any]) -> str:
    """A train record in a few words."""
    heads = ", ".join(f"{head} {loss:.3f}" for head, loss in record["losses"].items())
    return f"stage {record['stage']}  {record['task']}  loss {record['loss']:.3f} ({heads})  lr {record['lr']:.2e}"


def reopen(path: Path, kept: Callable[[dict[str, Any]], bool]) -> IO[str]:
    """Opens a .jsonl for appending, without the lines that `kept` says no to and one that a crash cut short."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else ():
        try:
            if line.endswith("\n") and kept(json.loads(line)):
                lines.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    whole = path.with_name(f"{path.name}.tmp")  # a kill in between must not cost the lines of weeks
    whole.write_text("".join(lines), encoding="utf-8")
    whole.replace(path)
    return path.open("a", encoding="utf-8")
