"""Console, progress bar, .jsonl files and VisualDL. Only rank 0 writes."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from ernie2.disk import write_text

logger = logging.getLogger("ernie2")


class _BarHandler(logging.Handler):
    """Writes log lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def setup(rank: int) -> logging.Logger:
    """Lines of rank 0 go to standard error as they are; others show warnings alone, with their number."""
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
        start_step: steps done before this start.
        total_steps: steps of the whole run.
        visualdl: write VisualDL curves too.
        active: False on every rank but 0: nothing is written.
        kept: name of each .jsonl file -> whether a line of an earlier start stays; others are logged again.
            Default: train and eval of pre-training, up to start_step."""

    def __init__(
        self,
        out_dir: Path,
        start_step: int,
        total_steps: int,
        visualdl: bool = False,
        active: bool = True,
        kept: dict[str, Callable[[dict[str, Any]], bool]] | None = None,
    ) -> None:
        self.active, self.out_dir, self.total_steps = active, out_dir, total_steps
        self.start_step, self.started = start_step, time.monotonic()
        self._files: dict[str, IO[str]] = {}
        self._bar = self._writer = None
        if not active:
            return
        kept = kept or dict.fromkeys(
            ("train", "eval"), lambda line: bool(start_step) and line["step"] <= start_step
        )
        self._files = {name: reopen(out_dir / f"{name}.jsonl", stays) for name, stays in kept.items()}
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=start_step, unit="step", dynamic_ncols=True)
        if visualdl:
            from visualdl import LogWriter

            self._writer = LogWriter(str(out_dir / "visualdl"))

    def step(self, done: int, text: str = "") -> None:
        """Moves the progress bar to `done` steps."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if text:
                self._bar.set_postfix_str(text, refresh=False)

    def train(self, record: dict[str, Any]) -> None:
        """One line of train.jsonl and, where there is no progress bar, of the console."""
        where = f"step {record['step']}/{self.total_steps}"
        self.progress(record, where, describe(record), record["step"])

    def progress(self, record: dict[str, Any], where: str, text: str, done: int) -> None:
        """Writes a record of train.jsonl; on the console `where`, `text`, rate and time left stand for it."""
        if not self.active:
            return
        self._write("train", record)
        if self._bar is None:
            rate = f"{record['tokens_per_s']:,.0f}"
            left = time_left(self.started, done - self.start_step, self.total_steps - done)
            logger.info("%s  %s  %s tok/s  %s left", where, text, rate, left)

    def eval(self, record: dict[str, Any]) -> None:
        """One line of eval.jsonl and of the console."""
        if not self.active:
            return
        self._write("eval", record)
        heads = "  ".join(
            f"{head} loss {record['losses'][head]:.3f} accuracy {record['accuracy'][head]:.3f} "
            f"(chance {record['chance'][head]:.3f})"
            for head in record["losses"]
        )
        logger.info("  dev  %-20s %s", record["task"], heads)

    def close(self) -> None:
        """Closes the files and the bar."""
        for opened in (*self._files.values(), self._bar, self._writer):
            if opened is not None:
                opened.close()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(record, ensure_ascii=False) + "\n")
        self._files[name].flush()
        for kind in ("losses", "accuracy") if self._writer is not None else ():
            for head, value in record[kind].items():
                tag = f"{name}/{record['task']}/{head}_{'loss' if kind == 'losses' else kind}"
                self._writer.add_scalar(tag, value, record["step"])


def time_left(started: float, done: int, left: int) -> str:
    """h:mm:ss for `left` steps at the mean rate of the `done` steps since `started` (time.monotonic())."""
    minutes, seconds = divmod(int((time.monotonic() - started) / max(done, 1) * left), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def describe(record: dict[str, Any]) -> str:
    """A train record in a few words."""
    heads = ", ".join(f"{head} {loss:.3f}" for head, loss in record["losses"].items())
    where = f"stage {record['stage']}  {record['task']}"
    return f"{where}  loss {record['loss']:.3f} ({heads})  lr {record['lr']:.2e}"


def reopen(path: Path, kept: Callable[[dict[str, Any]], bool]) -> IO[str]:
    """Opens a .jsonl for appending, without lines that `kept` says no to and one that a crash cut short."""
    lines = []
    old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in old.splitlines(keepends=True):
        try:
            if line.endswith("\n") and kept(json.loads(line)):
                lines.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(lines))  # a kill in between must not cost the lines of weeks
    return path.open("a", encoding="utf-8")
