"""`python -m data_gen RECIPE.yaml [key=value ...] [--tasks a,b] [--workers N] [--engine local|ray]`: text to
shards."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence

from data_gen.pipeline import build_shards
from ernie2.config import ConfigError, cli, load_recipe
from ernie2.malloc import keep_freed_memory
from ernie2.tasks import select_tasks


@cli
def main(argv: Sequence[str]) -> int:
    """Makes the shards of a recipe's tasks; those that are up to date stay as they are."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(prog="python -m data_gen", description=main.__doc__)
    parser.add_argument("recipe", help="recipe, for example tasks/recipes/demo.yaml")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="keys of the recipe, for example data.max_seq_len=256",
    )
    parser.add_argument("--tasks", help="comma-separated; default: the tasks of the recipe's stages")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes; default: one a core"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: on a cluster (pip install ray)"
    )
    parser.add_argument(
        "--encoding", help="of the input files, for example gb18030; short for data.encoding=..."
    )
    args = parser.parse_intermixed_args(argv)
    if args.workers < 1:
        raise ConfigError(f"--workers: found {args.workers}, expected 1 or more")
    overrides = args.overrides + ([f"data.encoding={args.encoding}"] if args.encoding else [])
    recipe = load_recipe(args.recipe, overrides)
    names, where = recipe.task_names(), f"{args.recipe}: curriculum.stages"
    if args.tasks is not None:
        names, where = [name.strip() for name in args.tasks.split(",") if name.strip()], "--tasks"
    if not names:
        raise ConfigError("--tasks: no task named")
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: workers are stopped, finished work is kept
        signal.signal(ending, signal.default_int_handler)
    build_shards(recipe, select_tasks(names, where), args.workers, engine=args.engine)
    return 0


if __name__ == "__main__":
    main()
