"""`python -m data_gen.interchange COMMAND ...`: examples and pairs of other formats in and out; see docs/interchange.md."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Sequence
from pathlib import Path

from data_gen.interchange import baidu, click_log, discovery, jsonl, t2ranking
from data_gen.interchange.examples_in import Target, import_examples
from ernie2.config import ConfigError, cli
from ernie2.shards import LEVELS, SPLITS, read_index
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Vocab


def import_baidu(args: argparse.Namespace) -> None:
    """Baidu's text format to the shards of a task."""
    target, notes = _target(args), {}
    labels = baidu.labels_for(target.task, _mapping(args.labels, "--labels"))
    import_examples(args.files, args.dev, target, baidu.parser(labels, notes), {"format": "baidu", "labels": labels}, notes)


def import_jsonl(args: argparse.Namespace) -> None:
    """Examples as .jsonl to the shards of a task."""
    import_examples(args.files, args.dev, _target(args), jsonl.parser, {"format": "jsonl"}, {})


def export_baidu(args: argparse.Namespace) -> None:
    """The shards of a task to Baidu's text format."""
    count = baidu.export_lines(args.shards, args.split, args.to, args.level, _mapping(args.labels, "--labels"))
    print(f"{count:,} lines in {args.to}")


def export_jsonl(args: argparse.Namespace) -> None:
    """The shards of a task to .jsonl."""
    read_index(args.shards)
    path = args.vocab or args.shards.parent / "vocab.txt"
    count = jsonl.export_lines(args.shards, args.split, args.to, None if args.ids_only else Vocab.load(path))
    print(f"{count:,} lines in {args.to}")


def import_discovery(args: argparse.Namespace) -> None:
    """Sentence pairs with their connective to the TSV of data.marked_pairs."""
    discovery.import_pairs(args.files, args.to, args.language, _columns(args), args.max_reject_share)


def import_clicks(args: argparse.Namespace) -> None:
    """Click logs to the TSV of data.query_log."""
    click_log.import_clicks(args.files, args.to, _columns(args), args.min_rate, args.min_shows, args.max_reject_share)


def import_t2ranking(args: argparse.Namespace) -> None:
    """Graded relevance in T2Ranking's form to the TSV of data.query_log."""
    t2ranking.import_graded(args.qrels, args.queries, args.collection, args.to, _grades(args.grades), args.max_chars,
                            args.max_reject_share)


def _target(args: argparse.Namespace) -> Target:
    if not 0 < args.dev_share < 1:
        raise ConfigError(f"--dev-share: found {args.dev_share}, expected a share between 0 and 1")
    task = select_tasks([args.task], "--task")[0]
    return Target(args.to, task, args.vocab, args.language, args.max_seq_len, args.dev_share, args.seed, args.keep_order,
                  args.max_reject_share)


def _columns(args: argparse.Namespace) -> list[str] | None:
    return args.columns.split(",") if args.columns else None


def _mapping(text: str | None, option: str) -> dict[int, int] | None:
    """`1=0,0=2` as numbers. Raises ConfigError."""
    if text is None:
        return None
    try:
        return {int(key): int(value) for key, value in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise ConfigError(f"{option}: found {text!r}, expected numbers such as 1=0,0=2") from None


def _grades(text: str | None) -> dict[int, str] | None:
    """`3=strong,...` as grade -> kind. Raises ConfigError."""
    if text is None:
        return None
    items = [item.partition("=") for item in text.split(",")]
    if not all(grade.isdigit() and kind in t2ranking.RELEVANCE for grade, _, kind in items):
        raise ConfigError(f"--grades: found {text!r}, expected such as 3=strong,2=strong,1=weak,0=none")
    return {int(grade): kind for grade, _, kind in items}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_gen.interchange", description=main.__doc__)
    subparsers, commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND"), {}
    for function in (import_baidu, import_jsonl, export_baidu, export_jsonl, import_discovery, import_clicks, import_t2ranking):
        name = function.__name__.replace("_", "-")
        commands[name] = subparsers.add_parser(name, help=function.__doc__, description=function.__doc__)
        commands[name].set_defaults(function=function)
    for name in ("import-baidu", "import-jsonl"):
        _add_import(commands[name])
    for name in ("export-baidu", "export-jsonl"):
        commands[name].add_argument("shards", type=Path, help="<shards_dir>/<task>")
        commands[name].add_argument("--to", type=Path, required=True, help="file to write; gzip where it ends in .gz")
        commands[name].add_argument("--split", choices=SPLITS, default="train")
    commands["import-baidu"].add_argument("--labels", help="Baidu's label = class of the task, for example 1=0,0=2")
    commands["export-baidu"].add_argument("--labels", help="class of the task = Baidu's label; default: the class itself")
    commands["export-baidu"].add_argument("--level", choices=LEVELS, default="word", help="units of seg_labels; default word")
    commands["export-jsonl"].add_argument("--vocab", type=Path, help="vocabulary; default <shards_dir>/vocab.txt")
    commands["export-jsonl"].add_argument("--ids-only", action="store_true", help="no tokens, ids only")
    _add_pairs(commands)
    return parser


def _add_pairs(commands: dict[str, argparse.ArgumentParser]) -> None:
    """Arguments of the commands that write a TSV."""
    discovery_, clicks, graded = (commands[f"import-{name}"] for name in ("discovery", "clicks", "t2ranking"))
    for command in (discovery_, clicks, graded):
        command.add_argument("--to", type=Path, required=True, help="TSV to write; gzip where it ends in .gz")
        command.add_argument("--max-reject-share", type=float, default=0.1, help="most rows that may be bad; default 0.1")
    for command in (discovery_, clicks):
        command.add_argument("files", nargs="+", help="files or globs")
        command.add_argument("--columns", help="names of the columns of files without a header, parted by commas")
    discovery_.add_argument("--language", choices=("zh", "en"), default="en", help="list of connectives; default en")
    clicks.add_argument("--min-rate", type=float, help="least click-through rate; default: one click is enough")
    clicks.add_argument("--min-shows", type=int, default=1, help="least shows of an unclicked pair; default 1")
    for name in ("--qrels", "--queries", "--collection"):
        graded.add_argument(name, nargs="+", required=True, help="files or globs")
    graded.add_argument("--grades", help="default 3=strong,2=strong,1=weak,0=none")
    graded.add_argument("--max-chars", type=int, default=500, help="kept of a passage; default 500")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", help="files or globs, plain, .gz, .bz2 or .zst")
    parser.add_argument("--to", type=Path, required=True, help="folder of shards")
    parser.add_argument("--task", required=True, help="task the examples are for: tasks/pretrain/<task>.yaml")
    parser.add_argument("--vocab", type=Path, required=True, help="vocabulary of the token ids")
    parser.add_argument("--dev", nargs="+", default=[], help="files of the dev split; default: --dev-share of all examples")
    parser.add_argument("--dev-share", type=float, default=0.005, help="by a hash of the tokens; default 0.005")
    parser.add_argument("--language", choices=("zh", "en"), default="zh")
    parser.add_argument("--max-seq-len", type=int, default=512, help="longer examples are rejected; default 512")
    parser.add_argument("--seed", type=int, default=1, help="of the order; default 1")
    parser.add_argument("--keep-order", action="store_true", help="do not shuffle: the files are shuffled already")
    parser.add_argument("--max-reject-share", type=float, default=0.01, help="most lines that may be bad; default 0.01")


@cli
def main(argv: Sequence[str]) -> int:
    """Imports and exports examples and pairs of other formats."""
    args = _parser().parse_args(argv)
    try:
        args.function(args)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(f"--to: no space left for {args.to}, which is not written; make room and run it again") from error
    return 0


if __name__ == "__main__":
    main()
