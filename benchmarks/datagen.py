"""Every target of data generation beside its measured value, in one run: speed, memory, workers, agreement,
peers.

    python -m benchmarks.datagen 'corpus/zh/*.txt.gz' --query-log qbqtc.tsv.gz --entity-dicts 'ner/*' --vocab
    vocab.txt \\
        --paddlenlp PADDLENLP_CHECKOUT --ernie ERNIE_CHECKOUT --large 100 1000 --out
        benchmarks/results/datagen.md

What is compared is measured in turn (A, B, C, A, B, C, ...), each in a process of its own on one thread;
given is the best round, which other load disturbs least, of ours and of peers alike, and the range; of two
workers all rounds together. MB are 1e6 bytes of raw UTF-8, uncompressed, corpus and query log. Ends with 1
where a target is missed."""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.datagen_peers import PEERS, Peer
from benchmarks.datagen_rows import all_rows
from benchmarks.datagen_text import Text, write_slice
from benchmarks.harness import MISSED, Found, Run, RunFailed, run, say
from data_gen.reading.streams import expand_paths
from ernie2.strict import ConfigError, cli, make_folder
from ernie2.tokenizer import Vocab

PARTS = ("jieba", "default", "peers", "tokens", "agreement", "million", "large")
"""What --only can choose from."""
TASKS = (
    "knowledge_masking",
    "sentence_reordering",
    "sentence_distance",
    "discourse_relation",
    "ir_relevance",
)
"""The paper's five Chinese tasks."""
SLICE_DEV_SHARE = 0.05  # so little text has no dev split of every task by default
WORKER_ROUNDS = 3
"""Rounds of one worker, two, and two runs side by side, for each round of the others: their figures are
nearly alike, and other load on either core disturbs them."""
ROOM_FACTOR = 15  # disk that data generation takes, with the corpus, over the bytes of text


def write_recipe(
    folder: Path, vocab: Path, text: Text, dictionaries: Sequence[Path] = (), **settings: Any
) -> Path:
    """Writes a recipe of TASKS, every setting but the paths and `settings` (keys of `data`) at its
    default."""
    keys = {"out_dir": folder / "out", "model.vocab_file": vocab, "data.shards_dir": folder / "shards"}
    keys |= {"data.corpus": text.corpus, "data.query_log": text.query_log}
    keys |= {"data.entity_dicts": dictionaries} if dictionaries else {}
    keys |= {f"data.{key}": value for key, value in settings.items()}
    keys |= {"curriculum.stages": [[task] for task in TASKS], "curriculum.steps_per_task": 1000}
    return harness.write_recipe(folder / "recipe.yaml", keys)


class Bench:
    """The measurements of one run."""

    def __init__(self, args: argparse.Namespace, text: Text, folder: Path) -> None:
        self.args, self.text, self.folder, self.found = args, text, folder, Found()
        self.slice = write_slice(text, args.slice_mb * 1e6, folder / "slice")
        self.small = write_slice(text, args.slice_mb * 1e6 / 4, folder / "small")
        self.call = functools.partial(harness.call, "benchmarks.datagen_parts")

    def part(self, name: str, **arguments: Any) -> None:
        """Measures a function of `benchmarks.datagen_parts` on the corpus."""
        self.found.measure(name, self.call, name, self.folder, corpus=self.text.corpus, **arguments)

    def generate(self, text: Text, workers: int = 1, name: str = "generate", **recipe: Any) -> Run:
        """A whole data generation, in a folder that is removed afterwards; `recipe` as in `write_recipe`."""
        path = write_recipe(self.folder / name, self.args.vocab, text, **recipe)
        try:
            return run([sys.executable, "-m", "data_gen", path, "--workers", workers])
        finally:
            shutil.rmtree(path.parent)

    def side_by_side(self, text: Text) -> Run:
        """The slower of two data generations at the same time, of one worker each, that share nothing."""
        with ThreadPoolExecutor() as pool:
            runs = pool.map(lambda name: self.generate(text, name=name), ("left", "right"))
            return max(runs, key=lambda one: one.seconds)

    def round(self) -> None:
        """All that is compared, once each."""
        measure, wanted, text = self.found.measure, self.args.only, self.text
        if "jieba" in wanted:
            measure("jieba", self.generate, text, segmenter="jieba")
            self.part("cut", query_log=text.query_log)
        if {"default", "peers"} & wanted:
            measure("default", self.generate, text)
        if "default" in wanted and self.args.entity_dicts:
            measure("dictionaries", self.generate, text, dictionaries=self.args.entity_dicts)
        if "peers" in wanted and self.args.peers:
            measure("slice", self.generate, self.slice, dev_share=SLICE_DEV_SHARE)
        for peer, checkout in self.args.peers.items() if "peers" in wanted else ():
            for series, part in ((f"{peer.key}_small", self.small), (peer.key, self.slice)):
                measure(series, peer.seconds, checkout, part.corpus[0], self.args.vocab, self.folder)
        if "tokens" in wanted:
            self.part("tokens", vocab=self.args.vocab, slice_bytes=self.args.slice_mb * 1e6)

    def once(self) -> None:
        """What is not a matter of speed, or for information."""
        vocab, wanted, words = self.args.vocab, self.args.only, self.folder / "million.txt"
        if "tokens" in wanted:
            self.part("same_tokens", vocab=vocab)
        if "agreement" in wanted:
            self.part("same_words")
        if "million" in wanted:
            self.part("million_words", entity_dicts=self.args.entity_dicts, path=words)
            costs = {
                "entity_dicts": self.args.entity_dicts,
                "million": words,
                "size": self.args.slice_mb * 1e6,
            }
            self.found.measure(
                "million",
                self.call,
                "dictionaries",
                self.folder,
                corpus=self.text.corpus,
                vocab=vocab,
                **costs,
            )

    def large(self, size: int, rounds: int) -> None:
        """Memory and rate on `size` MB, of one worker and of two; with several rounds, also two runs side
        by side on half of it each, which show what the machine itself loses when both its cores are
        busy."""
        texts = {"half": self.make_large(size / 2, "half")} if rounds > 1 else {}
        texts["whole"] = self.make_large(size, f"large_{size}")
        for _ in range(rounds if None not in texts.values() else 0):
            for workers in (1, 2):
                self.found.measure(f"large_{size}_{workers}", self.generate, texts["whole"], workers)
            if "half" in texts:
                self.found.measure(f"large_{size}_beside", self.side_by_side, texts["half"])
        for name in ("half", f"large_{size}"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def make_large(self, size: float, name: str) -> Text | None:
        """A corpus of `size` MB in a folder of this name; None where it could not be made."""
        self.found.measure(name, self._write_large, size * 1e6, self.folder / name)
        return self.found.runs[name][0] if self.found.has(name) else None

    def _write_large(self, size: float, folder: Path) -> Text:
        folder.mkdir()
        free, wanted = shutil.disk_usage(folder).free, ROOM_FACTOR * size
        if free < wanted:
            found = (
                f"{size / 1e6:g} MB of text take up to {wanted / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
            )
            raise RunFailed(f"{found} in {folder}; name a folder of a larger disk by --scratch")
        given = {"corpus": self.text.corpus, "query_log": self.text.query_log}
        sizes = harness.call(
            "benchmarks.datagen_text", "write_large", folder, **given, size=round(size), folder=folder
        )
        return Text(tuple(sorted(folder.glob("corpus-*.txt"))), (folder / "query_log.tsv",), **sizes)


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.datagen", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("corpus", nargs="+", help="text files, globs; documents separated by blank lines")
    add("--query-log", nargs="+", required=True, help="query-title files (TSV)")
    add("--entity-dicts", nargs="*", default=[], help="entity and phrase dictionaries")
    add("--vocab", type=Path, required=True, help="vocabulary")
    add("--rounds", type=int, default=3, help="how often everything is repeated; default 3")
    add(
        "--large",
        nargs="*",
        type=int,
        default=[],
        metavar="MB",
        help="also corpora of so many MB, made of perturbed copies; the targets speak of 100 and 1000",
    )
    add("--paddlenlp", type=Path, metavar="DIR", help="checkout of PaddlePaddle/PaddleNLP")
    add("--ernie", type=Path, metavar="DIR", help="checkout of PaddlePaddle/ERNIE")
    add("--slice-mb", type=float, default=4.0, help="MB that slow peers get; default 4")
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="leave the rest out")
    add("--scratch", type=Path, metavar="DIR", help="where the temporary folder goes; default: the system's")
    add("--out", type=Path, metavar="FILE.md", help="report to write")
    args = parser.parse_args(argv)
    for option, value in (
        ("--rounds", args.rounds),
        ("--slice-mb", args.slice_mb),
        *(("--large", one) for one in args.large),
    ):
        if value <= 0:
            raise ConfigError(f"{option}: found {value}, expected more than 0")
    args.only, args.vocab = set(args.only), args.vocab.absolute()
    Vocab.load(args.vocab)
    if args.entity_dicts:
        args.entity_dicts = [path.absolute() for path in expand_paths(args.entity_dicts, "entity dictionary")]
    args.peers: dict[Peer, Path] = {
        peer: getattr(args, peer.key) for peer in PEERS if getattr(args, peer.key)
    }
    for peer, checkout in args.peers.items():
        peer.check(checkout)
    if args.out is not None:
        make_folder(args.out.parent, "--out")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    args = parse_args(argv)
    text = Text.of(args.corpus, args.query_log)
    with harness.scratch_folder(args.scratch) as folder:
        facts, bench = harness.machine_facts(folder), Bench(args, text, folder)
        for number in range(args.rounds):
            say(f"round {number + 1} of {args.rounds}, {text.megabytes:.1f} MB of text")
            bench.round()
        bench.once()
        for size in sorted(args.large if "large" in args.only else ()):
            bench.large(size, WORKER_ROUNDS * args.rounds if size == min(args.large) else 1)
    corpus, log = (f"{size / 1e6:.1f} MB" for size in (text.corpus_bytes, text.log_bytes))
    sizes = f"{corpus} in {len(text.corpus)} files, query log {log}"
    peers = f"peers get {bench.slice.corpus_bytes / 1e6:.1f} MB of the text"
    facts.append(f"- text: {sizes}, {len(args.entity_dicts)} dictionaries; {peers}")
    rows = all_rows(bench.found, text, bench.slice, bench.small, args.peers, sorted(args.large))
    how = (
        f"the best [range] of {args.rounds} rounds in turn, which other load disturbs least, ours and peers' "
        "alike; every process on one thread. MB are 1e6 bytes of raw UTF-8."
    )
    about = harness.about("benchmarks.datagen", argv, how, facts)
    report = harness.page("Data generation: targets and measurements", [*about, *harness.targets(rows)], [])
    harness.publish(report, args.out)
    return int(any(row.verdict == MISSED for row in rows))


if __name__ == "__main__":
    main()
