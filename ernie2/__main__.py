"""`ernie2 COMMAND ...`: every command under one name; `ernie2 plan ...` is `python -m ernie2.plan ...`."""

import ast
import importlib.util
import os
import sys
from pathlib import Path

from ernie2.strict import ConfigError, cli, nearest

COMMANDS = {
    "data": "data_gen",
    "vocab": "data_gen.vocab",
    "show": "data_gen.show",
    "audit": "data_gen.audit",
    "interchange": "data_gen.interchange",
    "plan": "ernie2.plan",
    "doctor": "ernie2.doctor",
    "pretrain": "ernie2.pretrain",
    "report": "ernie2.report",
    "finetune": "ernie2.finetune",
    "predict": "ernie2.predict",
    "convert": "ernie2.convert",
    "export": "ernie2.export",
    "serve": "ernie2.serve",
}


def summary(module: str) -> str:
    """First line of a command's docstring, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))).splitlines()[0]


def main(argv: list[str]) -> None:
    """Becomes `python -m MODULE`, or lists the commands. Raises ConfigError: no such command."""
    if argv and argv[0] in COMMANDS:
        os.execv(sys.executable, [sys.executable, "-m", COMMANDS[argv[0]], *argv[1:]])
    if argv and argv[0] not in ("-h", "--help"):
        raise ConfigError(f"ernie2: unknown command {argv[0]}{nearest(argv[0], COMMANDS)}")
    print(__doc__.splitlines()[0], end="\n\n")
    for name, module in COMMANDS.items():
        print(f"  {name:<12} {summary(module)}")


console = cli(main)

if __name__ == "__main__":
    console()
