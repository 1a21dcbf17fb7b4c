"""Readable examples as HTML: words, phrases and entities marked, a draw of masks, labels over their words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_gen.audit.task import TaskAudit
from data_gen.readable import MASK_LEVELS, Readable, Word, original_positions
from ernie2.chart_scales import escape
from ernie2.shards import IGNORED

LONG_WORD = 40
"""Characters beyond which a labelled word may be broken at the end of a line."""
LEGEND = ('<div class="legend"><span><span class="unit">word</span></span><span><span class="unit p">phrase of several words'
          '</span></span><span><span class="unit e">entity of several words</span></span><span><span class="m masked">truth'
          '</span> the model sees [MASK]</span><span><span class="m random">seen→truth</span> it sees another '
          'token</span><span><span class="m kept">truth</span> it sees the truth; all three are predicted</span></div>')


def examples(task: TaskAudit) -> str:
    """The examples of a task, each with its masks at another level."""
    has_masks = task.generator.task.has_masked_lm
    boxes = [_example(task, decoded, MASK_LEVELS[number % len(MASK_LEVELS)] if has_masks else None, number)
             for number, decoded in enumerate(task.examples)]
    return (LEGEND if has_masks else "") + "".join(boxes)


def _example(task: TaskAudit, decoded: Readable, level: str | None, number: int) -> str:
    label, rows = decoded.example.sentence_label, []
    words, segments = decoded.words(), decoded.segments()
    origins = original_positions(task.generator, label, len(segments))
    for place, (start, stop) in enumerate(segments):
        name = f"segment {place + 1}" + (f" ← {origins[place] + 1}" if origins else "")
        rows.append((name, _segment(decoded, [word for word in words if start <= word.start < stop])))
    if origins:
        back = " ".join(str(origins.index(place) + 1) for place in range(len(origins)))
        rows.append(("", f'<span class="soft">shown ← place in the original text; read in the order {back}</span>'))
    if level is not None:
        rows.append((f"mask {level}", _masks(decoded, level, np.random.default_rng([1, number]))))
    head = ""
    if label is not None:
        head = f'<div class="label">label {label}: {escape(task.name_of(label))}</div>'
    elif decoded.example.token_labels is not None:
        classes = "; ".join(f"{one} = {task.name_of(one)}" for one in decoded.token_classes())
        head = f'<div class="label">over the words: {escape(classes)}</div>'
    body = "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>" for name, text in rows)
    return f'<div class="example">{head}<dl>{body}</dl></div>'


def _segment(decoded: Readable, words: Sequence[Word]) -> str:
    parts = []
    for word in words:
        text = escape(decoded.text(word.start, word.stop))
        gap = " " if decoded.spaced[word.start] else ""
        if word.special:
            parts.append(f'{gap}<span class="s">{text}</span>')
            continue
        kinds = "unit" + " p" * ("phrase" in word.inside) + " e" * ("entity" in word.inside)
        kinds += " r" * bool(word.inside - set(word.closes)) + " l" * bool(word.inside - set(word.opens))
        labels = decoded.example.token_labels
        if labels is not None and labels[word.start] != IGNORED:
            label = int(labels[word.start])
            short = " short" * (len(text) <= LONG_WORD)
            text = f'<ruby class="c{label}{short}">{text}<rt>{label}</rt></ruby>'
        if word.inside - set(word.opens):  # the line under a unit is not broken
            gap, text = "", gap + text
        parts.append(f'{gap}<span class="{kinds}">{text}</span>')
    return "<wbr/>".join(parts)


def _masks(decoded: Readable, level: str, rng: np.random.Generator) -> str:
    drawn, parts = decoded.draw(level, rng), []
    spans = decoded.example.span_ids["word"]
    for place, (text, spaced) in enumerate(zip(decoded.texts, decoded.spaced, strict=True)):
        gap, target = " " * spaced, drawn.get(place)
        if target is None:
            parts.append(gap + (f'<span class="s">{escape(text)}</span>' if spans[place] < 0 else escape(text)))
        elif target.kind == "random":
            parts.append(f'{gap}<span class="m random">{escape(target.seen)}→{escape(target.truth)}</span>')
        else:
            parts.append(f'{gap}<span class="m {target.kind}">{escape(target.truth)}</span>')
    return "".join(parts)
