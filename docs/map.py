"""`python docs/map.py [FOLDER ...]`: every program of this repository with the first sentence of its
docstring or comment."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = (".", "ernie2", "data_gen", "benchmarks", "tests", "docs")


def summary(path: Path) -> str:
    """First paragraph of a module's docstring, or the first comment of a shell script."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split())
    return next((line[2:] for line in text.splitlines() if line.startswith("# ")), "")


def sizes(folders: tuple[str, ...] = PROGRAMS[1:]) -> dict[str, int]:
    """Folder -> lines of its .py files, in all its folders."""
    found = {folder: (ROOT / folder).rglob("*.py") for folder in folders}
    return {
        name: sum(path.read_text(encoding="utf-8").count("\n") for path in paths)
        for name, paths in found.items()
    }


def main(folders: list[str]) -> None:
    """Prints the map of these folders, by default of all."""
    if folders == ["--size"]:
        print("\n".join(f"{lines:7,} {name}" for name, lines in sizes().items()))
        return
    for folder in folders or PROGRAMS:
        found = (ROOT / folder).glob("*" if folder == "." else "**/*")
        for path in sorted(path for path in found if path.suffix in (".py", ".sh")):
            print(f"{path.relative_to(ROOT)}  {summary(path)}")


if __name__ == "__main__":
    main(sys.argv[1:])
