"""The audit as one HTML page that loads nothing from anywhere: verdicts first, then each task with its pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from data_gen.audit.codes import in_words
from data_gen.audit.examples import examples
from data_gen.audit.measure import KINDS, LEVELS
from data_gen.audit.pictures import (
    ENOUGH_TO_DRAW,
    ClassBar,
    classes_picture,
    lengths_picture,
    many_classes_picture,
    masks_picture,
    tells,
)
from data_gen.audit.task import TaskAudit
from data_gen.audit.text import SIGNS, dictionaries
from data_gen.audit.verdict import Verdict, little_text
from data_gen.readable import introduction
from data_gen.terminal import cut, printable
from ernie2.chart_scales import compact, escape
from ernie2.charts import CHART_CSS, COLORS
from ernie2.config import BatchConfig, Recipe
from ernie2.report import PAGE_CSS

CSS = CHART_CSS + PAGE_CSS + Path(__file__).with_name("audit.css").read_text(encoding="utf-8")
ROWS_OF_CLASSES = 12
"""Classes drawn as rows with their names; more are columns."""
NUMBERED_CLASSES = 40
"""Columns in the order of the class numbers; more are in the order of size."""
SOURCES = {"documents": "corpus", "pairs": "query log", "marked_pairs": "marked pairs"}
"""Source of a task -> the words for it."""
NAMES = 24
UNKNOWN_CONTEXTS, UNKNOWN_TEXTS = 8, 20


def page(shards: Path, audits: Sequence[tuple[TaskAudit, Verdict]], recipe: Recipe | None) -> str:
    """The whole page, well-formed XML as well.

    Args:
        shards: The folder that was audited.
        audits: Every task with its verdict.
        recipe: The recipe whose figures count; None: default figures.
    """
    measured = [task for task, _ in audits if task.splits]
    sections = "".join(_section(task, f"t{number % COLORS}", recipe) for number, task in enumerate(measured))
    made = time.strftime("%Y-%m-%d %H:%M")
    return ('<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
            f"<title>Audit of {escape(shards)}</title><style>{CSS}</style></head><body><main>"
            f"{_header(shards, audits, measured)}{_verdicts(audits, measured)}{_reading(measured)}"
            f"{_dictionaries(measured)}{sections}"
            f"<footer>Made {made} from {escape(shards.absolute())} by data_gen.audit.</footer></main></body></html>\n")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of ready-made cells; a column whose head begins with '<' holds words, with '=' long ones."""
    kinds = [{"<": ' class="w"', "=": ' class="words"'}.get(head[:1], "") for head in heads]
    top = "".join(f'<th scope="col"{of.replace("words", "w")}>{escape(head.lstrip("<="))}</th>'
                  for head, of in zip(heads, kinds, strict=True))
    body = "".join("<tr>" + "".join(f"<td{of}>{cell}</td>" for cell, of in zip(row, kinds, strict=True)) + "</tr>"
                   for row in rows)
    return f'<div class="wide {kind}"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _header(shards: Path, audits: Sequence[tuple[TaskAudit, Verdict]], measured: Sequence[TaskAudit]) -> str:
    bad, odd = (sum(verdict.state == state for _, verdict in audits) for state in ("bad", "odd"))
    tasks = f"{len(audits)} tasks" if len(audits) > 1 else "1 task"
    state, kind = ((f"{SIGNS['bad']} Something is wrong in {bad} of {tasks}", "bad") if bad else
                   (f"{SIGNS['odd']} Nothing is wrong; in {odd} of {tasks} something is odd", "") if odd else
                   (f"{SIGNS['good']} Nothing is wrong or odd in {tasks}", "good"))
    facts = {"Examples, train": f"{sum(task.splits['train'].samples for task in measured):,}",
             "Examples, dev": f"{sum(task.splits['dev'].samples for task in measured):,}",
             "Tokens": compact(sum(split.tokens for task in measured for split in task.splits.values())),
             "On disk": _size(sum(split.bytes for task in measured for split in task.splits.values()))}
    for label, key in (("Language", "language"), ("Segmenter", "segmenter"), ("Longest example", "max_seq_len"),
                       ("Vocabulary", "vocab_size"), ("Seed", "seed")):
        values = {task.index[key]: None for task in measured if task.index.get(key) is not None}
        if values:
            facts[label] = ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values)
    read = [task.statistics for task in measured if task.statistics.get("documents")]
    if read:
        most = max(read, key=lambda one: one.get("input_bytes", 0))
        facts["Read"] = f"{most['documents']:,} documents, {_size(most.get('input_bytes', 0))}"
    cells = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts.items())
    return (f'<h1>What is in {escape(shards)}</h1><div class="state {kind}">{escape(state)}</div><dl>{cells}</dl>')


def _verdicts(audits: Sequence[tuple[TaskAudit, Verdict]], measured: Sequence[TaskAudit]) -> str:
    rows = []
    for task, verdict in audits:
        name = escape(task.name)
        if task in measured:
            color = f"t{measured.index(task) % COLORS}"
            name = f'<i class="b-{color}"></i><a href="#{name}">{name}</a>'
        kind = {"bad": "bad", "good": "good"}.get(verdict.state, "")
        state = {"bad": "wrong", "odd": "odd", "good": "fine"}[verdict.state]
        found = [f'<li class="bad">{escape(words)}</li>' for words in verdict.bad]
        found += [f"<li>{escape(words)}</li>" for words in verdict.odd]
        rows.append([name, f'<span class="{kind}">{SIGNS[verdict.state]} {state}</span>',
                     f"<ul>{''.join(found)}</ul>" if found else "–", escape("; ".join(verdict.fine)) or "–"])
    few = f"<p>{escape(little_text(audits).capitalize())}.</p>" if little_text(audits) else ""
    return table(["<Task", "<Verdict", "=What is wrong or odd", "=What is fine"], rows, "verdicts") + few


def _reading(measured: Sequence[TaskAudit]) -> str:
    """What was left out or changed before any task saw it."""
    columns: dict[str, dict[str, dict[str, int]]] = {}
    for task in measured:
        key = "imported lines" if task.imported is not None else " + ".join(
            SOURCES.get(source, source) for source in task.generator.task.sources)
        column = columns.setdefault(key, {"left out": {}, "changed or set aside": {}})
        for kind, counts in (("left out", "read_rejected"), ("changed or set aside", "notes")):
            for reason, count in (task.statistics.get(counts) or {}).items():
                column[kind][reason] = max(column[kind].get(reason, 0), count)
    rejects = {reason: reject for task in measured for (of, reason), reject in task.rejects.items() if of is None}
    rows = []
    for kind in ("left out", "changed or set aside"):
        found = {reason: [column[kind].get(reason, 0) for column in columns.values()]
                 for reason in dict.fromkeys(reason for column in columns.values() for reason in column[kind])}
        for reason, counts in sorted(found.items(), key=lambda item: -max(item[1])):
            reject = rejects.get(reason) if kind == "left out" else None
            rows.append([escape(reason), escape(in_words(reason)), kind, *(f"{count:,}" if count else "–" for count in counts),
                         escape(" · ".join(reject.examples[:2]) if reject else "")])
    if not rows:
        return ""
    heads = ["<Code", "=What it is", "<", *columns, "=For example"]
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return ("<h3>Reading the input</h3><p>Before any task saw it. The counts are of the input of the tasks that read it, by "
            "their sources: of characters, lines, rows, documents or files, as the words say.</p>" + table(heads, rows))


def _dictionaries(measured: Sequence[TaskAudit]) -> str:
    """How many entries of each dictionary occur."""
    none = f'<span class="bad">{SIGNS["odd"]} none</span>'
    rows = [[escape(file), f"{entries:,}", f"{found:,}" if found else none]
            for file, (entries, found) in dictionaries(measured).items()]
    return ("<h3>Dictionaries</h3><p>Entries, and how many of them were found in the text at least once.</p>"
            + table(["=File", "Entries", "Found"], rows, "facts")) if rows else ""


def _section(task: TaskAudit, color: str, recipe: Recipe | None) -> str:
    heads = ", ".join(f"{loss.head} ({loss.num_classes} classes)" if loss.num_classes else loss.head
                      for loss in task.generator.task.losses)
    train, dev = task.splits["train"], task.splits["dev"]
    marks = [(train.percentile(0.5), "median"), (train.percentile(0.95), "95%")] if train.samples else []
    dev_line = "— dev" if dev.samples >= ENOUGH_TO_DRAW else "dev: too few examples to draw"
    most = max(task.index.get("max_seq_len") or 0, train.longest, dev.longest, 1)
    parts = [f'<h2 id="{escape(task.name)}"><i class="b-{color}"></i>{escape(task.name)}</h2>'
             f"<p>{escape(introduction(task.generator))} Trains: {escape(heads)}.</p>",
             f'<div class="pair">{_facts(task, recipe)}<div><h3>Lengths</h3>'
             + lengths_picture(train.lengths, dev.lengths, most, marks, color)
             + f'<div class="legend"><span><i class="b-{color}"></i>train</span><span>{dev_line}</span></div></div></div>']
    parts += [_labels(task, head, color) for head in train.labels]
    if train.units:
        parts.append(_masking(task, recipe))
    parts += [_unknown(task), _left_out(task), _dictionary(task)]
    if task.examples:
        parts.append(f"<h3>Examples</h3>{examples(task)}")
    return f"<section>{''.join(parts)}</section>"


def _facts(task: TaskAudit, recipe: Recipe | None) -> str:
    splits = list(task.splits.values())
    rows = [["Examples", *(f"{found.samples:,}" for found in splits)],
            ["Tokens", *(f"{found.tokens:,}" for found in splits)],
            ["On disk", *(_size(found.bytes) for found in splits)],
            ["Mean length", *(f"{found.tokens / max(found.samples, 1):.1f}" for found in splits)],
            ["Median, 95%, longest", *(f"{found.percentile(0.5)}, {found.percentile(0.95)}, {found.longest}" for found in splits)],
            ["Looked into", *(f"{found.sampled:,}" if found.sampled < found.samples else "all" for found in splits)],
            ["Unknown tokens", *(f"{found.unknown_share:.2%}" for found in splits)],
            ["Repeated examples", *(f"{found.repeated_share:.1%}" for found in splits)]]
    if task.padding is not None:
        size = (recipe.batch if recipe else BatchConfig()).micro_tokens
        rows.append([f"Padding, batches of {size:,}", f"{task.padding.planned:.1%}", ""])
        rows.append(["Padding to max_seq_len would be", f"{task.padding.longest:.1%}", ""])
    return f"<div><h3>Size</h3>{table(['<', 'train', 'dev'], rows, 'facts')}</div>"


def _labels(task: TaskAudit, head: str, color: str) -> str:
    train, dev = (task.splits[split].labels[head] for split in ("train", "dev"))
    used, expected = task.used(head), task.expectation(head)
    bars = [ClassBar(label, task.name_of(label), int(train[label]), int(dev[label])) for label in used.tolist()]
    title = f"<h3>Labels of head {head}</h3><p>{len(used)} classes; expected: {escape(expected.words)}."
    unused = len(train) - len(used)
    title += f" {unused} more classes are declared unused." if unused else ""
    title += " Tokens of the examples looked into." if head == "token" else ""
    if len(bars) <= ROWS_OF_CLASSES:
        return f"{title} Bars: train; thin lines: dev.</p>{_across(classes_picture(bars, expected.even, expected.cap, color))}"
    by_size = len(bars) > NUMBERED_CLASSES
    ranked = sorted(bars, key=lambda bar: -bar.train)
    picture = many_classes_picture(ranked if by_size else bars, expected.even, expected.cap, color, by_size)
    with_some = [bar for bar in ranked if bar.train]
    names = [_names("Most", [(bar.words, bar.train) for bar in with_some[:NAMES // 2]]),
             _names("Fewest", [(bar.words, bar.train) for bar in with_some[:-NAMES // 2 - 1:-1]]),
             _names("None", [(bar.words, None) for bar in ranked if not bar.train])]
    what = "Bars: train; ticks: dev." if tells(bars) else "Bars: train; the dev split is too small for a share of each."
    return f"{title} {what}</p>{_across(picture)}{''.join(names) if by_size else ''}"


def _across(picture: str) -> str:
    """A picture across the page, which a narrow screen scrolls rather than shrinks."""
    return f'<div class="across">{picture}</div>'


def _names(title: str, pairs: Sequence[tuple[str, int | None]]) -> str:
    if not pairs:
        return ""
    shown = "".join(f"<span>{escape(words)}" + (f" <small>{count:,}</small>" if count is not None else "") + "</span> "
                    for words, count in pairs[:NAMES])
    more = f"<small>and {len(pairs) - NAMES} more</small>" if len(pairs) > NAMES else ""
    return f'<p class="names"><b>{title}</b>{shown}{more}</p>'


def _masking(task: TaskAudit, recipe: Recipe | None) -> str:
    units = task.splits["train"].units
    drawn = [level for level in LEVELS if level != "word" or recipe and "word" in sum(recipe.masking.by_stage(), [])]
    legend = "".join(f'<span><i class="k{number}"></i>{kind}</span>' for number, kind in enumerate(KINDS))
    rows = [[level, f"{units[level].units.sum():,}", f"{units[level].mean_length:.2f}", str(units[level].longest),
             *(f"{share:.1%}" if share else "–" for share in units[level].shares),
             escape(cut(task.tokenizer.decode(units[level].longest_ids), 36))] for level in drawn]
    return ("<h3>Masking</h3><p>A draw at a level masks each of its units with the same probability: basic, a Chinese character "
            "or an English word; phrase and entity, the longer unit where there is one, words elsewhere. Bars: what the masked "
            f'tokens are part of.</p><div class="legend">{legend}</div>'
            + _across(masks_picture([(level, units[level].shares.tolist()) for level in drawn]))
            + table(["<Level drawn", "Units", "Mean tokens", "Longest", "Single tokens", "In words", "In phrases", "In entities",
                     "<Longest unit"], rows))


def _unknown(task: TaskAudit) -> str:
    train = task.splits["train"]
    if not train.unknown:
        return ""
    if task.unknown_texts:
        shown = _names("Most", [(printable(text), count) for text, count in task.unknown_texts[:UNKNOWN_TEXTS]])
        return (f"<h3>Unknown tokens</h3><p>{train.unknown:,} in the examples looked into. What the vocabulary lacks most often, "
                f"counted over all input:</p>{shown}")
    decode = task.tokenizer.decode
    unk = task.tokenizer.vocab.unk_id
    rows = [[escape(decode([before, unk, after])), f"{count:,}"]
            for (before, after), count in train.contexts.most_common(UNKNOWN_CONTEXTS)]
    half = -(-len(rows) // 2)
    both = [[*row, *(rows[half + i] if half + i < len(rows) else ["", ""])] for i, row in enumerate(rows[:half])]
    return (f"<h3>Unknown tokens</h3><p>{train.unknown:,} in the examples looked into; where they stand most often.</p>"
            + table(["<Context", "Count", "<Context", "Count"], both, "facts narrow"))


def _left_out(task: TaskAudit) -> str:
    rows = []
    for reason, count in task.rejected.most_common():
        reject = task.rejects.get((task.name, reason))
        rows.append([escape(reason), f"{count:,}", escape(" · ".join(reject.examples[:2]) if reject else "")])
    statistics = task.statistics
    thinned = sum((statistics.get("thinned") or {}).values())
    if thinned:
        rows.append(["thinned out to balance the classes", f"{thinned:,}", ""])
    if not rows:
        return ""
    made = sum((statistics.get("accepted") or {}).values())
    who = "generator made" if task.imported is None else "import took"
    return (f"<h3>Left out</h3><p>The {who} {made:,} examples.</p>"
            + (table(["<Reason", "Count", "=For example"], rows) if any(row[2] for row in rows) else
               table(["<Reason", "Count"], [row[:2] for row in rows], "narrow")))


def _dictionary(task: TaskAudit) -> str:
    lines = [_names(title + several, [(str(entry), int(count)) for entry, of, count in task.statistics.get(key) or []
                                      if of == kind])
             for key, several in (("dictionary_hits", ""), ("dictionary_hits_joined", " of several words"))
             for title, kind in (("Entities", "entity"), ("Phrases", "phrase"))]
    if not any(lines):
        return ""
    total = task.statistics.get("dictionary_hits_total")
    words = f"{total:,} matches in all. " if total else ""
    if task.statistics.get("dictionary_hits_joined"):
        words += "Those of several words are what masking of phrases and entities adds to that of words."
    words = f"<p>{words}</p>" if words else ""
    return f"<h3>Dictionary entries found most often</h3>{words}{''.join(lines)}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"

