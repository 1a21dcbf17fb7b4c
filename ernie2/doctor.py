"""`python -m ernie2.doctor [RECIPE.yaml] [key=value ...] [--json]`: what could stop a run, before it starts.

Checks this machine and the recipe's folders: versions, devices, memory, ports, disk, shards. Exit code 0, or
1 where there is a problem. What has to be the same on all nodes is printed as digests; a run compares them
before its first step (ernie2/watchdog.py)."""

import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import NamedTuple

from ernie2 import gpu_check, out_dir, paddle_version
from ernie2.config import Recipe
from ernie2.digests import run_digests
from ernie2.disk import size, write_text
from ernie2.plan import GIB, fit_line, fits, parameter_count, parse_recipe, recipe_parser, vocabulary_rows
from ernie2.shards import SPLITS, ShardReader
from ernie2.strict import ConfigError, cli
from ernie2.tasks import select_tasks

TESTED_PADDLE = ("3.3.1", "2.6.2")


class Finding(NamedTuple):
    """What a check found: ok, a warning or a problem."""

    check: str
    found: str
    state: str = "ok"
    remedy: str = ""


def versions(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Python and paddle. installed: package -> version."""
    yield Finding("python", python_version())
    paddle = installed.get("paddlepaddle-gpu") or installed.get("paddlepaddle") or "not installed"
    name, suffix = ("constraints-paddle2.txt", "2") if paddle.startswith("2.") else ("constraints.txt", "")
    remedy = f"pip install -c {name} -e '.[cpu{suffix}]' (or '.[gpu{suffix}]')"
    remedy += f"; tested: {', '.join(TESTED_PADDLE)}"
    state = "warning"
    try:
        paddle_version.check(paddle)
    except ImportError:
        state = "problem"
    yield Finding("paddle", paddle) if paddle in TESTED_PADDLE else Finding("paddle", paddle, state, remedy)


def devices(recipe: Recipe) -> Iterator[Finding]:
    """What paddle computes on, whether it computes right, and whether the model fits."""
    try:
        import paddle
    except ImportError as error:
        yield Finding("devices", f"paddle cannot be imported: {error}", "problem", "see above")
        return
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    for number in range(gpus):
        paddle.set_device(f"gpu:{number}")
        card = paddle.device.cuda.get_device_properties(number)
        found = f"GPU {number}: {card.name}, compute capability {card.major}.{card.minor}"
        right = bool((paddle.matmul(paddle.ones([64, 64]), paddle.ones([64, 64])) == 64).all())
        wrong = ("problem", "it computes wrong: another build of paddle, or another card")
        yield Finding("devices", found, *(() if right else wrong))
        yield _fit(recipe, card.total_memory, 1)
    if gpus:
        return
    half = recipe.runtime.precision != "fp32"
    if cards := list(Path("/dev").glob("nvidia[0-9]*")):
        found = f"{len(cards)} GPUs, but paddle computes on the CPU"
        remedy = "install paddlepaddle-gpu, or check CUDA_VISIBLE_DEVICES and the driver"
        yield Finding("devices", found, "problem" if half else "warning", remedy)
    elif half:
        found = f"no GPU, but runtime.precision={recipe.runtime.precision}"
        yield Finding("devices", found, "problem", "runtime.precision=fp32, or a machine with a GPU")
    else:
        yield Finding("devices", f"CPU, {len(os.sched_getaffinity(0))} cores")
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield _fit(recipe, free, int(os.environ.get("NPROC") or 1))


def _fit(recipe: Recipe, memory: int, processes: int) -> Finding:
    (device,) = fits(recipe, vocabulary_rows(recipe), processes, memory / GIB)
    small = ("warning", "set it, or runtime.recompute=true")
    return Finding("memory", fit_line(device), *(() if device["fits"] else small))


def ports() -> Iterator[Finding]:
    """On a cluster: whether other nodes reach this machine by its name, and whether MASTER's port is free."""
    host, _, port = os.environ.get("MASTER", "").rpartition(":")
    if int(os.environ.get("NNODES") or 1) < 2 or not host:
        return
    name, remedy = socket.gethostname(), ""
    try:
        address = socket.gethostbyname(name)
        if os.environ.get("NODE_RANK", "0") == "0":
            socket.create_server(("", int(port))).close()
        if address.startswith("127.") and not host.startswith("127."):
            remedy = "no other node reaches it there: give it its address on the network (/etc/hosts)"
    except OSError as error:
        address = f"no place for MASTER: {error.strerror}"
        remedy = "another port, or an address for this name in /etc/hosts"
    yield Finding(
        "ports", f"{name} is {address}; MASTER is {host}, port {port}", "problem" if remedy else "ok", remedy
    )


def folder(recipe: Recipe) -> Iterator[Finding]:
    """Whether out_dir can be written, no other run uses it, and the checkpoints fit on its disk."""
    path = there = Path(recipe.out_dir).absolute()
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        remedy = "name another out_dir, or change its owner"
        yield Finding("out_dir", f"{there} cannot be written", "problem", remedy)
    elif user := out_dir.in_use(path):
        remedy = "wait for it, stop it, or name another out_dir"
        yield Finding("out_dir", f"{path} is in use by another run ({user})", "problem", remedy)
    else:
        yield Finding("out_dir", f"{path} can be written")
    one = parameter_count(recipe, vocabulary_rows(recipe)) * 4 * 3  # weights and two moments
    saved = sum(entry.stat().st_size for entry in path.glob("step_*/*") if entry.is_file())
    needed, free = max(one * (recipe.runtime.keep_last + 1) - saved, one), out_dir.free_bytes(path)
    found = f"checkpoints: {size(needed)} needed ({size(one)} each, estimate), {size(free)} free at {path}"
    remedy = "free some space, lower runtime.keep_last, or name another out_dir"
    state = "warning" if free > one else "problem"
    yield Finding("disk", found) if free > needed else Finding("disk", found, state, remedy)


def shards(recipe: Recipe) -> Iterator[Finding]:
    """Whether every task's shards are there and whole."""
    for name in recipe.task_names():
        path = Path(recipe.data.shards_dir) / name
        try:
            (task,) = select_tasks([name], "curriculum.stages")
            found = "not made yet"
            if (path / "index.json").exists():
                found = f"{sum(len(ShardReader(path, split, task)) for split in SPLITS):,} samples"
            yield Finding("shards", f"{name}: {found}")
        except ConfigError as error:
            yield Finding("shards", str(error), "problem", "run data_gen again")


def page(found: Iterable[Finding], digests: dict[str, str]) -> str:
    """The table, the digests to compare with other machines', and how many problems there are."""
    lines = []
    for check, text, state, remedy in found:
        lines.append(f"{state:8} {check:11} {text}")
        lines += [f"{'':20} -> {remedy}"] if remedy else []
    lines.append("digests: " + "  ".join(f"{name} {digest[:12]}" for name, digest in digests.items()))
    states = [one.state for one in found]
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
        with tempfile.TemporaryDirectory(prefix="ernie2.") as trials:
            rows = gpu_check.check(Path(trials))
        text = gpu_check.page(rows)
        write_text(Path(args.out), text)
        print(f"{text}\nwritten to {args.out}")
        return int(any(state == "problem" for _, state, _ in rows))
    installed = {one.name.lower(): one.version for one in metadata.distributions()}
    found = [*versions(installed), *devices(recipe), *ports(), *folder(recipe), *shards(recipe)]
    digests = run_digests(recipe)
    well = all(one.state != "problem" for one in found)
    as_json = {"ok": well, "digests": digests, "findings": [one._asdict() for one in found]}
    print(json.dumps(as_json, indent=1) if args.json else page(found, digests))
    return 0 if well else 1


if __name__ == "__main__":
    cli(main)()
