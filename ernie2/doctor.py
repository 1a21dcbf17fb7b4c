"""`python -m ernie2.doctor [RECIPE.yaml] [key=value ...] [--json]`: what could stop a run, looked over before
it starts.

Looks over this machine and the recipe's folders before a run: versions, devices, memory, ports, disk, shards.
Exit code 0, or 1 where there is a problem. What has to be the same on all nodes is printed as digests;
a run compares them before its first step (ernie2/watchdog.py)."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ernie2 import out_dir, paddle_version, tasks
from ernie2.config import Recipe
from ernie2.curriculum import make_plan
from ernie2.digests import run_digests
from ernie2.disk import write_text
from ernie2.out_dir import size
from ernie2.plan import estimate, parse_recipe, recipe_parser, vocabulary_rows
from ernie2.shards import ShardReader
from ernie2.strict import ConfigError, cli

TESTED_PADDLE = ("3.3.1", "2.6.2")
NEEDED = ("numpy", "pyyaml", "tqdm", "jieba", "tokenizers", "safetensors", "joblib", "visualdl", "paddlenlp")
_ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Finding:
    """What a check found. A check never raises for what it finds: all of them are to be read."""

    state: Literal["ok", "warning", "problem"]
    check: str
    found: str
    remedy: str = ""


Findings = Iterator[Finding]


def examine(recipe: Recipe) -> list[Finding]:
    """Every check, in the order of a start."""
    return [*versions(), *devices(recipe), *ports(), *folder(recipe), *room(recipe), *shards(recipe)]


def versions() -> Findings:
    """Python, paddle and the other packages beside what was tested."""
    python = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield Finding("ok" if fits else "problem", "python", python, "" if fits else "use Python 3.10 to 3.12")
    paddle = _version("paddlepaddle-gpu") or _version("paddlepaddle") or "not installed"
    name, suffix = ("constraints-paddle2.txt", "2") if paddle.startswith("2.") else ("constraints.txt", "")
    install = f"pip install -c {name} -e '.[cpu{suffix}]' (or '.[gpu{suffix}]')"
    state = "ok" if paddle in TESTED_PADDLE else "warning"
    try:
        paddle_version.check(paddle)
    except ImportError:
        state = "problem"
    words = paddle if state == "ok" else f"{paddle}; tested: {', '.join(TESTED_PADDLE)}"
    yield Finding(state, "paddle", words, "" if state == "ok" else install)
    lines = (_ROOT / name).read_text(encoding="utf-8") if (_ROOT / name).is_file() else ""
    pins = dict(re.findall(r"^([\w.-]+)==([^ ;\n]+)", lines, re.MULTILINE))
    installed = {package: _version(package) for package in NEEDED}
    missing = [package for package, version in installed.items() if version is None]
    other = [f"{name} {version}" for name, version in installed.items() if pins.get(name, version) != version]
    if missing:
        yield Finding("problem", "packages", f"not installed: {', '.join(missing)}", install)
    elif other:
        yield Finding("warning", "packages", f"not as tested: {', '.join(other)}", install)
    else:
        yield Finding("ok", "packages", "as tested")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def devices(recipe: Recipe) -> Findings:
    """What paddle computes on, whether it computes right, and whether the model fits."""
    try:
        import paddle
    except ImportError as error:
        yield Finding("problem", "devices", f"paddle cannot be imported: {error}", "see above")
        return
    cards, built = _nvidia_smi("name"), paddle.is_compiled_with_cuda()
    count = paddle.device.cuda.device_count() if built else 0
    state = "warning" if recipe.runtime.precision == "fp32" else "problem"
    if count:
        yield from (_card(paddle, number) for number in range(count))
        yield _fit(recipe, paddle.device.cuda.get_device_properties(0).total_memory, 1)
    elif cards:
        why = "sees none of them" if built else "is built for the CPU"
        remedy = "install paddlepaddle-gpu, or check CUDA_VISIBLE_DEVICES and the driver"
        yield Finding(state, "devices", f"{len(cards)} GPUs ({cards[0]}), but paddle {why}", remedy)
    elif state == "problem":
        remedy = "runtime.precision=fp32, or a machine with a GPU"
        yield Finding(state, "devices", f"no GPU, but runtime.precision={recipe.runtime.precision}", remedy)
    else:
        yield Finding("ok", "devices", f"CPU, {len(os.sched_getaffinity(0))} cores")
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield _fit(recipe, free, int(os.environ.get("NPROC") or 1))


def _card(paddle: Any, number: int) -> Finding:
    paddle.set_device(f"gpu:{number}")
    card = paddle.device.cuda.get_device_properties(number)
    capability = f"compute capability {card.major}.{card.minor}"
    what = f"GPU {number}: {card.name}, {size(card.total_memory)}, {capability}"
    if bool((paddle.matmul(paddle.ones([64, 64]), paddle.ones([64, 64])) == 64).all()):
        return Finding("ok", "devices", what)
    return Finding(
        "problem", "devices", f"{what}: computes wrong", "another build of paddle, or another card"
    )


def _nvidia_smi(field: str) -> list[str]:
    """One field of every GPU; empty where there is no nvidia-smi."""
    try:
        command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=30).splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def _fit(recipe: Recipe, memory: int, processes: int) -> Finding:
    figures = estimate(recipe, make_plan(recipe.curriculum), vocabulary_rows(recipe), None)
    needed = (figures["state_bytes"] + figures["activation_bytes"]) * processes
    text = f"about {size(needed)} wanted (estimate), {size(memory)} there"
    if needed < 0.9 * memory:
        return Finding("ok", "memory", text)
    return Finding("warning", "memory", text, "halve batch.micro_tokens, or runtime.recompute=true")


def ports() -> Findings:
    """On a cluster: whether other nodes reach this machine by its name, and whether MASTER's port is free."""
    host, _, port = os.environ.get("MASTER", "").rpartition(":")
    if int(os.environ.get("NNODES") or 1) < 2 or not host:
        return
    name = socket.gethostname()
    try:
        mine = socket.gethostbyname(name)
        if os.environ.get("NODE_RANK", "0") == "0":
            socket.create_server(("", int(port))).close()
    except OSError as error:
        words = f"{name} as MASTER's port {port}: {error.strerror}"
        yield Finding("problem", "ports", words, "another port, or an address for this name in /etc/hosts")
        return
    if mine.startswith("127.") and not host.startswith("127."):
        words = f"{name}, this machine's name, means {mine}, where no other node reaches it"
        yield Finding("problem", "ports", words, "let it mean its address on the network (/etc/hosts)")
    else:
        yield Finding("ok", "ports", f"{name} is {mine}; MASTER is {host}, port {port}")


def folder(recipe: Recipe) -> Findings:
    """Whether out_dir can be written, and is free."""
    path = there = Path(recipe.out_dir).absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        remedy = "name another out_dir, or change its owner"
        yield Finding("problem", "out_dir", f"{there} cannot be written: {error.strerror}", remedy)
        return
    if user := out_dir.in_use(path):
        remedy = "wait for it, stop it, or name another out_dir"
        yield Finding("problem", "out_dir", f"{path} is in use by another run ({user})", remedy)
        return
    yield Finding("ok", "out_dir", f"{path} can be written")


def room(recipe: Recipe) -> Findings:
    """Room on the disk for checkpoints."""
    figures = estimate(recipe, make_plan(recipe.curriculum), vocabulary_rows(recipe), None)
    one = figures["parameters"] * 4 * 3  # weights and two moments
    path = Path(recipe.out_dir)
    there = sum(entry.stat().st_size for entry in path.glob("step_*/*") if entry.is_file())
    wanted, free = max(one * (recipe.runtime.keep_last + 1) - there, one), out_dir.free_bytes(path)
    text = f"checkpoints: {size(wanted)} wanted ({size(one)} each, estimate), {size(free)} free at {path}"
    state = "ok" if free > wanted else "warning" if free > one else "problem"
    remedy = "" if state == "ok" else "make room, lower runtime.keep_last, or another out_dir"
    yield Finding(state, "disk", text, remedy)


def shards(recipe: Recipe) -> Findings:
    """Whether every task's shards are there and whole."""
    folder, known, samples, missing = Path(recipe.data.shards_dir), tasks.load_tasks(), {}, []
    for name in recipe.task_names():
        try:
            if name not in known:
                yield Finding("problem", "shards", f"no task is called {name}", "see tasks/pretrain")
            elif not (folder / name / "index.json").exists():
                missing.append(name)
            else:
                readers = [ShardReader(folder / name, split, known[name]) for split in ("train", "dev")]
                samples[name] = sum(map(len, readers))
        except ConfigError as error:
            yield Finding("problem", "shards", str(error), "run data_gen again")
    if samples:
        yield Finding(
            "ok", "shards", f"samples: {', '.join(f'{name} {count:,}' for name, count in samples.items())}"
        )
    if missing:
        words = f"still to be made: {', '.join(missing)}; {size(out_dir.free_bytes(folder))} free at {folder}"
        yield Finding("ok", "shards", words)


def page(found: list[Finding], digests: dict[str, str]) -> str:
    """The table, the digests to compare with other machines', and how many problems there are."""
    lines = []
    for finding in found:
        lines.append(f"{finding.state:8} {finding.check:11} {finding.found}")
        lines += [f"{'':20} -> {finding.remedy}"] if finding.remedy else []
    lines.append("digests: " + "  ".join(f"{name} {digest[:12]}" for name, digest in digests.items()))
    states = [finding.state for finding in found]
    counts = [f"{state}s: {states.count(state)}" for state in ("problem", "warning") if state in states]
    return "\n".join([*lines, ", ".join(counts) or "all is well"])


def main(argv: list[str]) -> int:
    """Command line."""
    parser = recipe_parser("python -m ernie2.doctor", __doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--gpu", action="store_true", help="try and time this machine's GPUs; some minutes")
    parser.add_argument("--out", default="gpu_check.md", help="page of --gpu (default: %(default)s)")
    recipe, _, args = parse_recipe(parser, argv)
    if args.gpu:
        return _try_gpus(Path(args.out))
    found, digests = examine(recipe), run_digests(recipe)
    well = all(finding.state != "problem" for finding in found)
    if args.json:
        findings = [asdict(finding) for finding in found]
        print(json.dumps({"ok": well, "digests": digests, "findings": findings}, indent=1))
    else:
        print(page(found, digests))
    return 0 if well else 1


def _try_gpus(out: Path) -> int:
    from ernie2 import gpu_check

    with tempfile.TemporaryDirectory(prefix="ernie2.") as folder:
        rows = gpu_check.check(Path(folder))
    text = gpu_check.page(rows)
    write_text(out, text)
    print(f"{text}\nwritten to {out}")
    return int(any(state == "problem" for _, state, _ in rows))


if __name__ == "__main__":
    cli(main)()
