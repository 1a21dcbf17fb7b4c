"""`python -m data_gen.interchange COMMAND ...`: examples and pairs of other formats in and out; see
docs/interchange.md."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Sequence
from pathlib import Path

from data_gen.interchange import baidu, jsonl, pairs
from data_gen.interchange.examples import Target, import_examples
from ernie2.config import ConfigError, cli
from ernie2.shards import LEVELS, SPLITS, read_index
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Vocab


def import_baidu(args: argparse.Namespace) -> None:
    """Baidu's text format to the shards of a task."""
    target, notes = _target(args), {}
    labels = baidu.labels_for(target.task, args.language, _mapping(args.labels, "--labels"))
    parse = baidu.parser(labels, notes)
    import_examples(args.files, args.dev, target, parse, {"format": "baidu", "labels": labels}, notes)


def import_jsonl(args: argparse.Namespace) -> None:
    """Examples as .jsonl to the shards of a task."""
    import_examples(args.files, args.dev, _target(args), jsonl.parser, {"format": "jsonl"}, {})


def export_baidu(args: argparse.Namespace) -> None:
    """The shards of a task to Baidu's text format."""
    labels = _mapping(args.labels, "--labels")
    count = baidu.export_lines(args.shards, args.split, args.to, args.level, labels)
    print(f"{count:,} lines in {args.to}")


def export_jsonl(args: argparse.Namespace) -> None:
    """The shards of a task to .jsonl."""
    read_index(args.shards)
    path = args.vocab or args.shards.parent / "vocab.txt"
    count = jsonl.export_lines(args.shards, args.split, args.to, None if args.ids_only else Vocab.load(path))
    print(f"{count:,} lines in {args.to}")


def _target(args: argparse.Namespace) -> Target:
    if not 0 < args.dev_share < 1:
        raise ConfigError(f"--dev-share: found {args.dev_share}, expected a share between 0 and 1")
    return Target(
        args.to,
        select_tasks([args.task], "--task")[0],
        args.vocab,
        args.language,
        args.max_seq_len,
        args.dev_share,
        args.seed,
        args.keep_order,
        args.max_reject_share,
    )


def _columns(text: str) -> list[str]:
    return text.split(",")


def _mapping(text: str | None, option: str) -> dict[int, int] | None:
    """`1=0,0=2` as numbers. Raises ConfigError."""
    if text is None:
        return None
    try:
        return {int(key): int(value) for key, value in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise ConfigError(f"{option}: found {text!r}, expected numbers such as 1=0,0=2") from None


def _grades(text: str) -> dict[int, str]:
    """`3=strong,...` as grade -> kind."""
    items = [item.partition("=") for item in text.split(",")]
    if not all(grade.isdigit() and kind in pairs.RELEVANCE for grade, _, kind in items):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected such as {GRADES}")
    return {int(grade): kind for grade, _, kind in items}


GRADES = "3=strong,2=strong,1=weak,0=none"
COMMANDS = (
    import_baidu,
    export_baidu,
    import_jsonl,
    export_jsonl,
    pairs.import_discovery,
    pairs.import_clicks,
    pairs.import_t2ranking,
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_gen.interchange", description=main.__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for function in COMMANDS:
        name, help_text = function.__name__.replace("_", "-"), function.__doc__
        command = subparsers.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(function=function)
        if function in (import_baidu, import_jsonl):
            _add_import(command)
        elif function in (export_baidu, export_jsonl):
            _add_export(command)
        else:
            _add_pairs(command, function is pairs.import_t2ranking)
        _add_own(command, name)
    return parser


def _add_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", help="files or globs, plain, .gz, .bz2 or .zst")
    add("--to", type=Path, required=True, help="folder of shards")
    add("--task", required=True, help="task the examples are for: tasks/pretrain/<task>.yaml")
    add("--vocab", type=Path, required=True, help="vocabulary of the token ids")
    add("--dev", nargs="+", default=[], help="files of the dev split; default: --dev-share of all examples")
    add("--dev-share", type=float, default=0.005, help="by a hash of the tokens; default 0.005")
    add("--language", choices=("zh", "en"), default="zh")
    add("--max-seq-len", type=int, default=512, help="longer examples are rejected; default 512")
    add("--seed", type=int, default=1, help="of the order; default 1")
    add("--keep-order", action="store_true", help="do not shuffle: the files are shuffled already")
    add("--max-reject-share", type=float, default=0.01, help="most lines that may be bad; default 0.01")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", type=Path, help="<shards_dir>/<task>")
    parser.add_argument("--to", type=Path, required=True, help="file to write; gzip where it ends in .gz")
    parser.add_argument("--split", choices=SPLITS, default="train")


def _add_pairs(parser: argparse.ArgumentParser, three_kinds_of_files: bool) -> None:
    if three_kinds_of_files:
        for name in ("--qrels", "--queries", "--collection"):
            parser.add_argument(name, nargs="+", required=True, help="files or globs")
    else:
        parser.add_argument("files", nargs="+", help="files or globs")
        parser.add_argument(
            "--columns", type=_columns, help="names of the columns of files without a header: a,b,c"
        )
    parser.add_argument("--to", type=Path, required=True, help="TSV to write; gzip where it ends in .gz")
    parser.add_argument("--max-reject-share", type=float, default=0.1, help="most bad rows; default 0.1")


def _add_own(parser: argparse.ArgumentParser, command: str) -> None:
    """The options of one command alone."""
    add = parser.add_argument
    if command == "import-baidu":
        add("--labels", help="Baidu's label = class of the task, for example 1=0,0=2")
    elif command == "export-baidu":
        add("--labels", help="class of the task = Baidu's label; default: the class itself")
        add("--level", choices=LEVELS, default="word", help="units of seg_labels; default word")
    elif command == "export-jsonl":
        add("--vocab", type=Path, help="vocabulary; default <shards_dir>/vocab.txt")
        add("--ids-only", action="store_true", help="no tokens, ids only")
    elif command == "import-discovery":
        add("--language", choices=("zh", "en"), default="en", help="list of connectives; default en")
    elif command == "import-clicks":
        add("--min-rate", type=float, help="least click-through rate; default: one click is enough")
        add("--min-shows", type=int, default=1, help="least shows of an unclicked pair; default 1")
    elif command == "import-t2ranking":
        add("--grades", type=_grades, default=GRADES, help=f"default {GRADES}")
        add("--max-chars", type=int, default=500, help="kept of a passage; default 500")


@cli
def main(argv: Sequence[str]) -> int:
    """Imports and exports examples and pairs of other formats."""
    args = _parser().parse_args(argv)
    try:
        args.function(args)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"--to: no space left for {args.to}, which is not written; make room and run it again"
        ) from error
    return 0


if __name__ == "__main__":
    main()
