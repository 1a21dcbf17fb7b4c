"""`python -m ernie2.doctor --gpu`: what a GPU does with this program, tried and timed, on one page to send.

Every trial is the program itself in a process of its own, so that one that dies spoils no other: attention
kernels, single beside half precision, saving and going on, all cards together, and speed, on the examples."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.config import SIZES, load_recipe
from ernie2.curriculum import make_plan
from ernie2.plan import estimate

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "tasks/recipes/demo.yaml"
# Part of a card's name -> TFLOP/s in half precision without sparsity, by NVIDIA's data sheets.
PEAKS = {"V100": 125, "T4": 65, "A100": 312, "A10": 125, "A30": 165, "H100": 989, "H200": 989, "H800": 989}
STEPS, HALF_TOLERANCE, RESUME_TOLERANCE = 20, 2e-2, 1e-3
LIMIT = 900  # seconds after which a trial is broken off
_OWN_PROCESS = [sys.executable, "-m", "ernie2.gpu_check"]

Row = tuple[str, str, str]  # what was tried, "ok" or "problem", what was found


class Trial(Exception):
    """A trial that did not end well; its text is the end of what the process said."""


def check(folder: Path, size: str = "base", lengths: Sequence[int] = (128, 512)) -> list[Row]:
    """Everything, in an empty folder; speed of a model of `size` at samples of `lengths` tokens."""
    try:
        cards = describe()
    except Trial as error:
        return [("paddle", "problem", str(error))]
    half = cards["half"]
    rows = [("paddle", "ok", cards["versions"]), ("driver", "ok", cards["driver"])]
    rows += [(f"card {number}", "ok", card) for number, card in enumerate(cards["cards"])]
    tried: list[tuple[str, Any]] = [
        ("attention", partial(attention_kernels, half, size, max(lengths))),
        (f"{half} beside fp32", partial(precision, folder, half)),
        ("save and go on", partial(resume, folder, half)),
    ]
    if (count := len(cards["cards"]) or 2) > 1:
        tried.append((f"{count} processes", partial(together, folder, half, count)))
    for length in lengths:
        measured = partial(speed, folder, half, size, length, cards["cards"])
        tried.append((f"{size}, {length} tokens", measured))
    for name, trial in tried:
        try:
            state, found = trial()
        except (Trial, OSError, ValueError) as error:  # a log that is missing, or shorter than another
            state, found = "problem", str(error)
        rows.append((name, state, found))
    return rows


def describe() -> dict[str, Any]:
    """Versions, driver, cards, and the half precision that they compute in (a CPU: fp32)."""
    return json.loads(_output([*_OWN_PROCESS, "describe"]))


def _describe() -> None:
    import paddle
    from paddle.base import core

    versions = [f"paddle {paddle.__version__}", f"Python {platform.python_version()}"]
    count = 0
    if paddle.is_compiled_with_cuda():
        count, nccl = paddle.device.cuda.device_count(), core.nccl_version()
        versions += [f"CUDA {paddle.version.cuda()}", f"cuDNN {core.cudnn_version()}", f"NCCL {nccl}"]
    found = [paddle.device.cuda.get_device_properties(number) for number in range(count)]
    half = "fp16" if any(card.major < 8 for card in found) else "bf16" if found else "fp32"
    cards = [f"{c.name}, capability {c.major}.{c.minor}, {c.total_memory / 2**30:.1f} GiB" for c in found]
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version,memory.free", "--format=csv,noheader"]
        driver = "; ".join(subprocess.check_output(asked, text=True, timeout=30).splitlines()) + " free"
    except (OSError, subprocess.SubprocessError):
        driver = "no nvidia-smi"
    print(json.dumps({"versions": ", ".join(versions), "driver": driver, "cards": cards, "half": half}))


def attention_kernels(half: str, size: str, length: int) -> tuple[str, str]:
    """Each kernel's trial (autocast, dropout, padding, odd lengths) and its time."""
    found = []
    for name in ("plain", "memory_efficient", "flash"):
        try:
            found.append(f"{name} {_output([*_OWN_PROCESS, 'kernel', name, half, size, str(length)])}")
        except Trial as error:
            found.append(f"{name}: {error}")
    return "ok" if " ms" in found[0] else "problem", "; ".join(found)


def _kernel(name: str, precision: str, size: str, length: str) -> None:
    from ernie2.attention import measure

    _, width, heads, _ = SIZES[size]
    problem, seconds = measure(name, precision, heads, width, int(length))
    print(problem or f"{1e3 * seconds:.2f} ms")


def precision(folder: Path, half: str) -> tuple[str, str]:
    """STEPS steps in half precision beside as many in fp32, from the same start, without dropout."""
    single, other = (_losses(folder, f"steps_{name}", f"runtime.precision={name}") for name in ("fp32", half))
    return _beside(other, single, HALF_TOLERANCE)


def resume(folder: Path, half: str) -> tuple[str, str]:
    """Half of the steps, the rest by a second process, beside all by one (which `precision` ran)."""
    setting = f"runtime.precision={half}"
    whole = _losses(folder, f"steps_{half}", setting)
    _losses(folder, "resumed", setting, f"runtime.max_steps={STEPS // 2}")
    return _beside(_losses(folder, "resumed", setting), whole, RESUME_TOLERANCE)


def together(folder: Path, half: str, count: int) -> tuple[str, str]:
    """All cards (on a CPU two processes) beside one: the same steps, gradients summed by NCCL (gloo)."""
    alone = _losses(folder, "one", f"runtime.precision={half}", tokens=1024 * count)
    found = _losses(folder, "all", f"runtime.precision={half}", tokens=1024 * count, processes=count)
    return _beside(found, alone, HALF_TOLERANCE if half != "fp32" else RESUME_TOLERANCE)


def _beside(found: np.ndarray, wanted: np.ndarray, limit: float) -> tuple[str, str]:
    off = float(np.abs(found / wanted - 1).max())
    return "ok" if off < limit else "problem", f"losses differ by at most {off:.1e} in {STEPS} steps"


def speed(folder: Path, half: str, size: str, length: int, cards: list[str]) -> tuple[str, str]:
    """Tokens a second of a model, and the share of the card's peak that this is."""
    out, tokens = folder / f"speed_{length}", 8192 if cards else 4 * length
    settings = [f"model.size={size}", "model.dropout=0.1", "model.vocab_rows=18000", f"batch.tokens={tokens}"]
    settings += [f"batch.micro_tokens={tokens}", f"runtime.precision={half}"]
    settings.append(f"curriculum.stages=[[{load_recipe(RECIPE).task_names()[0]}]]")
    _losses(folder, out.name, *settings, length=length)
    reached = statistics.median(line["tokens_per_s"] for line in _log(out)[STEPS // 2 :])
    recipe = load_recipe(RECIPE, [*_data(folder, length), *settings])
    work = estimate(recipe, make_plan(recipe.curriculum), 18_000, None)["flops_per_token"] * reached / 1e12
    peak = next((peak for card, peak in PEAKS.items() if cards and card in cards[0]), None)
    share = f", {work / peak:.0%} of {peak} TFLOP/s" if peak and half != "fp32" else ""
    return "ok", f"{reached:,.0f} tokens/s on one device, {work:.1f} TFLOP/s{share}"


def _losses(
    folder: Path, out: str, *settings: str, length: int = 128, tokens: int = 2048, processes: int = 1
) -> np.ndarray:
    """Trains STEPS steps in `folder / out` (or resumes there) and returns the loss of each."""
    trial = [f"out_dir={folder / out}", "model.size=mini", f"batch.tokens={tokens}", "model.dropout=0"]
    trial += [f"runtime.max_steps={STEPS}", "runtime.log_every=1", "lr.warmup_steps=5"]
    script = 'source ernie2/env.sh; ernie2_environment; ernie2_processes; ernie2_train ernie2.pretrain "$@"'
    cluster = ("NNODES", "NODE_RANK", "MASTER", "GPUS", "NPROC")
    env = {name: value for name, value in os.environ.items() if name not in cluster}
    env |= {"ERNIE2_PYTHON": sys.executable, "NPROC": str(processes)}
    arguments = [RECIPE, *_data(folder, length), *trial, *settings]
    _output(["bash", "-c", script, "check", *map(str, arguments)], env=env)
    return np.array([line["loss"] for line in _log(folder / out)])


def _log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def _data(folder: Path, length: int) -> list[str]:
    """Settings of all trials on samples of up to `length` tokens; makes their shards once."""
    shards = folder / f"shards_{length}"
    settings = [f"model.vocab_file={folder}/vocab.txt", f"data.shards_dir={shards}", "masking.level=word"]
    settings += [f"data.max_seq_len={length}", "curriculum.mode=multitask"]
    settings.append(f"curriculum.steps_per_task={STEPS}")
    if not shards.exists():
        _output([sys.executable, "-m", "data_gen", str(RECIPE), *settings])
    return settings


def _output(command: list[str], **settings: Any) -> str:
    """The last line that a process printed. Raises Trial with its last errors where it fails."""
    settings |= {"cwd": ROOT, "capture_output": True, "text": True, "timeout": LIMIT}
    try:
        done = subprocess.run(command, check=False, **settings)
    except subprocess.TimeoutExpired:
        raise Trial(f"no end after {LIMIT} s") from None
    if done.returncode:
        errors = re.sub(r"\s+", " ", (done.stderr or done.stdout).strip())[-600:]
        raise Trial(f"exit code {done.returncode}: {errors}")
    return done.stdout.strip().rpartition("\n")[2]


def page(rows: list[Row]) -> str:
    """The rows as a table in Markdown."""
    cells = [("tried", "", "found"), ("---", "---", "---"), *rows]
    body = [f"| {name} | {state} | {found.replace('|', '/')} |" for name, state, found in cells]
    bad = sum(state == "problem" for _, state, _ in rows)
    end = f"problems: {bad}" if bad else "all is well"
    return "\n".join(["# ERNIE 2.0 on this GPU", "", *body, "", end, ""])


if __name__ == "__main__":
    {"describe": _describe, "kernel": _kernel}[sys.argv[1]](*sys.argv[2:])
