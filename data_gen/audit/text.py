"""The audit as text: a line a task of what is odd, then compact tables a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from data_gen.audit.codes import in_words
from data_gen.audit.measure import KINDS, LEVELS, SplitMeasure
from data_gen.audit.task import TaskAudit
from data_gen.audit.verdict import Verdict, little_text
from data_gen.terminal import Cell, Painter, cut, printable, table, wrapped

SIGNS = {"good": "●", "odd": "◐", "bad": "▼"}
UNKNOWN_SHOWN, HITS_SHOWN = 8, 8
CLASSES_SHOWN = 10
"""Classes listed of a head with many: half of them the most frequent, half the rarest."""


def summary(audits: Sequence[tuple[TaskAudit, Verdict]], paint: Painter, width: int) -> Iterator[str]:
    """The verdict on each task, and what there is too little of."""
    left = max(len(task.name) for task, _ in audits) + 4
    for task, verdict in audits:
        name = paint(f"{SIGNS[verdict.state]} {task.name}", verdict.state) + " " * (left - len(task.name) - 2)
        parts = [(words, "bad") for words in verdict.bad] + [(words, "odd") for words in verdict.odd]
        parts += [("; ".join(verdict.fine), "")] if verdict.fine else []
        for words, role in parts:
            cells = [Cell(((word, role),), spaced=True) for word in words.split()]
            for line in wrapped(cells, max(width - left, 20), paint):
                yield name + line
                name = " " * left
    cells = [Cell(((word, ""),), spaced=True) for word in little_text(audits).split()]
    yield from wrapped(cells, width, paint)


def reading(tasks: Sequence[TaskAudit]) -> Iterator[str]:
    """What was left out or changed before any task saw it, a line a reason: the most that the sources of one task had."""
    for what, key in (("left out while reading", "read_rejected"), ("changed or set aside", "notes")):
        counts: Counter[str] = Counter()
        for task in tasks:
            counts |= Counter(task.statistics.get(key) or {})  # tasks share their sources: the larger of both
        rejects = {reason: reject for task in tasks for (of, reason), reject in task.rejects.items() if of is None}
        for reason, count in counts.most_common():
            words = f" ({in_words(reason)})" if in_words(reason) else ""
            reject = rejects.get(reason) if key == "read_rejected" else None
            example = f", for example {printable(reject.examples[0])}" if reject and reject.examples else ""
            yield f"{what}: {reason}{words}: {count:,}" + cut(example, 70)
    for file, (entries, found) in dictionaries(tasks).items():
        sign = "" if found else f"{SIGNS['odd']} "
        yield f"{sign}dictionary {printable(file)}: {found:,} of {entries:,} entries found in the text"


def dictionaries(tasks: Sequence[TaskAudit]) -> dict[str, tuple[int, int]]:
    """Dictionary file -> its entries, and how many of them were found, in the sources of the task that has the most."""
    counts: dict[str, tuple[int, int]] = {}
    for task in tasks:
        for file, entries, found in task.statistics.get("dictionaries") or []:
            counts[file] = max((entries, found), counts.get(file, (0, 0)))
    return counts


def details(task: TaskAudit, paint: Painter) -> Iterator[str]:
    """Tables of one task."""
    yield paint(f"== {task.name}", "head") + f" (task_id {task.generator.task.task_id}, {task.index.get('language', '?')}, " \
                                             f"max_seq_len {task.index.get('max_seq_len', '?')})"
    if not task.splits:
        yield "not measured: its files are damaged"
        return
    yield from table(list(_sizes(task)))
    if task.padding is not None:
        yield (f"padding of the trainer's batches: {task.padding.planned:.1%}; to max_seq_len it would be "
               f"{task.padding.longest:.1%}")
    for head in task.splits["train"].labels:
        yield ""
        yield from table(list(_labels(task, head)))
        yield f"expected: {task.expectation(head).words}"
    if task.splits["train"].units:
        yield ""
        yield from table(list(_units(task.splits["train"])))
    yield from _losses(task)


def _sizes(task: TaskAudit) -> Iterator[tuple]:
    yield "split", "examples", "tokens", "MB", "mean", "median", "95%", "longest", "[UNK]", "repeated"
    for split, found in task.splits.items():
        yield (split, f"{found.samples:,}", f"{found.tokens:,}", f"{found.bytes / 1e6:.1f}",
               f"{found.tokens / max(found.samples, 1):.1f}", found.percentile(0.5), found.percentile(0.95), found.longest,
               f"{found.unknown_share:.2%}", f"{found.repeated_share:.1%}")


def _labels(task: TaskAudit, head: str) -> Iterator[tuple]:
    train, dev = (task.splits[split].labels[head] for split in ("train", "dev"))
    used, expected = task.used(head), task.expectation(head)
    yield (f"head {head} ({np.count_nonzero(train[used])} of {len(used)} classes occur)", "train", "share",
           "even", "dev", "share")
    order = used if len(used) <= CLASSES_SHOWN else used[np.argsort(-train[used], kind="stable")]
    for place, label in enumerate(order.tolist()):
        if len(order) > CLASSES_SHOWN and CLASSES_SHOWN // 2 <= place < len(order) - CLASSES_SHOWN // 2:
            if place == CLASSES_SHOWN // 2:
                yield f"... {len(order) - CLASSES_SHOWN} more", "", "", "", "", ""
            continue
        shares = [f"{counts[label] / max(counts.sum(), 1):.1%}" for counts in (train, dev)]
        even = "-" if expected.even is None else f"{expected.even:.1%}"
        yield f"{label} {task.name_of(label)}", f"{train[label]:,}", shares[0], even, f"{dev[label]:,}", shares[1]


def _units(found: SplitMeasure) -> Iterator[tuple]:
    yield "masked at level", "units", "mean tokens", "longest", *KINDS
    for level in LEVELS:
        units = found.units[level]
        yield (level, f"{units.units.sum():,}", f"{units.mean_length:.2f}", units.longest,
               *(f"{share:.1%}" if share else "-" for share in units.shares))


def _losses(task: TaskAudit) -> Iterator[str]:
    statistics = task.statistics
    if not statistics:
        return
    yield ""
    made = ", ".join(f"{count:,} {split}" for split, count in (statistics.get("accepted") or {}).items())
    thinned = sum((statistics.get("thinned") or {}).values())
    how = "generated" if task.imported is None else "imported"
    yield f"{how}: {made}" + (f"; thinned to balance the classes: {thinned:,}" if thinned else "")
    for reason, count in task.rejected.most_common():
        reject = task.rejects.get((task.name, reason))
        example = f", for example {printable(reject.examples[0])}" if reject and reject.examples else ""
        yield f"rejected: {reason}: {count:,}" + cut(example, 70)
    unknown = [f"{printable(text)} {count:,}" for text, count in task.unknown_texts[:UNKNOWN_SHOWN]]
    if unknown:
        yield "[UNK] stands most often for: " + " · ".join(unknown)
    for key, several in (("dictionary_hits", ""), ("dictionary_hits_joined", " of several words")):
        for kind in ("entity", "phrase"):
            hits = statistics.get(key) or []
            top = [f"{printable(str(entry))} {count:,}" for entry, of, count in hits if of == kind][:HITS_SHOWN]
            if top:
                yield f"top dictionary {kind}{several}: " + ", ".join(top)

