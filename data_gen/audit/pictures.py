"""Pictures of an audit as SVG text: lengths, classes, masked units. Styles: CHART_CSS of ernie2.charts and audit.css.

As there, no picture needs a script or anything from outside; tooltips are `<title>` elements; all text is escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_gen.terminal import columns, cut
from ernie2.chart_scales import escape, nice_ticks, tick_labels

FULL, HALF = 1072, 520
"""Widths in pixels of a picture across the page and across half of it."""
ENOUGH_TO_DRAW = 100
"""Examples below which a split's lengths are no histogram."""


@dataclass(frozen=True)
class ClassBar:
    """A class: its words, and how many of the train and dev split it has."""

    label: int
    words: str
    train: int
    dev: int


def lengths_picture(train: np.ndarray, dev: np.ndarray, max_seq_len: int, marks: Sequence[tuple[int, str]],
                    color: str) -> str:
    """Histogram of lengths: bars for train, a line for dev, each as shares of its split.

    Args:
        train: int (longest + 1), examples of each length.
        dev: The same of the dev split.
        max_seq_len: Right end of the scale.
        marks: (length, name) of the marks above the bars.
        color: "t0" to "t7".
    """
    height, left, right, top, bottom = 298, 44, HALF - 8, 30, 262
    edges = np.unique(np.linspace(0, max_seq_len, 33).round().astype(int))
    shares = []
    for counts in (train, dev):
        padded = np.pad(counts, (0, max(max_seq_len + 1 - len(counts), 0)))
        binned = np.add.reduceat(padded, edges[:-1] + 1) if len(padded) > edges[-2] + 1 else np.zeros(len(edges) - 1)
        shares.append(binned / max(counts.sum(), 1))
    high = max(float(max(share.max() for share in shares)), 1e-9) * 1.1

    def x(value: float) -> float:
        return left + (right - left) * value / max_seq_len

    def y(share: float) -> float:
        return bottom - (bottom - top) * share / high

    parts = [_root("Lengths of the examples", HALF, height)]
    ticks = nice_ticks(0, high, 4)
    for tick, label in zip(ticks, tick_labels(ticks, True), strict=True):
        parts.append(f'<path class="grid" d="M{left} {y(tick):.1f}H{right}"/>{_text(left - 6, y(tick) + 3.5, label, "end")}')
    for a, b, share, other in zip(edges[:-1], edges[1:], *shares, strict=True):
        tip = f"{a + 1} to {b} tokens: {share:.1%} of train, {other:.1%} of dev"
        parts.append(f'<rect class="bar f-{color}" x="{x(a) + 0.5:.1f}" y="{y(share):.1f}" width="{x(b) - x(a) - 1:.1f}" '
                     f'height="{bottom - y(share):.1f}"/><rect class="hover" x="{x(a):.1f}" y="{top}" '
                     f'width="{x(b) - x(a):.1f}" height="{bottom - top}"><title>{escape(tip)}</title></rect>')
    if dev.sum() >= ENOUGH_TO_DRAW:
        line = f"M{left} {y(shares[1][0]):.1f}H{x(edges[1]):.1f}"
        line += "".join(f"V{y(share):.1f}H{x(b):.1f}" for b, share in zip(edges[2:], shares[1][1:], strict=True))
        parts.append(f'<path class="step" d="{line}"/>')
    last = -99.0
    for length, name in marks:
        row = 24 if x(length) - last > 110 else 12
        last = x(length)
        anchor = "end" if x(length) > right - 40 else "middle"
        parts.append(f'<path class="mark" d="M{x(length):.1f} {row + 3}V{bottom}"/>'
                     + _text(min(x(length), right), row, f"{name} {length}", anchor, "stage"))
    ticks = [tick for tick in nice_ticks(0, max_seq_len, 7) if tick == int(tick)]
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        parts.append(f'<path class="axis" d="M{x(tick):.1f} {bottom}v3"/>{_text(x(tick), bottom + 15, label, "middle")}')
    parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>{_text(right, height - 1, "tokens", "end")}</svg>')
    return "".join(parts)


def classes_picture(bars: Sequence[ClassBar], even: float | None, cap: float | None, color: str) -> str:
    """A row for each class: its words, the share of train as a bar, that of dev as a thin line under it.

    Args:
        bars: The classes, in order.
        even: Share that is marked as even, or None.
        cap: Share that is marked as the most allowed, or None.
        color: "t0" to "t7".
    """
    name_width = min(max(columns(f"{bar.label} {bar.words}") for bar in bars) * 6.6 + 18, 0.5 * FULL)
    left, right, top, row = name_width, FULL - 250, 20, 26
    height = top + row * len(bars) + 6
    totals = [max(sum(getattr(bar, split) for bar in bars), 1) for split in ("train", "dev")]
    shares = [(bar.train / totals[0], bar.dev / totals[1]) for bar in bars]
    high = max(max(max(share) for share in shares), even or 0, min(cap or 0, 1), 1e-9) * 1.02

    def x(share: float) -> float:
        return left + (right - left) * share / high

    parts = [_root("Share of each class", FULL, height)]
    for number, (bar, (train, dev)) in enumerate(zip(bars, shares, strict=True)):
        y = top + row * number
        words = cut(f"{bar.label}  {bar.words}", int(name_width / 6.6))
        figures = f"{bar.train:,} · {train:.1%}"
        parts.append(f'<g><title>{escape(f"class {bar.label}: {bar.words}")}</title>'
                     + _text(left - 10, y + 15, words, "end", "word")
                     + f'<rect class="bar f-{color}" x="{left}" y="{y + 4}" width="{max(x(train) - left, 0):.1f}" height="12"/>'
                     f'<rect class="f-ink" x="{left}" y="{y + 18}" width="{max(x(dev) - left, 0):.1f}" height="2.5"/>'
                     + _text(right + 120, y + 15, figures, "end", "word" if bar.train else "none")
                     + _text(FULL, y + 15, f"dev {bar.dev:,} · {dev:.1%}", "end") + "</g>")
    for share, name in _limits(even, cap, high):
        parts.append(f'<path class="level s-soft" d="M{x(share):.1f} {top - 3}V{height - 4}"/>'
                     + _text(min(x(share), right), 10, name, "middle", "stage"))
    return "".join(parts) + f'<path class="axis" d="M{left} {top}V{height - 4}"/></svg>'


def many_classes_picture(bars: Sequence[ClassBar], even: float | None, cap: float | None, color: str, by_size: bool) -> str:
    """A column for each of many classes: train as a bar, dev as a tick; tooltips name them.

    Args:
        bars: The classes, in order of the picture.
        even: Share that is marked as even, or None.
        cap: Share that is marked as the most allowed, or None.
        color: "t0" to "t7".
        by_size: Whether the order is by size; else the axis has class numbers.
    """
    height, left, right, top, bottom = 216, 46, FULL - 96, 12, 182
    totals = [max(sum(getattr(bar, split) for bar in bars), 1) for split in ("train", "dev")]
    dev_tells = tells(bars)
    high = max(max(max(bar.train / totals[0], bar.dev / totals[1] * dev_tells) for bar in bars), even or 0) * 1.08
    high = max(high, cap * 1.08 if cap is not None and cap < 3 * high else 0, 1e-9)

    def y(share: float) -> float:
        return max(bottom - (bottom - top) * share / high, top - 8)

    wide = (right - left) / len(bars)
    parts = [_root("Share of each class", FULL, height)]
    ticks = nice_ticks(0, high, 4)
    for tick, label in zip(ticks, tick_labels(ticks, True), strict=True):
        parts.append(f'<path class="grid" d="M{left} {y(tick):.1f}H{right}"/>{_text(left - 6, y(tick) + 3.5, label, "end")}')
    for number, bar in enumerate(bars):
        at, train, dev = left + wide * number, bar.train / totals[0], bar.dev / totals[1]
        tip = f"class {bar.label}: {bar.words}\ntrain {bar.train:,} ({train:.2%}), dev {bar.dev:,} ({dev:.2%})"
        parts.append(f'<rect class="bar f-{color}" x="{at + 0.08 * wide:.2f}" y="{y(train):.1f}" width="{0.84 * wide:.2f}" '
                     f'height="{bottom - y(train):.1f}"/>')
        if bar.dev and dev_tells:
            parts.append(f'<path class="tick" d="M{at:.2f} {y(dev):.1f}h{wide:.2f}"/>')
        if not bar.train:
            parts.append(f'<path class="none" d="M{at + 0.2 * wide:.2f} {bottom - 2}h{0.6 * wide:.2f}"/>')
        parts.append(f'<rect class="hover" x="{at:.2f}" y="{top}" width="{wide:.2f}" height="{bottom - top}">'
                     f'<title>{escape(tip)}</title></rect>')
        if not by_size and (len(bars) <= 40 or bar.label % 10 == 0):
            parts.append(_text(at + wide / 2, bottom + 14, str(bar.label), "middle"))
    for share, name in _limits(even, cap, high):
        parts.append(f'<path class="level s-soft" d="M{left} {y(share):.1f}H{right}"/>'
                     + _text(right + 6, y(share) + 3.5, name, "start", "stage"))
    below = "classes, the most frequent first" if by_size else "class"
    return "".join(parts) + (f'<path class="axis" d="M{left} {bottom}H{right}"/>'
                             f'{_text(right, height - 1, below, "end")}</svg>')


def tells(bars: Sequence[ClassBar]) -> bool:
    """Whether the dev split has examples enough for its shares of many classes to be more than noise."""
    return sum(bar.dev for bar in bars) >= 10 * len(bars)


def masks_picture(rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """A stacked bar for each masking level: what the masked tokens are part of; `rows`: (level, share of each kind)."""
    left, right, row = 64, FULL - 2, 27
    parts = [_root("What the masked tokens are part of", FULL, row * len(rows))]
    for number, (level, shares) in enumerate(rows):
        y, at = row * number, float(left)
        parts.append(_text(left - 10, y + 15.5, level, "end", "word"))
        for kind, share in enumerate(shares):
            wide = (right - left) * share
            if not share:
                continue
            parts.append(f'<rect class="k{kind}" x="{at:.1f}" y="{y + 1}" width="{max(wide - 1, 0.5):.1f}" height="20"/>')
            if wide > 40:
                parts.append(_text(at + wide / 2, y + 15, f"{share:.1%}", "middle", f"on{kind}"))
            at += wide
    return "".join(parts) + "</svg>"


def _limits(even: float | None, cap: float | None, high: float) -> list[tuple[float, str]]:
    """The dashed lines within the scale: (share, its name); two that lie together are named once."""
    near = even is not None and cap is not None and abs(even - cap) < 0.06 * high
    named = [(even, "" if near else "even"), (cap, "even, cap" if near else "cap")]
    return [(share, f"{name} {share:.1%}" if name else "") for share, name in named if share is not None and share <= high]


def _root(title: str, width: int, height: int) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{escape(title)}" '
            f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">')


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
