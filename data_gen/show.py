"""`python -m data_gen.show SHARDS/TASK [-n 3]`: examples as people read them, their labels by name.

`python -m data_gen.show SHARDS` lists the tasks there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
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
    introduction,
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
BRACKETS = {"phrase": "⟨⟩", "entity": "{}"}
LEFT = 14
"""Columns of the names at the left."""


def load_shards(folder: Path, vocab_file: str | None = None) -> tuple[dict[str, Any], Generator, Tokenizer]:
    """Index, generator and tokenizer of the shards in <shards_dir>/<task>.

    Raises ConfigError where they are not finished, or the vocabulary, by default that in <shards_dir>, is not
    theirs."""
    index = read_index(folder)
    path = Path(vocab_file) if vocab_file else folder.absolute().parent / "vocab.txt"
    if not path.exists():
        raise ConfigError(f"{path}: no vocabulary there; name it with --vocab FILE")
    vocab = Vocab.load(path)
    if vocab.digest != index.get("vocab_digest"):
        raise ConfigError(f"{path}: not the vocabulary of {folder}; name that one with --vocab FILE")
    generator = load_generator(select_tasks([index["task"]], str(folder))[0], index.get("language", "zh"))
    return index, generator, Tokenizer(vocab, lower_case=index.get("lower_case", True))


def task_folders(shards: Path) -> list[Path]:
    """Folders of finished tasks: `shards` itself, or those in it. Raises ConfigError where there is none."""
    if (shards / "index.json").exists():
        return [shards]
    folders = sorted(path.parent for path in shards.glob("[!.]*/index.json"))
    if not (folders := [folder for folder in folders if folder.suffix not in (".tmp", ".old")]):
        raise ConfigError(
            f"{shards}: no finished shards there; name <shards_dir> or <shards_dir>/<task>, or make them "
            "with: python -m data_gen RECIPE.yaml"
        )
    return folders


def console(color: str, width: int | None = None) -> Console:
    """Standard output, 120 columns wide where it is no terminal; `color` is one of WHEN."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # an ASCII locale loses characters, not the whole output
    return Console(
        color_system={"auto": "auto", "always": "standard"}.get(color),
        force_terminal=True if color == "always" else None,
        no_color=False if color == "always" else None,
        width=max(width, 40) if width else None if sys.stdout.isatty() else 120,
        theme=Theme(STYLES),
        markup=False,
        highlight=False,
        emoji=False,
    )


@dataclass(frozen=True)
class Shower:
    """Prints the examples of one task, with a draw of masks at each of `levels`."""

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
        heads = [one.head + f", {one.num_classes} classes" * bool(one.num_classes) for one in task.losses]
        samples = " and ".join(f"{count:,} {split}" for split, count in index["samples"].items())
        made = ", ".join(filter(None, (index.get("language"), index.get("segmenter"))))
        self._print(f"Trains: {'; '.join(heads)}. {samples} examples. {made}")
        classes = task.sentence_classes or task.token_classes or 0
        if 0 < classes <= 5:
            names = (f"{label} {self.generator.describe(label)}" for label in range(classes))
            self._print(f"Classes: {'; '.join(names)}")
        if task.has_masked_lm:
            brackets = [(f" {a}{level} of several words{b}", level) for level, (a, b) in BRACKETS.items()]
            self._print("In the text: spaces between words,", *brackets)
        if task.has_masked_lm and self.levels:
            seen = (("__", "masked"), " is [MASK], ", ("another token", "random"), " is random, ")
            self._print("In a mask: ", *seen, ("the same", "kept"), " stays; below it what to predict.")
        self._print("")

    def example(self, title: str, example: Example, rng: np.random.Generator) -> None:
        """All there is in an example; `rng` draws the masks."""
        decoded = Readable(example, self.tokenizer)
        title = f"── {self.generator.task.name}, {title}: {len(decoded)} tokens"
        self.console.rule(Text(title, "head"), align="left", style="head")
        if example.sentence_label is not None:
            label = example.sentence_label
            self._print((printable(f"label {label}: {self.generator.describe(label)}"), "label"))
        self._segments(decoded)
        if example.token_labels is not None:
            self._token_labels(decoded)
        for level in self.levels if example.span_ids is not None else ():
            self._masks(decoded, level, rng)
        self._print("")

    def _segments(self, decoded: Readable) -> None:
        origins = original_positions(self.generator, decoded)
        for name, words in decoded.named_segments(origins):
            text = Text(" ").join(_bracketed(decoded, word) for word in words)
            for line in text.wrap(self.console, self.console.width - LEFT):
                self._named(name, line)
                name = ""
        if origins:
            order = reading_order(origins)
            self._named("", Text(f"(← place in the original; read in the order {order} it is that)", "soft"))

    def _token_labels(self, decoded: Readable) -> None:
        labels = decoded.example.token_labels.tolist()
        texts = ["" if label == IGNORED else str(label) for label in labels]
        self._pairs("token", "class", decoded, decoded.texts, texts, list(map(_label_style, labels)))
        for label, words in decoded.labelled().items():
            name = f"class {label} ({self.generator.describe(label)})"
            self._print((printable(f"{name}: {', '.join(words)}"), _label_style(label)))

    def _masks(self, decoded: Readable, level: str, rng: np.random.Generator) -> None:
        seen, truths = list(decoded.texts), [""] * len(decoded)
        styles = ["soft" if unit < 0 else "" for unit in decoded.example.span_ids["word"]]
        for place, target in decoded.draw(level, rng, self.mask_prob).items():
            text, styles[place], truths[place] = seen[place], target.kind, target.truth
            seen[place] = {"masked": "_" * max(cell_len(text), 1), "kept": text}.get(target.kind, target.seen)
        self._pairs(f"mask {level}", "predict", decoded, seen, truths, styles)

    def _pairs(
        self, upper: str, lower: str, decoded: Readable, above: list[str], below: list[str], styles: list[str]
    ) -> None:
        """Lines in pairs, their texts, one above and one below for each token, aligned."""
        pairs = [(Text(), Text())]
        for *texts, style, spaced in zip(above, below, styles, decoded.spaced, strict=True):
            texts = [printable(text) for text in texts]
            wide = max(map(cell_len, texts))
            if pairs[-1][0] and pairs[-1][0].cell_len + spaced + wide > self.console.width - LEFT:
                pairs.append((Text(), Text()))
            for line, text in zip(pairs[-1], texts, strict=True):
                line.append(" " * (spaced and line.cell_len > 0)).append(text, style)
                line.append(" " * (wide - cell_len(text)))
        for number, lines in enumerate(pairs):
            for name, line in zip((upper, lower), lines, strict=True):
                if line.plain.strip():
                    self._named("" if number else name, line)

    def _named(self, name: str, line: Text) -> None:
        whole = Text.assemble((name, "soft"), " " * (LEFT - cell_len(name)), line)
        whole.rstrip()
        self.console.print(whole)

    def _print(self, *parts: str | tuple[str, str]) -> None:
        self.console.print(Text.assemble(*parts))


def _bracketed(decoded: Readable, word: Word) -> Text:
    """A word with the brackets of the phrases and entities that it opens or closes."""
    style = "soft" if word.special else min(word.inside, default="")
    return Text.assemble(
        *((BRACKETS[level][0], level) for level in word.opens),
        *((printable(decoded.texts[i]), style) for i in range(word.start, word.stop)),
        *((BRACKETS[level][1], level) for level in word.closes),
    )


def _label_style(label: int) -> str:
    return {IGNORED: "soft", 0: "", 1: "label"}.get(label, "phrase")


def listing(shards: Path) -> Iterator[str]:
    """The tasks of a folder of shards. Raises ConfigError where there is none."""
    for folder in task_folders(shards):
        try:
            samples = read_index(folder)["samples"].items()
            found = " and ".join(f"{count:,} {split}" for split, count in samples) + " examples"
        except ConfigError as error:
            found = str(error)
        yield f"{folder.name:<20} {found}"
    yield f"Examples of one of them: python -m data_gen.show {shards}/TASK"


def class_number(text: str, generator: Generator) -> int:
    """The class of a number or a name: the whole name in any case, else a part of one name only.

    Raises ConfigError for no class, or several, of that name."""
    if text.lstrip("-").isdecimal():
        return int(text)
    task, wanted = generator.task, text.casefold().strip().rstrip(",，")
    classes = range(task.sentence_classes or task.token_classes or 0)
    names = {label: generator.describe(label) for label in classes}
    found = [label for label, name in names.items() if name.casefold() == wanted]
    found = found or [label for label, name in names.items() if wanted in name.casefold()]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{label} {names[label]}" for label in (found or list(names))[:10])
    raise ConfigError(
        f"--class {text}: {len(found) or 'no'} classes of task '{task.name}' have this in their names; name "
        f"one by its number or whole name: {listed or 'it has no classes'}"
    )


def chosen(reader: ShardReader, label: int | None, start: int) -> Iterator[int]:
    """Numbers of the examples from `start` on, of class `label` (of any token)."""
    for i in range(start, len(reader)):
        example = reader[i]
        labels = [example.sentence_label] if example.token_labels is None else example.token_labels
        if label is None or label in labels:
            yield i


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_gen.show", description=main.__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="<shards_dir>/<task>; <shards_dir> lists its tasks")
    add("-n", type=int, default=3, help="examples to show; default 3")
    add("--split", choices=SPLITS, default="train")
    add("--class", dest="label", help="only examples of this class: its number or its name")
    add("--start", type=int, default=0, help="number of the first example looked at; default 0")
    add("--seed", type=int, default=0, help="of the masks drawn; default 0")
    add("--masks", choices=("all", "none", *MASK_LEVELS), default="all", help="masking levels to draw")
    add("--mask-prob", type=float, default=0.15, help="share of units masked; default 0.15")
    add("--color", choices=WHEN, default="auto", help="auto: on a terminal, unless NO_COLOR is set")
    add("--width", type=int, help="columns of a line; default those of the terminal")
    add("--vocab", help="vocabulary; default <shards_dir>/vocab.txt")
    args = parser.parse_args(argv)
    if args.n < 1 or args.start < 0 or not 0 < args.mask_prob < 1:
        raise ConfigError("command line: expected -n of 1 or more, --start of 0 or more, 0 < --mask-prob < 1")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Prints examples of a task's shards as text, or lists the tasks of a folder."""
    args = _arguments(argv)
    if not (args.folder / "index.json").exists():
        print("\n".join(listing(args.folder)))
        return 0
    index, generator, tokenizer = load_shards(args.folder, args.vocab)
    label = None if args.label is None else class_number(args.label, generator)
    reader = ShardReader(args.folder, args.split)
    numbers = list(islice(chosen(reader, label, args.start), args.n))
    if not numbers:
        raise ConfigError(f"{args.folder}: no such example among the {len(reader)} of split {args.split}")
    levels = {"all": MASK_LEVELS, "none": ()}.get(args.masks, (args.masks,))
    shower = Shower(generator, tokenizer, console(args.color, args.width), levels, args.mask_prob)
    shower.opening(index)
    for i in numbers:
        title = f"{args.split} {i:,} of {len(reader):,}"
        shower.example(title, reader[i], np.random.default_rng([args.seed, i]))
    return 0


if __name__ == "__main__":
    main()
