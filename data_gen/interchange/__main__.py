"""`python -m data_gen.interchange COMMAND ...`: examples and pairs of other formats in and out; see
docs/interchange.md."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from data_gen.interchange import baidu, jsonl, pairs
from data_gen.interchange.examples import export_examples, import_examples
from ernie2.config import ConfigError, cli
from ernie2.shards import LEVELS, SPLITS, ShardReader
from ernie2.tasks import load_tasks, select_tasks
from ernie2.tokenizer import Vocab


def import_baidu(args: argparse.Namespace) -> None:
    """Baidu's text format to the shards of a task."""
    task = select_tasks([args.task], "--task")[0]
    labels = baidu.import_labels(task, args.language, args.labels)
    note = "pair label dropped" if labels is None else None
    parse = lambda text, _: baidu.parse_line(text, labels)  # noqa: E731
    import_examples(args, task, parse, {"format": "baidu", "labels": labels}, note)


def import_jsonl(args: argparse.Namespace) -> None:
    """Examples as .jsonl to the shards of a task."""
    import_examples(args, select_tasks([args.task], "--task")[0], jsonl.parse_line, {"format": "jsonl"})


def export_baidu(args: argparse.Namespace) -> None:
    """The shards of a task to Baidu's text format."""
    reader = ShardReader(args.shards, args.split)
    if f"span_ids_{args.level}" not in reader.index["fields"]:
        raise ConfigError(f"{args.shards}: no masked LM and so no units, which this format needs")
    task = load_tasks().get(reader.index["task"])
    labels = args.labels or task and baidu.export_labels(task, reader.index["language"])
    export_examples(reader, args.to, partial(baidu.format_line, level=args.level, labels=labels))


def export_jsonl(args: argparse.Namespace) -> None:
    """The shards of a task to .jsonl."""
    reader = ShardReader(args.shards, args.split)
    vocab = None if args.ids_only else Vocab.load(args.vocab or args.shards.parent / "vocab.txt")
    if vocab is not None and vocab.digest != reader.index.get("vocab_digest"):
        raise ConfigError(f"--vocab: not the vocabulary of {args.shards}; name that one, or --ids-only")
    export_examples(reader, args.to, partial(jsonl.format_line, vocab=vocab))


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a share between 0 and 1")
    return float(text)


def _numbers(text: str) -> dict[int, int]:
    """`1=0,0=2`."""
    return {int(key): int(value) for key, value in (item.split("=") for item in text.split(","))}


def _columns(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_gen.interchange", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, add_options in (
        (import_baidu, _import_options),
        (export_baidu, _export_options),
        (import_jsonl, _import_options),
        (export_jsonl, _export_options),
        (pairs.import_discovery, _pair_options),
        (pairs.import_clicks, _pair_options),
        (pairs.import_t2ranking, _pair_options),
    ):
        name = function.__name__.replace("_", "-")
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(function=function)
        add_options(command.add_argument, name)
    return parser


def _import_options(add: Callable, command: str) -> None:
    add("files", nargs="+", help="files or globs, plain, .gz, .bz2 or .zst")
    add("--to", type=Path, required=True, help="folder of shards")
    add("--task", required=True, help="task the examples are for: tasks/pretrain/<task>.yaml")
    add("--vocab", type=Path, required=True, help="vocabulary of the token ids")
    add("--dev", nargs="+", default=[], help="files of the dev split; default: --dev-share of all examples")
    add("--dev-share", type=_share, default=0.005, help="by a hash of the tokens; default 0.005")
    add("--language", choices=("zh", "en"), default="zh")
    add("--max-seq-len", type=int, default=512, help="longer examples are rejected; default 512")
    add("--seed", type=int, default=1, help="of the order; default 1")
    add("--keep-order", action="store_true", help="do not shuffle: the files are shuffled already")
    add("--max-reject-share", type=_share, default=0.01, help="most lines that may be bad; default 0.01")
    if command == "import-baidu":
        add("--labels", type=_numbers, help="Baidu's label = class of the task, for example 1=0,0=2")


def _export_options(add: Callable, command: str) -> None:
    add("shards", type=Path, help="<shards_dir>/<task>")
    add("--to", type=Path, required=True, help="file to write; gzip where it ends in .gz")
    add("--split", choices=SPLITS, default="train")
    if command == "export-baidu":
        add("--labels", type=_numbers, help="class of the task = Baidu's label; default: the class itself")
        add("--level", choices=LEVELS, default="word", help="units of seg_labels; default word")
    else:
        add("--vocab", type=Path, help="vocabulary; default <shards_dir>/vocab.txt")
        add("--ids-only", action="store_true", help="no tokens, ids only")


def _pair_options(add: Callable, command: str) -> None:
    add("--to", type=Path, required=True, help="TSV to write; gzip where it ends in .gz")
    add("--max-reject-share", type=_share, default=0.1, help="most rows that may be bad; default 0.1")
    if command == "import-t2ranking":
        for name in ("--qrels", "--queries", "--collection"):
            add(name, nargs="+", required=True, help="files or globs")
        add("--grades", type=_numbers, default="3=2,2=2,1=1", help="grade = relevance; default 3=2,2=2,1=1")
        add("--max-chars", type=int, default=500, help="kept of a passage; default 500")
        return
    add("files", nargs="+", help="files or globs")
    add("--columns", type=_columns, help="names of the columns of files without a header: a,b,c")
    if command == "import-discovery":
        add("--language", choices=("zh", "en"), default="en", help="list of connectives; default en")
    else:
        add("--min-rate", type=_share, default=0.0, help="least click-through rate; default: one click")
        add("--min-shows", type=int, default=1, help="least shows of an unclicked pair; default 1")


@cli
def main(argv: Sequence[str]) -> int:
    """Imports and exports examples and pairs of other formats."""
    args = _parser().parse_args(argv)
    try:
        args.function(args)
    except (OSError, sqlite3.OperationalError) as error:
        raise ConfigError(
            f"--to: {args.to} cannot be written ({error}); make room, or name another"
        ) from error
    return 0


if __name__ == "__main__":
    main()
