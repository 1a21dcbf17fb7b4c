"""`python -m data_gen.show SHARDS/TASK [-n 3]`: examples as people read them, with labels in words.

`python -m data_gen.show SHARDS` lists the tasks there."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from rich.theme import Theme

from data_gen.generators import Generator, load_generator
from data_gen.readable import (
    MASK_LEVELS,
    Readable,
    Word,
    cut,
    introduction,
    named_segments,
    original_positions,
    printable,
    reading_order,
)
from ernie2.config import ConfigError, cli
from ernie2.shards import IGNORED, SPLITS, Example, ShardReader, read_index
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Tokenizer, Vocab

WHEN = ("auto", "always", "never")
STYLES = {
    "head": "bold",
    "soft": "dim",
    "special": "dim",
    "label": "bold green",
    "entity": "bold magenta",
    "phrase": "underline cyan",
    "masked": "bold red",
    "random": "bold yellow",
    "kept": "bold blue",
    "good": "green",
    "odd": "yellow",
    "bad": "bold red",
}
PIPED_WIDTH = 120
"""Columns of a line where the output is no terminal."""
BRACKETS = {"phrase": "⟨⟩", "entity": "{}"}
LEFT = 14
"""Columns of the names at the left."""
CLASSES_NAMED = 5
"""The classes of a head are listed where it has no more than this."""
CLASSES_LISTED = 10
"""Most classes listed in a message."""


def load_shards(folder: Path, vocab_file: str | None = None) -> tuple[dict[str, Any], Generator, Tokenizer]:
    """Index, generator (for the words of labels) and tokenizer of a task's shards.

    Args:
        folder: <shards_dir>/<task>.
        vocab_file: The vocabulary; default: the copy that data_gen leaves in <shards_dir>.

    Raises:
        ConfigError: no finished shards there, the vocabulary missing or another one."""
    index = read_index(folder)
    path = Path(vocab_file) if vocab_file else folder.absolute().parent / "vocab.txt"
    if not path.exists():
        raise ConfigError(f"{path}: no vocabulary there; name it with --vocab FILE")
    vocab = Vocab.load(path)
    if vocab.digest != index.get("vocab_digest"):
        raise ConfigError(
            f"{path}: not the vocabulary that {folder} was made with; name that one with --vocab FILE"
        )
    task = select_tasks([index["task"]], str(folder))[0]
    generator = load_generator(task, index.get("language", "zh"))
    return index, generator, Tokenizer(vocab, lower_case=index.get("lower_case", True))


def task_folders(shards: Path) -> Iterator[Path]:
    """Folders of finished tasks: `shards` itself, or those in it. Raises ConfigError where there is none."""
    if (shards / "index.json").exists():
        yield shards
        return
    folders = sorted(path.parent for path in shards.glob("*/index.json"))
    folders = [
        folder
        for folder in folders
        if not folder.name.startswith(".") and folder.suffix not in (".tmp", ".old")
    ]
    if not folders:
        near = [path.parent.parent for path in sorted(shards.glob("*/*/index.json"))] or [
            path.parent.parent for path in sorted(shards.parent.glob("*/index.json"))
        ]
        hint = (
            f"; there are some in {near[0]}" if near else "; make them with: python -m data_gen RECIPE.yaml"
        )
        raise ConfigError(f"{shards}: no finished shards there{hint}")
    yield from folders


def console(color: str, width: int | None = None) -> Console:
    """Where text goes: standard output, in colour where that is wanted.

    Args:
        color: "always", "never", or "auto": on a terminal, unless NO_COLOR is set.
        width: Columns of a line, at least 40; None: those of the terminal, or PIPED_WIDTH."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # an ASCII locale loses characters, not the whole output
    terminal = sys.stdout.isatty()
    plain = not terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    colored = color == "always" or color == "auto" and not plain
    if width is None:
        width = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns if terminal else PIPED_WIDTH
    return Console(
        color_system="standard" if colored else None,
        force_terminal=colored,
        no_color=False,
        width=max(width, 40),
        height=24,
        theme=Theme(STYLES),
        markup=False,
        highlight=False,
        emoji=False,
    )


@dataclass(frozen=True)
class Shower:
    """Prints the examples of one task.

    Attributes:
        generator: Knows what the task is and the words of its labels.
        tokenizer: Decodes.
        console: Where to.
        levels: Masking levels to draw.
        mask_prob: Share of units that a draw masks."""

    generator: Generator
    tokenizer: Tokenizer
    console: Console
    levels: Sequence[str] = MASK_LEVELS
    mask_prob: float = 0.15

    def opening(self, index: dict[str, Any]) -> None:
        """What the task is, what it trains, and how to read the examples."""
        task = self.generator.task
        self._print((task.name, "head"))
        self._print(introduction(self.generator))
        heads = [
            f"{loss.head}, {loss.num_classes} classes" if loss.num_classes else loss.head
            for loss in task.losses
        ]
        samples = " and ".join(f"{count:,} {split}" for split, count in index["samples"].items())
        made = [index.get("language", ""), index.get("segmenter", "")]
        self._print(f"Trains: {'; '.join(heads)}. {samples} examples. {', '.join(filter(None, made))}")
        classes = task.sentence_classes or task.token_classes or 0
        if 0 < classes <= CLASSES_NAMED:
            names = "; ".join(f"{label} {self.generator.describe(label)}" for label in range(classes))
            self._print(f"Classes: {names}")
        if task.has_masked_lm:
            brackets = [(f" {a}{level} of several words{b}", level) for level, (a, b) in BRACKETS.items()]
            self._print("In the text: words are set apart by spaces,", *brackets)
            if self.levels:
                self._print(
                    "In a mask: ",
                    ("__", "masked"),
                    " is [MASK], ",
                    ("another token", "random"),
                    " is drawn at random, ",
                    ("the same", "kept"),
                    " stays; below it what is to be predicted.",
                )
        self._print("")

    def example(self, number: str, example: Example, rng: np.random.Generator) -> None:
        """All there is in an example.

        Args:
            number: Which example it is, in words.
            example: Of the shards.
            rng: Draws the masks."""
        decoded = Readable(example, self.tokenizer)
        head = cut(f"── {self.generator.task.name}, {number}: {len(decoded)} tokens ", self.console.width)
        self._print((head + "─" * (self.console.width - cell_len(head)), "head"))
        if example.sentence_label is not None:
            label = example.sentence_label
            self._print((printable(f"label {label}: {self.generator.describe(label)}"), "label"))
        self._segments(decoded)
        if example.token_labels is not None:
            self._token_labels(decoded)
        if example.span_ids is not None:
            for level in self.levels:
                self._masks(decoded, level, rng)
        self._print("")

    def _segments(self, decoded: Readable) -> None:
        origins = original_positions(self.generator, decoded)
        for name, words in named_segments(decoded, origins):
            text = Text(" ").join(_bracketed(decoded, word) for word in words)
            for line in text.wrap(self.console, self.console.width - LEFT):
                self._named(name, line)
                name = ""
        if origins:
            words = f"read in the order {reading_order(origins)} it is the original)"
            self._named("", Text(f"(shown ← place in the original text; {words}", "soft"))

    def _token_labels(self, decoded: Readable) -> None:
        labels = decoded.example.token_labels.tolist()
        cells = [
            (text, "" if label == IGNORED else str(label), _label_style(label), spaced)
            for text, label, spaced in zip(decoded.texts, labels, decoded.spaced, strict=True)
        ]
        self._pairs("token", "class", cells)
        for label in decoded.token_classes():
            words = ", ".join(map(printable, decoded.labelled(label)))
            self._print((f"class {label} ({self.generator.describe(label)}): {words}", _label_style(label)))

    def _masks(self, decoded: Readable, level: str, rng: np.random.Generator) -> None:
        drawn = decoded.draw(level, rng, self.mask_prob)
        cells = []
        for place, (text, spaced) in enumerate(zip(decoded.texts, decoded.spaced, strict=True)):
            target = drawn.get(place)
            if target is None:
                special = decoded.example.span_ids["word"][place] < 0
                cells.append((text, "", "special" if special else "", spaced))
                continue
            seen = {"masked": "_" * max(cell_len(text), 1), "kept": text}.get(target.kind, target.seen)
            cells.append((seen, target.truth, target.kind, spaced))
        self._pairs(f"mask {level}", "predict", cells)

    def _pairs(self, upper: str, lower: str, cells: Sequence[tuple[str, str, str, bool]]) -> None:
        """Lines in pairs, their cells (upper, lower text, style, whether a space stands before) aligned."""
        lines = Text(), Text()
        for *texts, style, spaced in cells:
            texts = [printable(text) for text in texts]
            wide = max(map(cell_len, texts))
            if lines[0] and lines[0].cell_len + spaced + wide > self.console.width - LEFT:
                self._pair(upper, lower, lines)
                upper = lower = ""
                lines = Text(), Text()
            for line, text in zip(lines, texts, strict=True):
                line.append(" " * (spaced and line.cell_len > 0)).append(text, style)
                line.append(" " * (wide - cell_len(text)))
        self._pair(upper, lower, lines)

    def _pair(self, upper: str, lower: str, lines: tuple[Text, Text]) -> None:
        self._named(upper, lines[0])
        if lines[1].plain.strip():
            self._named(lower, lines[1])

    def _named(self, name: str, line: Text) -> None:
        whole = Text.assemble((name, "soft"), " " * (LEFT - cell_len(name)), line)
        whole.rstrip()
        self.console.print(whole)

    def _print(self, *parts: str | tuple[str, str]) -> None:
        for line in Text.assemble(*parts).wrap(self.console, self.console.width):
            line.rstrip()
            self.console.print(line)


def _bracketed(decoded: Readable, word: Word) -> Text:
    """A word with the brackets of the phrases and entities that it opens or closes."""
    style = (
        "special"
        if word.special
        else next((level for level in ("entity", "phrase") if level in word.inside), "")
    )
    opening = [(BRACKETS[level][0], level) for level in word.opens]
    closing = [(BRACKETS[level][1], level) for level in word.closes]
    parts = [(printable(decoded.texts[i]), style) for i in range(word.start, word.stop)]
    return Text.assemble(*opening, *parts, *closing)


def _label_style(label: int) -> str:
    return {IGNORED: "soft", 0: "", 1: "label"}.get(label, "phrase")


def listing(shards: Path) -> Iterator[str]:
    """The tasks of a folder of shards. Raises ConfigError where there is none."""
    folders = list(task_folders(shards))
    yield f"{shards} has the shards of {len(folders)} task{'s' * (len(folders) > 1)}:"
    whole = []
    for folder in folders:
        try:
            samples = read_index(folder)["samples"]
            found = " and ".join(f"{count:,} {split}" for split, count in samples.items()) + " examples"
            whole.append(folder)
        except ConfigError as error:
            found = str(error)
        yield f"  {folder.name:<{max(len(one.name) for one in folders)}}  {found}"
    if whole:
        yield f"Examples of one of them: python -m data_gen.show {whole[0]}"


def class_number(text: str, generator: Generator) -> int:
    """The class that a number or a name means: the whole name in any case, else a part of one name only.

    Raises:
        ConfigError: no class, or several, of that name."""
    if text.lstrip("-").isdecimal():
        return int(text)
    task, wanted = generator.task, text.casefold().strip().rstrip(",，")
    names = [generator.describe(label) for label in range(task.sentence_classes or task.token_classes or 0)]
    if not names:
        raise ConfigError(f"--class {text}: task '{task.name}' has no classes")
    known = [(label, name) for label, name in enumerate(names) if "not used" not in name]
    found = [one for one in known if one[1].casefold() == wanted] or [
        one for one in known if wanted and wanted in one[1].casefold()
    ]
    if len(found) == 1:
        return found[0][0]
    listed = "; ".join(f"{label} {name}" for label, name in (found or known)[:CLASSES_LISTED])
    more = "; ..." if len(found or known) > CLASSES_LISTED else ""
    raise ConfigError(
        f"--class {text}: {len(found) or 'no'} classes of task '{task.name}' have this in their names; name "
        f"one by its number or whole name: {listed}{more}"
    )


def chosen(reader: ShardReader, count: int, label: int | None, start: int) -> Iterator[int]:
    """Numbers of the first `count` examples from `start` on; of class `label` (of any token)."""
    for i in range(start, len(reader)):
        if count <= 0:
            return
        example = reader[i]
        labels = [example.sentence_label] if example.token_labels is None else example.token_labels
        if label is None or label in labels:
            count -= 1
            yield i


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_gen.show", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="<shards_dir>/<task>; <shards_dir> lists its tasks")
    parser.add_argument("-n", type=int, default=3, help="examples to show; default 3")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--class", dest="label", help="only examples of this class: its number or its name")
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first example looked at; default 0"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the masks drawn; default 0")
    parser.add_argument(
        "--masks", choices=("all", "none", *MASK_LEVELS), default="all", help="masking levels to draw"
    )
    parser.add_argument("--mask-prob", type=float, default=0.15, help="share of units masked; default 0.15")
    parser.add_argument(
        "--color", choices=WHEN, default="auto", help="auto: on a terminal, unless NO_COLOR is set"
    )
    parser.add_argument("--width", type=int, help="columns of a line; default those of the terminal")
    parser.add_argument("--vocab", help="vocabulary; default <shards_dir>/vocab.txt")
    args = parser.parse_args(argv)
    if args.n < 1 or args.start < 0 or not 0 < args.mask_prob < 1:
        raise ConfigError(
            "command line: -n has to be 1 or more, --start 0 or more, --mask-prob between 0 and 1"
        )
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Prints examples of a task's shards as text, or lists the tasks of a folder."""
    args = _arguments(argv)
    out = console(args.color, args.width)
    if not (args.folder / "index.json").exists():
        print("\n".join(listing(args.folder)))
        return 0
    index, generator, tokenizer = load_shards(args.folder, args.vocab)
    label = None if args.label is None else class_number(args.label, generator)
    reader = ShardReader(args.folder, args.split)
    numbers = list(chosen(reader, args.n, label, args.start))
    if not numbers:
        raise ConfigError(f"{args.folder}: no such example among the {len(reader)} of split {args.split}")
    levels = {"all": MASK_LEVELS, "none": ()}.get(args.masks, (args.masks,))
    shower = Shower(generator, tokenizer, out, levels, args.mask_prob)
    shower.opening(index)
    for i in numbers:
        shower.example(
            f"{args.split} {i:,} of {len(reader):,}", reader[i], np.random.default_rng([args.seed, i])
        )
    return 0


if __name__ == "__main__":
    main()
