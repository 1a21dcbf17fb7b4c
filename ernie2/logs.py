"""Console, progress bar, .jsonl files and VisualDL. Only rank 0 writes."""

import contextlib
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


def setup(rank: int) -> None:
    """Lines of rank 0 go to standard error, above a bar; others show warnings alone, with their number."""
    handler = logging.Handler()
    handler.emit = lambda record: tqdm.write(handler.format(record), file=sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False


class RunLog:
    """The files a run writes besides checkpoints, and its console; `active`: this is rank 0, which writes.

    kept: .jsonl file -> whether a line of an earlier start stays; default: of steps up to start_step."""

    def __init__(
        self,
        out_dir: Path,
        start_step: int,
        total_steps: int,
        visualdl: bool = False,
        active: bool = True,
        kept: dict[str, Callable[[dict[str, Any]], bool]] | None = None,
    ) -> None:
        self.active, self.total_steps, self.start_step = active, total_steps, start_step
        self.started, self._files, self._bar, self._writer = time.monotonic(), {}, None, None
        if not active:
            return
        kept = kept or dict.fromkeys(("train", "eval"), lambda line: 0 < line["step"] <= start_step)
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
        heads = ", ".join(f"{head} {loss:.3f}" for head, loss in record["losses"].items())
        text = f"stage {record['stage']}  {record['task']}  loss {record['loss']:.3f} ({heads})"
        where = f"step {record['step']}/{self.total_steps}"
        self.progress(record, where, f"{text}  lr {record['lr']:.2e}", record["step"])

    def progress(self, record: dict[str, Any], where: str, text: str, done: int) -> None:
        """Writes a record of train.jsonl, and its text with rate and time left on the console."""
        if not self.active:
            return
        self._write("train", record)
        self.step(done, text)
        if self._bar is None:
            seconds = (time.monotonic() - self.started) / max(done - self.start_step, 1)
            left = tqdm.format_interval(seconds * (self.total_steps - done))
            logger.info("%s  %s  %s tok/s  %s left", where, text, f"{record['tokens_per_s']:,.0f}", left)

    def eval(self, record: dict[str, Any]) -> None:
        """One line of eval.jsonl and of the console."""
        if self.active:
            self._write("eval", record)
            heads = []
            for head, loss in record["losses"].items():
                accuracy, chance = record["accuracy"][head], record["chance"][head]
                heads.append(f"{head} loss {loss:.3f} accuracy {accuracy:.3f} (chance {chance:.3f})")
            logger.info("  dev  %-20s %s", record["task"], "  ".join(heads))

    def close(self) -> None:
        """Closes the files and the bar."""
        for opened in (*self._files.values(), self._bar, self._writer):
            if opened is not None:
                opened.close()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        print(json.dumps(record, ensure_ascii=False), file=self._files[name], flush=True)
        for kind, tag in (("losses", "loss"), ("accuracy", "accuracy")) if self._writer else ():
            for head, value in record[kind].items():
                self._writer.add_scalar(f"{name}/{record['task']}/{head}_{tag}", value, record["step"])


def reopen(path: Path, kept: Callable[[dict[str, Any]], bool]) -> IO[str]:
    """Opens a .jsonl for appending, without lines that `kept` says no to and one that a crash cut short."""
    lines, old = [], path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in old.splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if line.endswith("\n") and kept(json.loads(line)):
                lines.append(line)
    write_text(path, "".join(lines))  # a kill in between must not cost the lines of weeks
    return path.open("a", encoding="utf-8")
