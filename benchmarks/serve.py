"""ernie2.serve beside PaddleNLP's SimpleServer: one classification, one text a request, clients that ask
again at once. Answers a second and the 99th percentile of their times, without and with hostile requests.

    python -m benchmarks.serve MODEL TEXTS.tsv [...] --out benchmarks/results/serve.md

MODEL: best/ of a classification without a second text. TEXTS: TSV files with text_a."""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import RunFailed, say, spread
from ernie2.strict import cli

OURS, THEIRS = "ernie2.serve", "SimpleServer"
CLIENTS = (1, 8, 64)
PEER = """
import sys, uvicorn
from paddlenlp import SimpleServer, Taskflow
folder, length, port = sys.argv[1:]
flow = Taskflow("text_classification", task_path=folder, max_length=int(length), batch_size=32, device_id=-1)
app = SimpleServer()
app.register_taskflow("model", [flow])
uvicorn.run(app, port=int(port), log_level="warning")
"""
ODD: tuple = (5, "", "书" * 100_000)


@contextlib.contextmanager
def server(name: str, model: Path) -> Iterator[int]:
    """The port of a server that answers, on one thread. Raises RunFailed where it does not come up."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = str(door.getsockname()[1])
    command = ["-m", "ernie2.serve", f"model={model}", "--port", port]
    if name == THEIRS:
        command = ["-c", PEER, str(model), str(config["finetune_task"]["max_seq_len"]), port]
    with tempfile.TemporaryFile("w+") as log:
        streams = {"stdout": log, "stderr": log, "env": {**os.environ, **harness.ONE_THREAD}}
        process = subprocess.Popen([sys.executable, *command], cwd=harness.ROOT, **streams)
        try:
            for _ in range(600):
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json"),
                ):
                    break
                if process.poll() is not None:
                    log.seek(0)
                    raise RunFailed(f"{name}: {harness.last_lines(log.read())}")
                time.sleep(0.2)
            yield int(port)
        finally:
            process.terminate()
            process.wait(60)


def body(name: str, text: object) -> bytes:
    """A request for the label of a text, as the server wants it."""
    return json.dumps({"inputs": [{"text_a": text}]} if name == OURS else {"data": {"text": [text]}}).encode()


def send(line: HTTPConnection, data: bytes, path: str = "/model") -> tuple[int, bytes]:
    """Status and body of the answer."""
    line.request("POST", path, data, {"Content-Type": "application/json"})
    answer = line.getresponse()
    return answer.status, answer.read()


def ask(port: int, clients: int, good: list[bytes], hostile: list[tuple]) -> dict[str, Any]:
    """Answers a second, p99 in ms, labels, statuses of the hostile: one after every fourth good request."""
    lines, refused = queue.SimpleQueue(), set()
    for _ in range(clients):
        lines.put(HTTPConnection("127.0.0.1", port))

    def one(number: int) -> tuple[float, str]:
        line, begin = lines.get(), time.perf_counter()
        status, answer = send(line, good[number])
        took = 1000 * (time.perf_counter() - begin)
        if status != 200:
            raise RunFailed(f"status {status}: {answer[:200]!r}")
        if hostile and number % 4 == 3:
            with contextlib.closing(HTTPConnection("127.0.0.1", port)) as other:
                refused.add(send(other, *hostile[number // 4 % len(hostile)])[0])
        lines.put(line)
        found = json.loads(answer)
        return took, (found.get("predictions") or found["result"][0]["predictions"])[0]["label"]

    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times, labels = zip(*pool.map(one, range(len(good))), strict=True)
    rate = len(good) / (time.perf_counter() - begin)
    return {"rate": rate, "p99": float(np.quantile(times, 0.99)), "labels": labels, "refused": refused}


def measure(model: Path, texts: list[str], rounds: int) -> dict[tuple, list[dict]]:
    """(clients, whether hostile requests are among them, server) -> what `ask` found, round by round."""
    found: dict[tuple, list[dict]] = {}
    for name in [OURS, THEIRS] * rounds:
        good = [body(name, text) for text in texts]
        hostile = [(good[0][:-3],), (good[0], "/none"), *((body(name, odd),) for odd in ODD)]
        with server(name, model) as port:
            ask(port, 1, good[:20], [])  # warm
            for clients, mixed in itertools.product(CLIENTS, (False, True)):
                some = good if clients > 1 else good[: len(good) // 4]
                one = ask(port, clients, some, hostile if mixed else [])
                found.setdefault((clients, mixed, name), []).append(one)
                say(f"{name}, {clients}, hostile {mixed}: {one['rate']:.1f}/s, p99 {one['p99']:.0f} ms")
    return found


def report(name: str, found: dict[tuple, list[dict]]) -> list[tuple[str, list[str]]]:
    """Targets and figures of a file of texts."""
    rows, judged = [], []
    for clients, mixed in itertools.product(CLIENTS, (False, True)):
        what = f"clients: {clients}{', hostile requests too' * mixed}"
        sides = [found[clients, mixed, name] for name in (OURS, THEIRS)]
        rates, slow = ([[one[key] for one in side] for side in sides] for key in ("rate", "p99"))
        cells = [(spread(r, 1, best=max), spread(p, 0)) for r, p in zip(rates, slow, strict=True)]
        rows.append([what, *cells[0], *cells[1]])
        more, later = max(rates[0]) / max(rates[1]), min(slow[0]) / min(slow[1])
        judged.append(harness.judge(f"answers a second over SimpleServer's, {what}", [more], ">= 2"))
        judged.append(harness.judge(f"p99 over SimpleServer's, {what}", [later], "<= 1"))
    ours, theirs = (found[CLIENTS[-1], False, name][0]["labels"] for name in (OURS, THEIRS))
    same = np.mean([one == other for one, other in zip(ours, theirs, strict=True)])
    refused = {name: sorted(found[CLIENTS[-1], True, name][0]["refused"]) for name in (OURS, THEIRS)}
    head = ["", f"{OURS}: answers/s", "p99, ms", f"{THEIRS}: answers/s", "p99, ms"]
    said = f"Labels equal: {same:.1%} of {len(ours)}. Answers to hostile requests: {refused}."
    verdict, lines = harness.targets(judged)
    return [
        (f"{name}: {verdict}", lines),
        (f"Figures: {name}", [*harness.table(head, rows), "", said]),
    ]


@cli
def main(argv: Sequence[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.serve", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    facts, parts = harness.machine_facts(), []
    for path in args.texts:
        with path.open(encoding="utf-8", newline="") as file:
            texts = [row["text_a"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
        texts = list(itertools.islice(itertools.cycle(texts), args.requests))
        name = f"{'/'.join(path.parts[-2:])}, {np.mean([*map(len, texts)]):.0f} characters a text"
        parts += report(name, measure(args.model, texts, args.rounds))
    facts.append("- best [range] of the rounds, servers in turn, one thread each, the clients beside them")
    harness.publish("benchmarks.serve", argv, facts, parts, args.out)


if __name__ == "__main__":
    main()
