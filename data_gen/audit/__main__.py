"""`python -m data_gen.audit SHARDS`: what is in the shards, as text and as one HTML page; is it odd or wrong?

Exit code 1 where files are damaged or a label is degenerate: a class without an example, one class with more
than 95% of them, or a token head with one class only. A class that the generator declares unused is none; and
where a head of many classes has fewer than 20 examples a class, a missing one is odd, not wrong."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from data_gen import readable
from data_gen.audit.files import in_words
from data_gen.audit.measure import KINDS, LEVELS, SAMPLE_TOKENS
from data_gen.audit.task import ClassCount, TaskAudit, default_recipe, dictionaries, examine, reading
from data_gen.audit.verdict import SIGNS, Verdict, failures, judge, small_corpus
from data_gen.readable import cut, printable
from data_gen.show import WHEN, console, task_folders
from ernie2.config import BatchConfig, ConfigError, Recipe, cli, load_recipe
from ernie2.pages import HERE, TASK_COLORS, compact, environment, write
from ernie2.shards import SPLITS

FACTS = {
    "Language": "language",
    "Segmenter": "segmenter",
    "Longest example": "max_seq_len",
    "Vocabulary": "vocab_size",
    "Seed": "seed",
}
"""Facts of index.json shown in the header: label -> key."""
FOLDER = Path(__file__).parent
SHOWN = 8
"""Unknown texts and entries of dictionaries that the text names of each kind."""
MASK_HEADS = "masked at level,units,mean tokens,longest,single tokens,in words,in phrases,in entities".split(
    ","
)
CLASSES_SHOWN = 10
"""Classes that the text lists of a head with many: half of them the most frequent, half the rarest."""
ROWS_OF_CLASSES, NUMBERED_CLASSES = 12, 40
"""Classes drawn as rows with their names; more are columns by their numbers, and yet more by their size."""
ENOUGH_TO_DRAW = 100
"""Examples below which a split's lengths are no histogram."""


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


# ---- as text ------------------------------------------------------------------------------------------


def details(task: TaskAudit) -> Iterator[str | Text | Table]:
    """What was measured of one task."""
    index = task.index
    number, language, most = (
        task.generator.task.task_id,
        index.get("language", "?"),
        index.get("max_seq_len", "?"),
    )
    yield Text.assemble((f"== {task.name}", "head"), f" (task_id {number}, {language}, max_seq_len {most})")
    if not task.splits:
        yield "not measured: its files are damaged"
        return
    yield _table(list(zip(*[("split", *task.splits), *task.sizes()], strict=True)))
    if task.padding is not None:
        planned, longest = task.padding.planned, task.padding.longest
        yield f"padding of the trainer's batches: {planned:.1%}; to max_seq_len it would be {longest:.1%}"
    for head in task.splits["train"].labels:
        yield ""
        yield _table(list(_class_rows(task, head)))
        yield f"expected: {task.expectation(head).words}"
    if task.splits["train"].units:
        yield ""
        yield _table([MASK_HEADS, *task.masking(LEVELS)])
    if task.statistics:
        yield from _losses(task)


def _class_rows(task: TaskAudit, head: str) -> Iterator[tuple[str, ...]]:
    shown, even = task.classes(head), task.expectation(head).even
    occur = sum(1 for one in shown if one.counts[0])
    yield f"head {head} ({occur} of {len(shown)} classes occur)", "train", "share", "even", "dev", "share"
    hidden = len(shown) - CLASSES_SHOWN
    if hidden > 0:
        shown.sort(key=lambda one: -one.counts[0])
    for place, one in enumerate(shown):
        if hidden <= 0 or not 0 <= place - CLASSES_SHOWN // 2 < hidden:
            expected = "–" if even is None else f"{even:.1%}"
            train, dev = ((f"{count:,}", f"{share:.1%}") for count, share in zip(one.counts, one.shares))
            yield f"{one.label} {one.name}", *train, expected, *dev
        elif place == CLASSES_SHOWN // 2:
            yield f"... {hidden} more", "", "", "", "", ""


def _losses(task: TaskAudit) -> Iterator[str]:
    yield ""
    made = ", ".join(f"{count:,} {split}" for split, count in (task.statistics.get("accepted") or {}).items())
    thinned = task.total("thinned")
    how = "generated" if task.imported is None else "imported"
    yield f"{how}: {made}" + (f"; thinned to balance the classes: {thinned:,}" if thinned else "")
    for reason, count, example in task.left_out():
        yield f"rejected: {reason}: {count:,}" + cut(f", for example {example}" * bool(example), 70)
    if task.unknown_texts:
        yield "[UNK] stands most often for: " + _counted(task.unknown_texts[:SHOWN], " · ")
    for kind, found in task.hits():
        yield f"top dictionary {kind}: {_counted(found[:SHOWN], ', ')}"


def _counted(pairs: Sequence[tuple[str, int]], between: str) -> str:
    return between.join(f"{text} {count:,}" for text, count in pairs)


def before(tasks: Sequence[TaskAudit]) -> Iterator[str]:
    """What was left out or changed before any task saw it, and the dictionaries, a line each."""
    for kind, code, counts, example in reading(tasks):
        kind = "left out while reading" if kind == "left out" else kind
        words = f" ({in_words(code)})" if in_words(code) else ""
        yield f"{kind}: {code}{words}: {max(counts.values()):,}" + cut(
            f", for example {example}" * bool(example), 70
        )
    for file, (entries, found) in dictionaries(tasks).items():
        sign = "" if found else f"{SIGNS['odd']} "
        yield f"{sign}dictionary {file}: {found:,} of {entries:,} entries found in the text"


def summary(audits: Sequence[tuple[TaskAudit, Verdict]]) -> Table:
    """The verdict on each task."""
    table = Table.grid(padding=(0, 2))
    for task, verdict in audits:
        name = Text(f"{SIGNS[verdict.state]} {task.name}", verdict.state)
        parts = [(words, "bad") for words in verdict.bad] + [
            (words, "odd") for words in verdict.odd + verdict.small
        ]
        parts += [("; ".join(verdict.fine), "")] if verdict.fine else []
        for words, style in parts:
            table.add_row(name, Text(printable(words), style))
            name = Text()
    return table


def _table(rows: Sequence[Sequence[str]]) -> Table:
    """Aligned columns, the first to the left, the others to the right; the first row is the head."""
    table = Table.grid(padding=(0, 2))
    for place in range(len(rows[0])):
        table.add_column(justify="right" if place else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


# ---- as a page ----------------------------------------------------------------------------------------


def page(
    shards: Path, audits: Sequence[tuple[TaskAudit, Verdict]], note: str | None, recipe: Recipe | None
) -> str:
    """The whole page, well-formed XML as well; it loads nothing from anywhere.

    Args:
        shards: The folder that was audited.
        audits: Every task with its verdict.
        note: What is to be said once of all tasks.
        recipe: The recipe whose figures count; None: default figures."""
    measured = [task for task, _ in audits if task.splits]
    styles = (HERE / "report.css", FOLDER / "audit.css")
    draws_words = recipe is not None and "word" in sum(recipe.masking.by_stage(), [])
    return (
        environment(FOLDER)
        .get_template("audit.html")
        .render(
            shards=shards,
            audits=audits,
            note=note,
            measured=measured,
            facts=_facts(measured),
            reading=list(reading(measured)),
            dictionaries=dictionaries(measured),
            levels=[level for level in LEVELS if level != "word" or draws_words],
            micro_tokens=(recipe.batch if recipe else BatchConfig()).micro_tokens,
            color={task.name: f"t{number % TASK_COLORS}" for number, task in enumerate(measured)},
            css=Markup("".join(style.read_text(encoding="utf-8") for style in styles)),
            now=time.strftime("%Y-%m-%d %H:%M"),
            lengths_plot=lengths_plot,
            class_plot=class_plot,
            in_words=in_words,
            readable=readable,
            rng=lambda number: np.random.default_rng([1, number]),
            rows_of_classes=ROWS_OF_CLASSES,
            SIGNS=SIGNS,
            KINDS=KINDS,
        )
    )


def _facts(tasks: Sequence[TaskAudit]) -> dict[str, str]:
    splits = [split for task in tasks for split in task.splits.values()]
    facts = {f"Examples, {name}": f"{sum(task.splits[name].samples for task in tasks):,}" for name in SPLITS}
    facts["Tokens"] = compact(sum(split.tokens for split in splits))
    facts["On disk"] = decimal(sum(split.bytes for split in splits))
    for label, key in FACTS.items():
        values = {task.index[key]: None for task in tasks if task.index.get(key) is not None}
        if values:
            facts[label] = ", ".join(
                f"{value:,}" if isinstance(value, int) else str(value) for value in values
            )
    read = [task.statistics for task in tasks if task.statistics.get("documents")]
    if read:
        most = max(read, key=lambda one: one.get("input_bytes", 0))
        facts["Read"] = f"{most['documents']:,} documents, {decimal(most.get('input_bytes', 0))}"
    return facts


@dataclass(frozen=True)
class Column:
    """A column (or row) of a plot: heights of its bar and its line for dev in percent, tooltip, class."""

    train: float
    dev: float | None
    tip: str
    of: ClassCount | None = None


@dataclass
class Plot:
    """What the template draws of a split's shares; all places are percent of the plot.

    Attributes:
        columns: From left to right, or from the top.
        high: The share at the top.
        limits: (place, name) of the lines across.
        marks: (place, name) of the lines upwards.
        below: (place, label) on the axis.
        numbered: Whether each column has its class number below.
        by_size: Whether the largest class comes first.
        dev_tells: Whether the dev split is large enough to be drawn."""

    columns: list[Column]
    high: float
    limits: list[tuple[float, str]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    below: list[tuple[float, str]] = field(default_factory=list)
    numbered: bool = False
    by_size: bool = False
    dev_tells: bool = True

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(place, label) of round shares."""
        step = _round_step(self.high, 4.5)
        return [(100 * at / self.high, f"{100 * at:.6g}%") for at in np.arange(0, self.high, step).tolist()]


def _round_step(high: float, count: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten of which at most `count` make `high`."""
    return next(
        size * 10.0**power
        for power in range(-6, 9)
        for size in (1, 2, 5)
        if high <= count * size * 10.0**power
    )


def lengths_plot(task: TaskAudit) -> Plot:
    """A histogram of lengths, each split as shares of its own."""
    train, dev = task.splits["train"], task.splits["dev"]
    most = max(task.index.get("max_seq_len") or 0, train.longest, dev.longest, 1)
    edges = np.unique(np.linspace(0, most, 33).round().astype(int))
    shares = []
    for split in (train, dev):
        counts = np.pad(split.lengths, (0, most + 1 - len(split.lengths)))
        shares.append(np.add.reduceat(counts, edges[:-1] + 1) / max(split.samples, 1))
    high = max(float(np.max(shares)), 1e-9) * 1.1
    columns = []
    for start, stop, share, other in zip(edges, edges[1:], *shares):
        tip = f"{start + 1} to {stop} tokens: {share:.1%} of train, {other:.1%} of dev"
        columns.append(
            Column(100 * share / high, 100 * other / high if dev.samples >= ENOUGH_TO_DRAW else None, tip)
        )
    plot = Plot(columns, high, dev_tells=dev.samples >= ENOUGH_TO_DRAW)
    if train.samples:
        found = {"median": train.percentile(0.5), "95%": train.percentile(0.95)}
        plot.marks = [(100 * length / most, f"{name} {length}") for name, length in found.items()]
    ticks = np.arange(0, most + 1, max(_round_step(most, 7), 1)).astype(int).tolist()
    plot.below = [(100 * at / most, f"{at:,}") for at in ticks]
    return plot


def class_plot(task: TaskAudit, head: str) -> Plot:
    """The shares of a head's classes: rows with names if they are few, columns if they are many.

    Lines for dev are left out where the split is too small, and a limit far above all classes is, too."""
    found, expected = task.classes(head), task.expectation(head)
    by_size, rows = len(found) > NUMBERED_CLASSES, len(found) <= ROWS_OF_CLASSES
    tells = rows or sum(one.counts[1] for one in found) >= 10 * len(found)
    if by_size:
        found.sort(key=lambda one: -one.counts[0])
    most = max(max(one.shares[: 1 + tells]) for one in found)
    cap = expected.cap if expected.cap is not None and (rows or expected.cap < 3 * most) else 0.0
    high = max(most, expected.even or 0.0, min(cap, 1.0), 1e-9) * (1.02 if rows else 1.08)
    columns = []
    for one in found:
        figures = [
            f"{name} {count:,} ({share:.2%})" for name, count, share in zip(SPLITS, one.counts, one.shares)
        ]
        dev = 100 * one.shares[1] / high if tells and (rows or one.counts[1]) else None
        tip = f"class {one.label}: {one.name}\n{', '.join(figures)}"
        columns.append(Column(100 * one.shares[0] / high, dev, tip, one))
    plot = Plot(columns, high, numbered=not by_size, by_size=by_size, dev_tells=tells)
    near = None not in (expected.even, expected.cap) and abs(expected.even - expected.cap) < 0.06 * high
    for share, name in ((expected.even, "even"), (expected.cap, "even, cap" if near else "cap")):
        if share is not None and share <= high:
            plot.limits.append((100 * share / high, "" if near and name == "even" else f"{name} {share:.1%}"))
    return plot


# ---- the command --------------------------------------------------------------------------------------


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_gen.audit", description=main.__doc__)
    parser.add_argument("shards", type=Path, help="<shards_dir>, or the folder of one task in it")
    parser.add_argument("--recipe", help="its batch and masking settings count; default: default figures")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default SHARDS/audit.html")
    parser.add_argument(
        "--digests", action="store_true", help="read every byte and compare it with the digests"
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=SAMPLE_TOKENS,
        metavar="TOKENS",
        help=f"tokens of each split looked into one by one; default {SAMPLE_TOKENS:,}",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="a class without an example is no failure"
    )
    parser.add_argument(
        "--color", choices=WHEN, default="auto", help="auto: on a terminal, unless NO_COLOR is set"
    )
    parser.add_argument("--vocab", help="vocabulary; default <shards_dir>/vocab.txt")
    args = parser.parse_args(argv)
    if args.sample < 1:
        raise ConfigError(f"--sample: found {args.sample}, expected 1 or more tokens")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Prints what is in the shards and writes it as a page; exit code 1 where a label is degenerate."""
    args = _arguments(argv)
    found, out = audit(args), console(args.color)
    note, known = small_corpus(found), [task for task, _ in found if task.generator is not None]
    for task in known:
        for line in [*details(task), ""]:
            out.print(printable(line) if isinstance(line, str) else line, soft_wrap=isinstance(line, str))
    for line in before(known):
        out.print(printable(line), soft_wrap=True)
    out.print("", summary(found), *([note] if note else []), sep="\n")
    path = args.out or args.shards / "audit.html"
    write(path, page(args.shards, found, note, load_recipe(args.recipe) if args.recipe else None))
    failed = list(failures(found))
    for fault in failed:
        out.print(Text(f"WRONG: {fault}", "bad"), soft_wrap=True)
    out.print(f"wrote {path}", soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    main()
