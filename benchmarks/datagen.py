"""Every target of data generation beside its measured value, in one run: speed, memory, workers, agreement,
peers.

    python -m benchmarks.datagen 'corpus/zh/*.txt.gz' --query-log qbqtc.tsv.gz --entity-dicts 'ner/*' \\
        --vocab vocab.txt --paddlenlp PADDLENLP_CHECKOUT --ernie ERNIE_CHECKOUT --large 100 1000 \\
        --out benchmarks/results/datagen.md

What is compared is measured in turn (A, B, C, A, B, C, ...), each in a process of its own on one thread;
shown is the best round, which other load disturbs least, of ours and of peers alike, and the range; of two
workers all rounds together. MB are 1e6 bytes of raw UTF-8, uncompressed, corpus and query log. Ends with 1
where a target is missed."""

import argparse
import functools
import importlib.util
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.datagen_peers import PEERS, Peer, find
from benchmarks.datagen_text import Text
from benchmarks.harness import MISSED, Results, Row, Run, column, run, say
from data_gen.reading.streams import expand_paths
from ernie2.strict import cli
from ernie2.tokenizer import Vocab

PARTS = ("default", "jieba", "peers", "tokens", "million", "large")
TASKS = "knowledge_masking sentence_reordering sentence_distance discourse_relation ir_relevance".split()
SECONDS = harness.column("seconds")
LARGE_ROUNDS = 3  # of one and two workers for each round of the others: their figures are nearly alike


class Bench:
    """The measurements of one run."""

    def __init__(self, args: argparse.Namespace, text: Text, folder: Path) -> None:
        self.args, self.text, self.folder, self.results = args, text, folder, Results()
        self.slice = self.resized(args.slice_mb, "slice")
        self.start = self.resized(args.slice_mb / 4, "start")  # shows what of a peer's time is its start-up

    def resized(self, megabytes: float, name: str) -> Text:
        """A text of another size, in a folder of this name."""
        folder, files = self.folder / name, {"corpus": self.text.corpus, "query_log": self.text.query_log}
        harness.call("benchmarks.datagen_text", "write_text", **files, megabytes=megabytes, folder=folder)
        return Text.of([folder / "corpus_*"], [folder / "query_*"])

    def generate(self, text: Text, workers: int = 1, name: str = "generate", **data: Any) -> Run:
        """A whole data generation, every setting but the paths and `data` at its default."""
        folder = self.folder / name
        data |= {"corpus": text.corpus, "query_log": text.query_log, "shards_dir": folder / "shards"}
        keys = {f"data.{key}": value for key, value in data.items()}
        keys |= {"out_dir": folder / "out", "model.vocab_file": self.args.vocab}
        keys |= {"curriculum.stages": [[task] for task in TASKS], "curriculum.steps_per_task": 1000}
        try:
            recipe = harness.write_recipe(folder / "recipe.yaml", keys)
            return run([sys.executable, "-m", "data_gen", recipe, "--workers", workers])
        finally:
            shutil.rmtree(folder)

    def side_by_side(self, text: Text) -> Run:
        """The slower of two data generations at the same time, of one worker each, that share nothing."""
        with ThreadPoolExecutor() as pool:
            runs = pool.map(lambda name: self.generate(text, name=name), ("left", "right"))
            return max(runs, key=lambda one: one.seconds)

    def part(self, name: str, text: Text, **arguments: Any) -> None:
        """Measures a function of benchmarks/datagen_parts.py."""
        call = functools.partial(harness.call, "benchmarks.datagen_parts", name)
        self.results.measure(name, call, corpus=text.corpus, **arguments)

    def round(self) -> None:
        """All but the large corpora, once each."""
        measure, args, text = self.results.measure, self.args, self.text
        if {"default", "peers"} & args.only:
            measure("default", self.generate, text)
        if "jieba" in args.only:
            measure("jieba", self.generate, text, segmenter="jieba")
            self.part("words", text, query_log=text.query_log)
        if "peers" in args.only and args.peers:
            measure("slice", self.generate, self.slice, dev_share=0.05)  # too little text for the default
        for peer, checkout in args.peers.items() if "peers" in args.only else ():
            for series, part in ((f"{peer.key}_start", self.start), (peer.key, self.slice)):
                measure(series, peer.run, checkout, part, args.vocab, self.folder)
        if "tokens" in args.only:
            self.part("tokens", text, vocab=args.vocab)
            if importlib.util.find_spec("paddlenlp"):
                self.part("paddlenlp_tokens", text, vocab=args.vocab)
        if "million" in args.only:
            self.part("million", self.slice, vocab=args.vocab, entity_dicts=args.entity_dicts)

    def large(self, size: int, rounds: int) -> None:
        """One worker, two, and with several rounds two runs side by side, which show what the machine itself
        loses when both its cores are busy."""
        text = self.resized(size, f"large_{size}")
        for _ in range(rounds):
            for workers in (1, 2):
                self.results.measure(f"large_{size}_{workers}", self.generate, text, workers)
            if rounds > 1:
                self.results.measure(f"large_{size}_beside", self.side_by_side, text)
        shutil.rmtree(text.corpus[0].parent)


def all_rows(bench: Bench) -> list[Row]:
    """The table of targets."""
    rows = [*_rows(bench), *(_peer_row(bench, peer) for peer in PEERS)]
    for size in sorted(bench.args.large):
        rows += _large_rows(bench, size)
    return rows


def _rows(bench: Bench) -> Iterator[Row]:
    row, size, nlp = bench.results.row, bench.text.megabytes, "PaddleNLP's ErnieTokenizer"

    what = "data generation with jieba / jieba.cut alone, same text"
    yield row(what, ("jieba", "words"), lambda ours, alone: [_best(ours) / _best(alone)], "<= 1.3", 3)
    what = "data generation, default settings, 1 worker, whole process"
    yield row(what, ("default",), lambda runs: [size / one for one in SECONDS(runs)], ">= 3 MB/s")
    for what, series, key, factor, wanted, digits in (
        ("annotation slower with a million dictionary words", "million", "slower", 100, "<= 20 %", 1),
        ("loading a million dictionary words", "million", "load_seconds", 1, "<= 10 s", 1),
        ("tokenization, nothing remembered before", "tokens", "rate", 1, ">= 10 MB/s", 1),
        (f"{nlp}, line by line", "paddlenlp_tokens", "rate", 1, "MB/s", 2),
        (f"lines with the same ids as by {nlp}", "paddlenlp_tokens", "same", 100, ">= 100 %", 4),
        ("sentences that the default segmenter cuts like jieba", "words", "same", 100, ">= 99.9 %", 4),
    ):
        yield row(what, (series,), column(key, factor), wanted, digits)


def _peer_row(bench: Bench, peer: Peer) -> Row:
    """Without the start-up of either, as the difference of two sizes of text shows it. The best of each size:
    a quick round of the larger after a slow one of the smaller is no rate."""
    ours, theirs = ("default", "slice"), (peer.key, f"{peer.key}_start")
    more = bench.text.megabytes - bench.slice.megabytes
    their_more = bench.slice.corpus_mb - bench.start.corpus_mb

    def rate(megabytes: float, large: list[Any], small: list[Any]) -> float:
        seconds = _best(large) - _best(small)
        return megabytes / seconds if seconds > 0 else math.nan

    def ratio(*series: list[Any]) -> list[float]:
        return [rate(more, *series[:2]) / rate(their_more, *series[2:])]

    what = f"times as fast as {peer.name}, without start-up"
    return bench.results.row(what, ours + theirs, ratio, f">= {peer.times:g}", 1)


def _large_rows(bench: Bench, size: int) -> Iterator[Row]:
    row, text = bench.results.row, f"{size:,} MB of text"
    one, two, beside = ((f"large_{size}_{name}",) for name in ("1", "2", "beside"))
    for workers, name in (("1 worker", one), ("2 workers", two)):
        what = f"peak memory, {text}, {workers}, largest process"
        yield row(what, name, lambda runs: [max(one.peak_mb for one in runs)], "<= 600 MB", 0)
        what = f"rate, {text}, {workers}"
        yield row(what, name, lambda runs: [size / one for one in SECONDS(runs)], "MB/s")
    if size == min(bench.args.large):
        # Rounds together: runs that are nearly alike differ less than the machine's speed between rounds.
        what = f"efficiency of 2 workers, {text}, beside two runs at once that share nothing"
        share = lambda apart, ours: [50 * sum(SECONDS(apart)) / sum(SECONDS(ours))]  # noqa: E731
        yield row(what, beside + two, share, ">= 95 %", 1)


def _best(runs: list[Any]) -> float:
    return min(SECONDS(runs))


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    parser = harness.parser("benchmarks.datagen", __doc__)
    add, size = parser.add_argument, {"type": harness.positive, "metavar": "MB"}
    add("corpus", nargs="+", help="text files, globs; documents separated by blank lines")
    add("--query-log", nargs="+", required=True, help="query-title files (TSV)")
    add("--entity-dicts", nargs="*", default=[], help="entity and phrase dictionaries")
    add("--vocab", type=Path, required=True, help="vocabulary")
    add("--large", nargs="*", default=[], **size, help="perturbed copies; the targets speak of 100 1000")
    add("--slice-mb", default=4, **size, help="how much text slow peers get; default 4")
    for peer in PEERS:
        add(f"--{peer.key}", type=Path, metavar="DIR", help=f"checkout of {peer.name}")
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="leave the rest out")
    args = parser.parse_args(argv)
    args.only, args.vocab = set(args.only), args.vocab.absolute()
    Vocab.load(args.vocab)
    if args.entity_dicts:
        args.entity_dicts = [path.absolute() for path in expand_paths(args.entity_dicts, "entity dictionary")]
    args.peers = {peer: getattr(args, peer.key) for peer in PEERS if getattr(args, peer.key)}
    for peer, checkout in args.peers.items():
        for name in peer.files:
            find(checkout, name)
    text = Text.of(args.corpus, args.query_log)
    with harness.scratch_folder(args.out) as folder:
        facts, bench = harness.machine_facts(), Bench(args, text, folder)
        for number in range(args.rounds):
            say(f"round {number + 1} of {args.rounds}, {text.megabytes:.1f} MB of text")
            bench.round()
        for size in sorted(args.large if "large" in args.only else ()):
            bench.large(size, LARGE_ROUNDS * args.rounds if size == min(args.large) else 1)
    facts.append(f"- {text.megabytes:.1f} MB of text, {len(args.entity_dicts)} dictionaries")
    facts.append(f"- the best [range] of {args.rounds} rounds in turn; every process on one thread")
    rows = all_rows(bench)
    harness.publish("benchmarks.datagen", argv, facts, [harness.targets(rows)], args.out)
    return int(any(row.verdict == MISSED for row in rows))


if __name__ == "__main__":
    main()
