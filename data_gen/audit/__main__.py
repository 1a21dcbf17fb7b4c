"""`python -m data_gen.audit SHARDS`: what is in the shards, as text and as one HTML page; is any of it odd or wrong?

Exit code 1 where files are damaged or a label is degenerate: a class without an example, one class with more than 95% of
them, or a token head with one class only. A class that the generator declares unused is none; and where a head of many
classes has fewer than 20 examples a class, a missing one is a matter of little text, not wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_gen.audit.measure import SAMPLE_TOKENS
from data_gen.audit.page import page
from data_gen.audit.task import TaskAudit, default_recipe, examine
from data_gen.audit.text import details, reading, summary
from data_gen.audit.verdict import Verdict, failures, judge
from data_gen.show import task_folders
from data_gen.terminal import WHEN, Painter, terminal_width
from ernie2.config import ConfigError, cli, load_recipe


def audit(args: argparse.Namespace) -> list[tuple[TaskAudit, Verdict]]:
    """Every task of the folder, measured and judged. Raises ConfigError where none of them can be read."""
    folders = list(task_folders(args.shards))
    recipe = load_recipe(args.recipe) if args.recipe else default_recipe([folder.name for folder in folders])
    found, errors = [], []
    for folder in folders:
        try:
            task = examine(folder, args.vocab, recipe, digests=args.digests, sample_tokens=args.sample)
        except ConfigError as error:
            errors.append(error)
            found.append((TaskAudit(folder.name, folder), Verdict(bad=[str(error)])))
            continue
        found.append((task, judge(task, args.allow_missing)))
    if len(errors) == len(folders):
        raise errors[0]
    return found


def write_page(path: Path, text: str) -> None:
    """Writes the page under its name only when it is whole. Raises ConfigError where that cannot be."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another place with --out") from None


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_gen.audit", description=main.__doc__)
    parser.add_argument("shards", type=Path, help="<shards_dir>, or the folder of one task in it")
    parser.add_argument("--recipe", help="its batch and masking settings count; default: default figures")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default SHARDS/audit.html")
    parser.add_argument("--digests", action="store_true", help="read every byte and compare it with the digests")
    parser.add_argument("--sample", type=int, default=SAMPLE_TOKENS, metavar="TOKENS",
                        help=f"tokens of each split looked into one by one; default {SAMPLE_TOKENS:,}")
    parser.add_argument("--allow-missing", action="store_true", help="a class without an example is no failure")
    parser.add_argument("--color", choices=WHEN, default="auto", help="auto: on a terminal, unless NO_COLOR is set")
    parser.add_argument("--vocab", help="vocabulary; default <shards_dir>/vocab.txt")
    args = parser.parse_args(argv)
    if args.sample < 1:
        raise ConfigError(f"--sample: found {args.sample}, expected 1 or more tokens")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Prints what is in the shards of every task and writes it as a page; exit code 1 where a label is degenerate."""
    args = _arguments(argv)
    found = audit(args)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    paint = Painter.of(args.color)
    for task, _ in found:
        if task.generator is not None:
            print("\n".join(details(task, paint)) + "\n")
    for line in reading([task for task, _ in found]):
        print(line)
    print("\n".join(["", *summary(found, paint, terminal_width())]))
    path = args.out or args.shards / "audit.html"
    write_page(path, page(args.shards, found, load_recipe(args.recipe) if args.recipe else None))
    failed = list(failures(found))
    for fault in failed:
        print(paint(f"WRONG: {fault}", "bad"))
    print(f"wrote {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    main()
