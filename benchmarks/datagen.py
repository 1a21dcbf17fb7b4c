"""Every target of data generation beside its measured value, in one run: speed, memory, workers, agreement, peers.

    python -m benchmarks.datagen 'corpus/zh/*.txt.gz' --query-log qbqtc.tsv.gz --entity-dicts 'ner/*' --vocab vocab.txt \\
        --paddlenlp PADDLENLP_CHECKOUT --ernie ERNIE_CHECKOUT --large 100 1000 --out benchmarks/results/datagen.md

What is compared is measured in turn (A, B, C, A, B, C, ...), each in a process of its own on one thread; given is the best round,
which other load disturbs least, of ours and of peers alike, and the range; of two workers all rounds together. MB are 1e6 bytes
of raw UTF-8, unpacked, corpus and query log. Ends with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.datagen_inputs import ROOM_FACTOR, Inputs, write_slice
from benchmarks.datagen_peers import Peer, find_peers, peer_seconds
from benchmarks.datagen_rows import Found, all_rows, stages_table
from benchmarks.processes import Run, RunFailed, call_part, run, write_recipe
from benchmarks.report import command_line, machine_facts, markdown, publish
from data_gen.reading.streams import expand_paths
from ernie2.strict import ConfigError, cli, make_folder
from ernie2.tokenizer import Vocab

PARTS = ("jieba", "default", "peers", "tokens", "agreement", "million", "stages", "large")
"""What --only can choose from."""
SLICE_DEV_SHARE = 0.05
WORKER_ROUNDS = 3
"""Rounds of one worker, two, and two runs side by side, for each round of the others: their figures are nearly alike, and
other load on either core disturbs them."""
# MB/s of two rather slow cores, only to say beforehand how long it will take.
_GUESS = {"jieba": 0.5, "cut": 0.7, "ours": 3.0, "paddlenlp": 0.15, "ernie": 0.2, "ErnieTokenizer": 0.6, "perturb": 15.0}


class Bench:
    """The measurements of one run.

    Args:
        args: The command line.
        inputs: Corpus and query log.
        peers: Those to run.
        dictionaries: Entity dictionaries.
        folder: Temporary folder.
    """

    def __init__(self, args: argparse.Namespace, inputs: Inputs, peers: Sequence[Peer], dictionaries: Sequence[Path],
                 folder: Path) -> None:
        self.args, self.inputs, self.peers, self.dictionaries, self.folder = args, inputs, peers, dictionaries, folder
        self.found, self._begin = Found(), time.monotonic()
        for name in ("slice", "small"):
            (folder / name).mkdir()
        self.slice = write_slice(inputs, round(args.slice_mb * 1e6), folder / "slice")
        self.small = write_slice(inputs, round(args.slice_mb * 1e6 / 4), folder / "small")

    def measure(self, series: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Adds a result to a series; a series that failed once is not tried again."""
        if series in self.found.faults:
            return
        try:
            result = function(*args, **kwargs)
        except RunFailed as error:
            self.found.faults[series] = str(error)
            self.say(f"{series}: FAILED: {error}")
            return
        self.found.runs.setdefault(series, []).append(result)
        seconds = result.seconds if isinstance(result, Run) else result
        self.say(f"{series}: {seconds:.1f} s" if isinstance(seconds, float) else f"{series}: {result}"[:150])

    def say(self, text: str) -> None:
        """Prints a line with the minutes since the start."""
        print(f"[{(time.monotonic() - self._begin) / 60:5.1f} min] {text}", flush=True)

    def part(self, series: str, name: str, **arguments: Any) -> None:
        """Measures a function of `benchmarks.datagen_parts`."""
        self.measure(series, call_part, name, self.folder, **arguments)

    def generate(self, series: str, inputs: Inputs, workers: int = 1, dictionaries: Sequence[Path] = (),
                 **settings: Any) -> None:
        """Measures a whole data generation, shards removed afterwards. `settings`: keys of `data` that are no default."""
        self.measure(series, self._generate, self.folder / "generate", inputs, workers, dictionaries, **settings)

    def _generate(self, folder: Path, inputs: Inputs, workers: int = 1, dictionaries: Sequence[Path] = (), **settings: Any) -> Run:
        recipe = write_recipe(folder, self.args.vocab, inputs.corpus, inputs.query_log, dictionaries, **settings)
        try:
            return run([sys.executable, "-m", "data_gen", str(recipe), "--workers", str(workers)])
        finally:
            shutil.rmtree(folder)

    def _side_by_side(self, inputs: Inputs) -> Run:
        """The slower of two data generations at the same time, of one worker each, that share nothing."""
        with ThreadPoolExecutor() as pool:
            runs = pool.map(lambda name: self._generate(self.folder / name, inputs), ("left", "right"))
            return max(runs, key=lambda one: one.seconds)

    def rounds(self) -> None:
        """All that is compared, in turn."""
        corpus, log, wanted = self.inputs.corpus, self.inputs.query_log, self.args.only
        for number in range(self.args.rounds):
            self.say(f"round {number + 1} of {self.args.rounds}")
            if "jieba" in wanted:
                self.generate("jieba", self.inputs, segmenter="jieba")
                self.part("cut", "cut", corpus=corpus, query_log=log)
            if {"default", "peers"} & wanted:
                self.generate("default", self.inputs)
            if "default" in wanted and self.dictionaries:
                self.generate("dictionaries", self.inputs, dictionaries=self.dictionaries)
            if "peers" in wanted and self.peers:
                # So little text has no dev split of every task by default.
                self.generate("slice", self.slice, dev_share=SLICE_DEV_SHARE)
                for peer in self.peers:
                    self.measure(f"{peer.key}_small", self._small_run, peer)
                    self.measure(peer.key, peer_seconds, peer, self.slice.corpus[0], self.args.vocab, self.folder)
            if "tokens" in wanted:
                self.part("tokens", "tokens", corpus=corpus, vocab=self.args.vocab, slice_bytes=round(self.args.slice_mb * 1e6))

    def _small_run(self, peer: Peer) -> dict[str, float]:
        return {"seconds": peer_seconds(peer, self.small.corpus[0], self.args.vocab, self.folder),
                "megabytes": self.small.corpus_bytes / 1e6}

    def once(self) -> None:
        """What is not a matter of speed, or for information."""
        corpus, vocab, wanted = self.inputs.corpus, self.args.vocab, self.args.only
        if "tokens" in wanted:
            self.part("same_tokens", "same_tokens", corpus=corpus, vocab=vocab)
        if "agreement" in wanted:
            self.part("same_words", "same_words", corpus=corpus)
        if "million" in wanted:
            words = self.folder / "million.txt"
            self.part("million_words", "write_million", corpus=corpus, entity_dicts=self.dictionaries, path=words)
            self.part("million", "dictionaries", corpus=corpus, vocab=vocab, entity_dicts=self.dictionaries, million=words,
                      megabytes=self.args.slice_mb, rounds=self.args.rounds)
        if "stages" in wanted:
            recipe = write_recipe(self.folder / "stages", vocab, corpus, self.inputs.query_log)
            self.part("stages", "stages", recipe=recipe, megabytes=self.inputs.megabytes)
            shutil.rmtree(self.folder / "stages")

    def large(self) -> None:
        """Memory and rate on large corpora, of one worker and of two, once each. The smallest several times, and two runs side by
        side on half of it each, which show what the machine itself loses when both its cores are busy."""
        for size in sorted(self.args.large if "large" in self.args.only else ()):
            folder, smallest = self.folder / "large", size == min(self.args.large)
            inputs = self._make_large(size, folder, f"large_{size}")
            half = self._make_large(size / 2, folder / "half", f"half_{size}") if smallest else None
            for _ in range(0 if inputs is None else WORKER_ROUNDS * self.args.rounds if smallest else 1):
                for workers in (1, 2):
                    self.generate(f"large_{size}_{workers}", inputs, workers)
                if half is not None:
                    self.measure(f"large_{size}_beside", self._side_by_side, half)
            shutil.rmtree(folder)

    def _make_large(self, size: float, folder: Path, series: str) -> Inputs | None:
        """A corpus of `size` MB; None where it could not be made."""
        folder.mkdir()
        self.measure(series, self._write_large, size, folder)
        if series in self.found.faults:
            return None
        sizes = self.found.runs[series][0]["bytes"]
        return Inputs(tuple(sorted(folder.glob("corpus-*.txt"))), (folder / "query_log.tsv",), *sizes)

    def _write_large(self, size: float, folder: Path) -> dict[str, Any]:
        free = shutil.disk_usage(folder).free
        if free < ROOM_FACTOR * size * 1e6:
            raise RunFailed(f"{size:g} MB of text take up to {ROOM_FACTOR * size / 1e3:.0f} GB, {free / 1e9:.0f} GB are free in "
                            f"{folder}; name a folder of a larger disk by --scratch")
        made = call_part("large", self.folder, corpus=self.inputs.corpus, query_log=self.inputs.query_log,
                         size=round(size * 1e6), folder=folder)
        sizes = [made["corpus_bytes"], made["log_bytes"]]
        return {"megabytes": sum(sizes) / 1e6, "bytes": sizes}


def guess_minutes(args: argparse.Namespace, megabytes: float, peers: Sequence[Peer], has_dictionaries: bool) -> float:
    """How long it will take, roughly."""
    speed, wanted, part = _GUESS, args.only, min(args.slice_mb, megabytes)
    ours, once = megabytes / speed["ours"] + 3, 0.0
    a_round = 0.0
    if "jieba" in wanted:
        a_round += megabytes / speed["jieba"] + megabytes / speed["cut"]
    a_round += ours * (bool({"default", "peers"} & wanted) + ("default" in wanted and has_dictionaries))
    if "peers" in wanted:
        a_round += sum(1.25 * part / speed[peer.key] + 15 for peer in peers)
    if "tokens" in wanted:
        a_round += part / speed["ErnieTokenizer"] + 0.4 * megabytes + 8
        once += megabytes / speed["ErnieTokenizer"]
    once += ("agreement" in wanted) * megabytes / speed["cut"] + ("million" in wanted) * (part * args.rounds + 15)
    once += ("stages" in wanted) * ours
    for size in args.large if "large" in wanted else ():
        rounds = WORKER_ROUNDS * args.rounds if size == min(args.large) else 1
        once += 1.5 * size / speed["perturb"] + 2.1 * rounds * size / speed["ours"]
    return (a_round * args.rounds + once) / 60


@contextlib.contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A temporary folder that is removed however the run ends, kill -9 excepted."""
    if parent is not None:
        make_folder(parent, "--scratch")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with tempfile.TemporaryDirectory(prefix="datagen_benchmark_", dir=parent) as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datagen", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", help="text files, globs; documents parted by blank lines")
    parser.add_argument("--query-log", nargs="+", required=True, help="query-title files (TSV)")
    parser.add_argument("--entity-dicts", nargs="*", default=[], help="entity and phrase dictionaries")
    parser.add_argument("--vocab", type=Path, required=True, help="vocabulary")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is repeated; default 3")
    parser.add_argument("--large", nargs="*", type=int, default=[], metavar="MB", help="also corpora of so many MB, made of "
                        "perturbed copies; the goals speak of 100 and 1000")
    parser.add_argument("--paddlenlp", type=Path, metavar="DIR", help="checkout of PaddlePaddle/PaddleNLP")
    parser.add_argument("--ernie", type=Path, metavar="DIR", help="checkout of PaddlePaddle/ERNIE")
    parser.add_argument("--slice-mb", type=float, default=4.0, help="MB that slow peers get; default 4")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="leave the rest out")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the temporary folder goes; default: the system's")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="report to write")
    args = parser.parse_args(argv)
    args.only = set(args.only)
    for option, value in (("--rounds", args.rounds), ("--slice-mb", args.slice_mb), *(("--large", size) for size in args.large)):
        if value <= 0:
            raise ConfigError(f"{option}: found {value}, expected more than 0")
    Vocab.load(args.vocab)
    if args.out is not None:
        make_folder(args.out.parent, "--out")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    args = parse_args(argv)
    peers = find_peers(args.paddlenlp, args.ernie)
    dictionaries = expand_paths(args.entity_dicts, "entity dictionary") if args.entity_dicts else []
    dictionaries, args.vocab = [path.absolute() for path in dictionaries], args.vocab.absolute()
    inputs, day = Inputs.of(args.corpus, args.query_log), time.strftime("%Y-%m-%d")
    minutes = guess_minutes(args, inputs.megabytes, peers, bool(dictionaries))
    print(f"{inputs.megabytes:.1f} MB of text; about {max(minutes, 1):.0f} min if the machine does nothing else", flush=True)
    with scratch_folder(args.scratch) as folder:
        facts = machine_facts(folder)
        bench = Bench(args, inputs, peers, dictionaries, folder)
        bench.rounds()
        bench.once()
        bench.large()
    facts += [f"- load average at the end {os.getloadavg()[0]:.2f}",
              f"- text: {inputs.corpus_bytes / 1e6:.1f} MB in {len(inputs.corpus)} files, query log "
              f"{inputs.log_bytes / 1e6:.1f} MB, {len(dictionaries)} dictionaries; peers get "
              f"{bench.slice.corpus_bytes / 1e6:.1f} MB of the text"]
    rows = all_rows(bench.found, inputs, bench.slice, peers, sorted(args.large))
    command = command_line("benchmarks.datagen", argv)
    about = [f"Written {day} by one run of `benchmarks/datagen.py`: the best [range] of {args.rounds} rounds in turn, which other "
             f"load disturbs least, ours and peers' alike; every process on one thread. MB are 1e6 bytes of raw UTF-8.",
             "", "```text", command, "```", "", *facts]
    report = markdown("Data generation: targets and measurements", about, rows, [
        ("Where a megabyte goes (one process, default settings, without its imports)", stages_table(bench.found))])
    return publish(report, rows, args.out)


if __name__ == "__main__":
    main()
