"""The checks of `python -m ernie2.doctor` that a node makes by itself; ernie2.doctor compares nodes and prints.

Every check returns findings and never raises for what it finds: a doctor that falls ill at the first fault helps nobody.
"""

from __future__ import annotations

import glob
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ernie2 import out_dir, paddle_version, tasks
from ernie2.config import Recipe
from ernie2.curriculum import make_plan
from ernie2.plan import estimate, vocabulary_rows
from ernie2.shards import ShardReader
from ernie2.strict import ConfigError

PYTHONS = ((3, 10), (3, 12))
TESTED_PADDLE = ("3.3.1", "2.6.2")
NEEDED = ("numpy", "pyyaml", "tqdm", "jieba", "tokenizers", "safetensors", "joblib", "visualdl", "paddlenlp")
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
CONSTRAINTS_2 = CONSTRAINTS.with_name("constraints-paddle2.txt")  # of paddle 2.6
INSTALL = "pip install -c constraints.txt -e '.[cpu]' (or '.[gpu]')"
INSTALL_2 = "pip install -c constraints-paddle2.txt -e '.[cpu2]' (or '.[gpu2]')"
BYTES_PER_TOKEN = 9  # of a shard: ids 2, sentence ids 1, three levels of spans 2 each
TEXT_PER_TOKEN = {"zh": 3.0, "en": 4.5}  # bytes of UTF-8 text that make a token
PACKED = (".gz", ".bz2", ".zst")


@dataclass
class Finding:
    """What a check found."""

    check: str
    state: Literal["ok", "warning", "problem"]
    found: str
    remedy: str = ""


def examine(recipe: Recipe) -> list[Finding]:
    """Every check of this node, in the order of a start."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        versions, lambda: devices(recipe), addresses, lambda: folder(recipe), lambda: disk(recipe), lambda: shards(recipe))
    return [finding for check in checks for finding in check()]


def versions() -> list[Finding]:
    """Python, paddle and the other packages beside what was tested."""
    python = ".".join(map(str, sys.version_info[:3]))
    fits = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    found = [Finding("python", "ok" if fits else "problem", python, "" if fits else "use Python 3.10, 3.11 or 3.12")]
    paddle = _version("paddlepaddle-gpu") or _version("paddlepaddle")
    old = bool(paddle) and paddle.startswith("2.")
    constraints, install = (CONSTRAINTS_2, INSTALL_2) if old else (CONSTRAINTS, INSTALL)
    found.append(_paddle(paddle, install))
    pins = dict(re.findall(r"^([\w.-]+)==([^ ;\n]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
                ) if constraints.is_file() else {}
    installed = {name: _version(name) for name in NEEDED}
    missing = [name for name, version in installed.items() if version is None]
    other = [f"{name} {version} (tested: {pins[name]})" for name, version in installed.items()
             if version and pins.get(name, version) != version]
    if missing:
        found.append(Finding("packages", "problem", f"not installed: {', '.join(missing)}", install))
    if other:
        found.append(Finding("packages", "warning", ", ".join(other), install))
    return found if missing or other else [*found, Finding("packages", "ok", "as tested")]


def _paddle(version: str | None, install: str) -> Finding:
    if version is None:
        return Finding("paddle", "problem", "not installed", install)
    try:
        paddle_version.check(version)
    except ImportError:
        return Finding("paddle", "problem", f"{version}; tested: {paddle_version.TESTED}", install)
    if version not in TESTED_PADDLE:
        return Finding("paddle", "warning", f"{version}; tested: {', '.join(TESTED_PADDLE)}", install)
    return Finding("paddle", "ok", version)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def devices(recipe: Recipe) -> list[Finding]:
    """What paddle computes on, whether it computes rightly, and whether the model fits."""
    try:
        import paddle
    except ImportError as error:
        return [Finding("devices", "problem", f"paddle cannot be imported: {error}", INSTALL)]
    cards = _cards()
    count = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if cards and not count:
        why = "sees none of them" if paddle.is_compiled_with_cuda() else "is built for the CPU"
        state = "warning" if recipe.runtime.precision == "fp32" else "problem"
        return [Finding("devices", state, f"{len(cards)} GPUs ({cards[0]['name']}), but paddle {why}",
                        "install paddlepaddle-gpu, or check CUDA_VISIBLE_DEVICES and the driver")]
    if not count:
        if recipe.runtime.precision != "fp32":
            return [Finding("devices", "problem", f"no GPU, but runtime.precision={recipe.runtime.precision}",
                            "runtime.precision=fp32, or a machine with a GPU")]
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return [Finding("devices", "ok", f"CPU, {len(os.sched_getaffinity(0))} cores"), _fit(recipe, free, _processes())]
    found = []
    for i in range(count):
        properties = paddle.device.cuda.get_device_properties(i)
        product = paddle.matmul(paddle.ones([64, 64]).cuda(i), paddle.ones([64, 64]).cuda(i))
        right = bool((product == 64).all())
        found.append(Finding("devices", "ok" if right else "problem", f"GPU {i}: {properties.name}, "
                             f"{out_dir.size(properties.total_memory)}, compute capability {properties.major}.{properties.minor}",
                             "" if right else "it computes wrong: another build of paddle, or a broken card"))
    busy = [f"GPU {i}" for i, card in enumerate(cards) if card["used"] > 0.1 * card["total"]]
    if busy:
        found.append(Finding("devices", "warning", f"others use memory of {', '.join(busy)}",
                             "nvidia-smi says who; GPUs=... takes others"))
    if cards:
        found.append(Finding("driver", "ok", cards[0]["driver"]))
    return [*found, _fit(recipe, paddle.device.cuda.get_device_properties(0).total_memory, 1)]


def _cards() -> list[dict]:
    """What nvidia-smi lists: name, driver, total and used (bytes)."""
    try:
        lines = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used",
                                "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=30, check=True).stdout
        rows = [line.split(", ") for line in lines.splitlines()]
        return [{"name": name, "driver": driver, "total": int(total) << 20, "used": int(used) << 20}
                for name, driver, total, used in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _processes() -> int:
    return int(os.environ.get("NPROC") or 1)


def _fit(recipe: Recipe, memory: int, processes: int) -> Finding:
    figures = estimate(recipe, make_plan(recipe.curriculum), vocabulary_rows(recipe), None)
    needed = (figures["state_bytes"] + figures["activation_bytes"]) * processes
    text = f"about {out_dir.size(needed)} wanted (estimate), {out_dir.size(memory)} there"
    if needed < 0.9 * memory:
        return Finding("memory", "ok", text)
    return Finding("memory", "warning", text, "halve batch.micro_tokens, or runtime.recompute=true; the step stays the same")


def addresses() -> list[Finding]:
    """Whether MASTER is what Paddle's launcher thinks this machine is called; it waits for ever where not."""
    host, _, _ = os.environ.get("MASTER", "").rpartition(":")
    if int(os.environ.get("NNODES") or 1) < 2 or not host:
        return []
    try:  # as paddle.distributed.launch does it
        mine = socket.gethostbyname(socket.getfqdn(socket.gethostname()))
    except OSError:
        mine = "127.0.0.1"
    if mine.startswith("127.") and not host.startswith("127."):
        return [Finding("address", "problem", f"this machine's name means {mine}, where no other node can reach it",
                        "let its name mean its address on the network (/etc/hosts)")]
    if os.environ.get("NODE_RANK", "0") == "0" and host not in ("127.0.0.1", mine):
        return [Finding("address", "problem", f"MASTER names {host}, but Paddle's launcher knows this node as {mine} and would "
                        f"wait for {host} for ever", f"MASTER={mine}:{os.environ['MASTER'].rpartition(':')[2]} on every node")]
    return [Finding("address", "ok", f"{socket.gethostname()} is {mine}")]


def folder(recipe: Recipe) -> list[Finding]:
    """Whether out_dir can be written, is free, and holds whole checkpoints."""
    path = Path(recipe.out_dir)
    there = path.absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return [Finding("out_dir", "problem", f"{there} cannot be written: {error.strerror}",
                        "name another out_dir, or change its owner")]
    user = out_dir.in_use(path)
    if user:
        return [Finding("out_dir", "problem", f"{path} is in use by another run ({user})",
                        "wait for it, stop it, or name another out_dir")]
    return [Finding("out_dir", "ok", f"{path} can be written"), *_checkpoints(path)]


def _checkpoints(path: Path) -> list[Finding]:
    try:
        from ernie2.checkpoint import checkpoints, what_is_wrong
    except ImportError:
        return []  # no paddle: said already
    found = checkpoints(path)
    if not found:
        return []
    wrong = what_is_wrong(found[-1][1])
    if wrong is None:
        return [Finding("checkpoints", "ok", f"{len(found)}; goes on from step {found[-1][0]}")]
    return [Finding("checkpoints", "warning" if len(found) > 1 else "problem", wrong,
                    "the one before it will be used" if len(found) > 1 else f"remove {found[-1][1]} to start from the beginning")]


def disk(recipe: Recipe) -> list[Finding]:
    """Room for checkpoints, beside the plan's estimate."""
    figures = estimate(recipe, make_plan(recipe.curriculum), vocabulary_rows(recipe), None)
    one = figures["parameters"] * 4 * 3  # weights and two moments
    path = Path(recipe.out_dir)
    there = sum(entry.stat().st_size for entry in path.glob("step_*/*") if entry.is_file())
    wanted, free = max(one * (recipe.runtime.keep_last + 1) - there, one), out_dir.free_bytes(path)
    text = f"checkpoints: {out_dir.size(wanted)} wanted ({out_dir.size(one)} each, estimate), {out_dir.size(free)} free at {path}"
    state = "ok" if free > wanted else "warning" if free > one else "problem"
    return [Finding("disk", state, text, "" if state == "ok" else "make room, lower runtime.keep_last, or another out_dir")]


def shards(recipe: Recipe) -> list[Finding]:
    """Whether every task's shards are there and whole; room for those that are not."""
    known, missing, found, samples = tasks.load_tasks(), [], [], {}
    for name in recipe.task_names():
        where = Path(recipe.data.shards_dir) / name
        if name not in known:
            found.append(Finding("shards", "problem", f"no task is called {name}", "see tasks/pretrain"))
        elif not (where / "index.json").exists():
            missing.append(name)
        else:
            try:
                samples[name] = sum(len(ShardReader(where, split, known[name])) for split in ("train", "dev"))
            except ConfigError as error:
                found.append(Finding("shards", "problem", str(error), "run data_gen again"))
    if samples:
        found.append(Finding("shards", "ok", ", ".join(f"{name} {count:,}" for name, count in samples.items()) + " samples"))
    return [*found, _shard_room(recipe, missing)] if missing else found


def _shard_room(recipe: Recipe, missing: list[str]) -> Finding:
    files = [Path(name) for pattern in recipe.data.corpus for name in glob.glob(pattern, recursive=True)]
    text = sum(path.stat().st_size * (4 if path.suffix in PACKED else 1) for path in files if path.is_file())
    # Twice: examples wait in spill files while shards are merged from them.
    wanted = 2 * len(missing) * BYTES_PER_TOKEN * text / TEXT_PER_TOKEN[recipe.data.language]
    free = out_dir.free_bytes(Path(recipe.data.shards_dir))
    words = (f"still to be made: {', '.join(missing)}; {out_dir.size(wanted)} wanted (estimate), {out_dir.size(free)} free at "
             f"{recipe.data.shards_dir}")
    fits = free > wanted
    return Finding("shards", "ok" if fits else "warning", words, "" if fits else "make room, or another data.shards_dir")
