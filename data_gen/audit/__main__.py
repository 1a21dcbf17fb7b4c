"""`python -m data_gen.audit SHARDS`: what is in the shards, as text and as one HTML page; is it odd or wrong?

Exit code 1 where files are damaged or a label is degenerate: a class without an example, or one class with
more than 95% of them. Of many classes with fewer than 20 examples each, on average, one may be missing."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import gt, lt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from data_gen import readable
from data_gen.audit import KINDS, LEVELS, TaskAudit, default_recipe, examine
from data_gen.readable import cut, printable
from data_gen.show import WHEN, console, load_shards, task_folders
from ernie2.config import ConfigError, cli, load_recipe
from ernie2.pages import HERE, TASK_COLORS, compact, environment, write
from ernie2.shards import SPLITS

SIGNS = {"good": "●", "odd": "◐", "bad": "▼"}


class Limit(NamedTuple):
    """Beyond which a figure is bad, odd or small; the sentence may name other figures as well."""

    figure: str
    beyond: Callable[[Any, Any], bool]
    limit: float
    state: str
    sentence: str


LIMITS = (
    Limit("stale", gt, 0, "odd", "{yaml} is not the one these shards were made with; make them again"),
    Limit("train", lt, 1, "bad", "no training example"),
    Limit("dev", lt, 1, "odd", "no dev example: raise the dev share"),
    Limit("dev", lt, 100, "small", "fewer than 100 dev examples, a noisy measure"),
    Limit("median", lt, 10, "odd", "half of the examples have {median} tokens or fewer"),
    Limit("repeated", gt, 0.05, "odd", "{repeated:.1%} of the training examples repeat another one"),
    Limit("leaked", gt, 0.005, "odd", "{leaked:.1%} of the dev examples are in train, word for word"),
    Limit("unknown", gt, 0.01, "odd", "{unknown:.1%} [UNK], mostly for {texts}: another vocabulary?"),
    Limit("padding", gt, 0.1, "odd", "{padding:.1%} padding: raise batch.pool_batches"),
    Limit(
        "phrase",
        lt,
        0.002,
        "odd",
        "only {phrase:.2%} of what level phrase masks is in phrases of several words",
    ),
    Limit(
        "entity",
        lt,
        0.002,
        "odd",
        "only {entity:.2%} of what level entity masks is in entities of several words",
    ),
    Limit("rejected", gt, 0.5, "odd", "{rejected:.0%} was rejected, mostly as: {reason}"),
    Limit("labels", lt, 1, "bad", "no label of head {head} at all"),
    Limit("no_label", gt, 0, "odd", "no example of {names}: the imported format has no such label"),
    Limit("missing", gt, 0, "bad", "{missing} of {classes} classes have no example: {names}"),
    Limit("chance", gt, 0, "small", "{chance} of {classes} classes have no example, perhaps by chance"),
    Limit("largest", gt, 0.95, "bad", "{largest:.1%} have class {top}"),
    Limit("largest", gt, 0.8, "odd", "{largest:.1%} have class {top}"),
    Limit("over", gt, 1.02, "odd", "{largest:.1%} have class {top}, {most:.1%} is allowed"),
    Limit("uneven", gt, 1.5, "odd", "{largest:.1%} have class {top}, even would be {even:.1%}"),
    Limit("rarest", lt, 0.5, "odd", "only {least:.1%} have class {rare}, even would be {even:.1%}"),
)
"""Of several limits of a figure the first that is passed counts."""


def judge(task: TaskAudit, allow_missing: bool) -> None:
    """Holds the figures of a task against LIMITS; `allow_missing`: a class without an example is only odd."""
    for figures in (task_figures(task), *(head_figures(task, head) for head in task.splits["train"].labels)):
        passed = set()
        for figure, beyond, limit, state, sentence in LIMITS:
            value = figures.get(figure)
            if value is not None and figure not in passed and beyond(value, limit):
                passed.add(figure)
                state = "odd" if allow_missing and figure == "missing" else state
                getattr(task, state).append(sentence.format(**figures))


def task_figures(task: TaskAudit) -> dict[str, Any]:
    """Figures of LIMITS; None: not known."""
    train, dev = task.splits["train"], task.splits["dev"]
    reasons, accepted = (Counter(task.statistics.get(key) or {}) for key in ("rejected", "accepted"))
    texts = [cut(str(text), 24) for text, _ in task.statistics.get("unknown_tokens") or []]
    figures = {
        "yaml": task.generator.task.path.name,
        "stale": task.index.get("task_digest") != task.generator.task.digest(),
        "train": train.samples,
        "dev": dev.samples,
        "median": train.percentile(0.5) if train.samples else None,
        "repeated": train.repeated_share,
        "leaked": len(train.digests.keys() & dev.digests.keys()) / max(dev.samples, 1),
        "unknown": train.unknown_share,
        "texts": " · ".join(texts[:3]) or "?",
        "padding": task.padding and task.padding.planned,
        "rejected": reasons.total() / max(reasons.total() + accepted.total(), 1),
        "reason": next((reason for reason, _ in reasons.most_common(1)), ""),
    }
    for level in LEVELS[2:] if train.units else ():
        figures[level] = train.masked_shares(level)[LEVELS.index(level)]
    return figures


def head_figures(task: TaskAudit, head: str) -> dict[str, Any]:
    """Figures of LIMITS on the classes of a head in train."""
    classes, (even, most) = task.classes(head), task.expectation(head)
    counts = np.array([one.counts[0] for one in classes])
    total, named = int(counts.sum()), [f"{one.label} ({one.name})" for one in classes]
    if not total:
        return {"head": head, "labels": 0 if task.splits["train"].samples else None}
    missing = [name for name, count in zip(named, counts) if not count]
    formats = (task.index.get("imported") or {}).get("labels")
    no_label = bool(formats) and all(one.counts[0] or one.label not in formats.values() for one in classes)
    chance = len(classes) > 3 and (total < 20 * len(classes) or counts[counts > 0].min() < 5)
    largest, least = counts.max() / total, counts.min() / total
    figures = {
        "classes": len(classes),
        "names": ", ".join(missing[:5]) + f" and {len(missing) - 5} more" * (len(missing) > 5),
        "no_label" if no_label else "chance" if chance else "missing": len(missing),
        "largest": largest,
        "top": named[counts.argmax()],
        "least": least,
        "rare": named[counts.argmin()],
        "even": even,
        "most": most,
    }
    if largest > 0.8:
        return figures
    if most is not None:
        figures["over"] = (largest - 1 / total) / most
    elif even is not None:
        figures["uneven"] = largest / even
    if even is not None and least and len(classes) <= 12:
        figures["rarest"] = least / even
    return figures


# ---- tables, for the terminal and for the page --------------------------------------------------------

Rows = list[tuple[str, ...]]


def tables(task: TaskAudit) -> dict[str, Rows]:
    """What was measured of one task: title -> rows, the first of which is the head."""
    made = {"Size": _sizes(task)}
    for head in task.splits["train"].labels:
        classes, (even, most) = task.classes(head), task.expectation(head)
        if len(classes) > 12:
            classes.sort(key=lambda one: -one.counts[0])
        even, most = (f"{share:.1%}" if share is not None else "-" for share in (even, most))
        made[f"Labels of head {head}"] = [
            ("class", "train", "share", "even", "at most", "dev", "share"),
            *(
                (f"{one.label} {one.name}", f"{one.counts[0]:,}", f"{one.shares[0]:.1%}", even, most)
                + (f"{one.counts[1]:,}", f"{one.shares[1]:.1%}")
                for one in classes
            ),
        ]
    if task.splits["train"].units:
        made["Masking"] = _masking(task)
    if left_out := list(_left_out(task)):
        made["Left out"] = [("reason", "count", "for example"), *left_out]
    if found := list(_frequent(task)):
        made["Found most often"] = [("kind", "most often"), *found]
    return made


def _sizes(task: TaskAudit) -> Rows:
    splits = [task.splits[split] for split in SPLITS]
    rows = [
        ("", *SPLITS),
        ("examples", *(f"{of.samples:,}" for of in splits)),
        ("tokens", *(f"{of.tokens:,}" for of in splits)),
        ("on disk", *(decimal(of.bytes) for of in splits)),
        ("median length", *(str(of.percentile(0.5)) for of in splits)),
        ("95%", *(str(of.percentile(0.95)) for of in splits)),
        ("longest", *(str(len(of.lengths) - 1) for of in splits)),
        ("looked into", *(f"{of.sampled:,}" for of in splits)),
        ("[UNK]", *(f"{of.unknown_share:.2%}" for of in splits)),
        ("repeated", *(f"{of.repeated_share:.1%}" for of in splits)),
    ]
    if task.padding is not None:
        rows.append((f"padding, batches of {task.padding.micro_tokens:,}", f"{task.padding.planned:.1%}", ""))
        rows.append(("padding to max_seq_len would be", f"{task.padding.longest:.1%}", ""))
    return rows


def _masking(task: TaskAudit) -> Rows:
    rows = [("masked at level", "units", "mean tokens", *KINDS)]
    for level, (units, tokens) in task.splits["train"].units.items():
        mean = tokens.sum() / max(units.sum(), 1)
        shares = (f"{share:.1%}" for share in task.splits["train"].masked_shares(level))
        rows.append((level, f"{units.sum():,}", f"{mean:.2f}", *shares))
    return rows


def _left_out(task: TaskAudit) -> Iterator[tuple[str, ...]]:
    for reason, count in Counter(task.statistics.get("rejected") or {}).most_common():
        of = None if "imported" in task.index else task.name
        yield reason, f"{count:,}", " · ".join(task.rejects.get((of, reason), [])[:2])
    if thinned := sum((task.statistics.get("thinned") or {}).values()):
        yield "thinned to balance the classes", f"{thinned:,}", ""


def _frequent(task: TaskAudit) -> Iterator[tuple[str, str]]:
    hits = [
        (f"{kind}{several}", entry, count)
        for key, several in (("dictionary_hits", ""), ("dictionary_hits_joined", " of several words"))
        for entry, kind, count in task.statistics.get(key) or []
    ]
    hits += [("as [UNK]", text, count) for text, count in task.statistics.get("unknown_tokens") or []]
    for kind in dict.fromkeys(kind for kind, _, _ in hits):
        found = [f"{entry} {count:,}" for of, entry, count in hits if of == kind]
        yield kind, printable(" · ".join(found[:12]))


def corpus_tables(tasks: Sequence[TaskAudit]) -> dict[str, Rows]:
    """What was left out or changed before any task saw it, and the dictionaries: tasks that share their input
    count the same, so the larger of their counts stands."""
    rows: dict[tuple[str, str], tuple[int, str]] = {}
    files: dict[str, tuple[int, int]] = {}
    for task in tasks:
        for what, key in (("left out", "read_rejected"), ("changed or set aside", "notes")):
            for code, count in (task.statistics.get(key) or {}).items():
                example = " · ".join(task.rejects.get((None, code), [])[:2]) if what == "left out" else ""
                rows[what, code] = max((count, example), rows.get((what, code), (0, "")))
        for file, entries, found in task.statistics.get("dictionaries") or []:
            files[file] = max((entries, found), files.get(file, (0, 0)))
    made = {}
    if rows:
        made["Reading the input"] = [("", "code", "count", "for example")]
        made["Reading the input"] += [(*key, f"{count:,}", example) for key, (count, example) in rows.items()]
    if files:
        made["Dictionaries"] = [("file", "entries", "found in the text")]
        made["Dictionaries"] += [
            (file, f"{entries:,}", f"{found:,}" if found else f"{SIGNS['odd']} none")
            for file, (entries, found) in files.items()
        ]
    return made


# ---- the terminal -------------------------------------------------------------------------------------


def rich_table(rows: Rows, most: int = 12) -> Table:
    """Aligned columns; of many rows the first, and how many more there are."""
    table = Table.grid(padding=(0, 2))
    for cell in rows[0]:
        table.add_column(
            justify="left" if cell in (rows[0][0], "code", "for example", "most often") else "right"
        )
    for row in rows[: most + 1]:
        table.add_row(*(Text(cut(cell, 70)) for cell in row))
    if len(rows) > most + 1:
        table.add_row(f"... {len(rows) - most - 1} more")
    return table


def remarks(tasks: Sequence[TaskAudit]) -> Table:
    """The verdict on each task; what little text explains is one remark of all of them."""
    table = Table.grid(padding=(0, 2))
    for task in tasks:
        sentences = [(one, "bad") for one in task.bad] + [(one, "odd") for one in task.odd]
        for number, (sentence, style) in enumerate(sentences or [("fine", "")]):
            name = Text(f"{SIGNS[task.state]} {task.name}" if not number else "", task.state)
            table.add_row(name, Text(printable(sentence), style))
    return table


def small_corpus(tasks: Sequence[TaskAudit]) -> list[str]:
    """Each remark on little text with the tasks it is true of."""
    remarks = dict.fromkeys(one for task in tasks for one in task.small)
    return [
        f"{one} ({', '.join(task.name for task in tasks if one in task.small)}): give more text, or raise "
        "data.dev_share (of an import --dev-share)"
        for one in remarks
    ]


# ---- the page -----------------------------------------------------------------------------------------


def page(shards: Path, tasks: Sequence[TaskAudit]) -> str:
    """The whole page, well-formed XML as well; it loads nothing from anywhere."""
    measured, folder = [task for task in tasks if task.splits], Path(__file__).parent
    styles = (HERE / "report.css", folder / "audit.css")
    context = {
        "shards": shards,
        "tasks": tasks,
        "small": small_corpus(tasks),
        "measured": measured,
        "facts": _facts(measured),
        "corpus": corpus_tables(measured),
        "color": {task.name: f"t{number % TASK_COLORS}" for number, task in enumerate(measured)},
        "css": Markup("".join(style.read_text(encoding="utf-8") for style in styles)),
        "now": time.strftime("%Y-%m-%d %H:%M"),
        "tables": tables,
        "readable": readable,
        "rng": lambda number: np.random.default_rng([1, number]),
        "SIGNS": SIGNS,
        "KINDS": KINDS,
    }
    return environment(folder).get_template("audit.html").render(context)


def _facts(tasks: Sequence[TaskAudit]) -> dict[str, str]:
    splits = [split for task in tasks for split in task.splits.values()]
    facts = {f"Examples, {name}": f"{sum(task.splits[name].samples for task in tasks):,}" for name in SPLITS}
    facts["Tokens"] = compact(sum(split.tokens for split in splits))
    facts["On disk"] = decimal(sum(split.bytes for split in splits))
    for key in ("language", "segmenter", "max_seq_len", "vocab_size", "seed"):
        values = dict.fromkeys(str(task.index[key]) for task in tasks if task.index.get(key) is not None)
        facts[key.replace("_", " ").capitalize()] = ", ".join(values)
    read = [
        (task.statistics.get("input_bytes") or 0, task.statistics.get("documents") or 0) for task in tasks
    ]
    size, documents = max(read, default=(0, 0))
    facts["Read"] = f"{documents:,} documents, {decimal(size)}" if documents else ""
    return {label: fact for label, fact in facts.items() if fact}


# ---- the command --------------------------------------------------------------------------------------


def audit(args: argparse.Namespace) -> list[TaskAudit]:
    """Every task of the folder, measured and judged. Raises ConfigError where none of them can be read."""
    folders = list(task_folders(args.shards))
    recipe = load_recipe(args.recipe) if args.recipe else default_recipe([folder.name for folder in folders])
    tasks, errors = [], []
    for folder in folders:
        tasks.append(task := TaskAudit(folder.name))
        try:
            task.index, task.generator, task.tokenizer = load_shards(folder, args.vocab)
        except ConfigError as error:
            errors.append(error)
            task.bad.append(str(error))
            continue
        try:
            examine(task, folder, recipe, args.digests)
            judge(task, args.allow_missing)
        except ConfigError as error:
            task.bad.append(str(error))
    if len(errors) == len(folders):
        raise errors[0]
    return tasks


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_gen.audit", description=main.__doc__)
    add = parser.add_argument
    add("shards", type=Path, help="<shards_dir>, or the folder of one task in it")
    add("--recipe", help="its batch settings count; default: default figures")
    add("--out", type=Path, metavar="FILE", help="the page; default SHARDS/audit.html")
    add("--digests", action="store_true", help="read every byte and compare it with the digests")
    add("--allow-missing", action="store_true", help="a class without an example is no failure")
    add("--color", choices=WHEN, default="auto", help="auto: on a terminal, unless NO_COLOR is set")
    add("--vocab", help="vocabulary; default <shards_dir>/vocab.txt")
    return parser.parse_args(argv)


@cli
def main(argv: Sequence[str]) -> int:
    """Prints what is in the shards and writes it as a page; exit code 1 where a label is degenerate."""
    args = _arguments(argv)
    tasks, out = audit(args), console(args.color)
    measured = [task for task in tasks if task.splits]
    for task in measured:
        number, language = task.generator.task.task_id, task.index.get("language", "?")
        out.print(Text(f"== {task.name}", "head"), f"(task_id {number}, {language})\n")
        for title, rows in tables(task).items():
            out.print(title, rich_table(rows), "", sep="\n")
    for title, rows in corpus_tables(measured).items():
        out.print(title, rich_table(rows), "", sep="\n")
    out.print(remarks(tasks), *small_corpus(tasks), sep="\n")
    path = args.out or args.shards / "audit.html"
    write(path, page(args.shards, tasks))
    failed = [f"WRONG: {task.name}: {sentence}" for task in tasks for sentence in task.bad]
    out.print(*(Text(printable(one), "bad") for one in failed), f"wrote {path}", sep="\n", soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    main()
