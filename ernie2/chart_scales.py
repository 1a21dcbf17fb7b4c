"""The arithmetic under a chart, plain numbers and text: round ticks, short figures, thinned and smoothed curves."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

Point = tuple[float, float | None]
"""(x, y); y None = a gap in the line."""

MAX_POINTS = 800
"""A curve is thinned to this many points; the picture is narrower in pixels."""


def escape(value: object) -> str:
    """Text for HTML and XML: markup escaped; what XML forbids (control characters, lone surrogates) becomes U+FFFD."""
    forbidden = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
    return html.escape(re.sub(forbidden, "\ufffd", str(value)))


def compact(value: float, share: bool = False) -> str:
    """A number for people: 1234567 -> 1.23M, 43210 -> 43.2k, 0.001 -> 1e-3; with `share`, 0.625 -> 62.5%."""
    if share:
        return f"{100 * value:.1f}%"
    size = abs(value)
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}" if size < 999.5 * unit else f"{value / unit:.0f}{letter}"
    if size == 0:
        return "0"
    if size < 0.00995:
        return _exponent(value)
    return f"{value:#.3g}" if size < 99.95 else f"{value:.0f}"


def shorten(text: str, room: int) -> str:
    """The text, with its end left out where it has more than `room` characters."""
    return text if len(text) <= room else text[:max(room - 1, 1)] + "…"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) from `low` to `high`, about `count` of them."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def tick_labels(ticks: Sequence[float], share: bool = False) -> list[str]:
    """Labels of one axis, all with the same unit and the same number of decimals: 0, 2k, 4k; but 0, 500, 1,000."""
    top = max((abs(tick) for tick in ticks), default=0.0)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else top or 1.0
    if share:
        unit, suffix = 0.01, "%"
    elif 0 < top < 0.001:
        return [_exponent(tick) if tick else "0" for tick in ticks]
    else:
        unit, suffix = next(((u, s) for u, s in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if top >= u), (1.0, ""))
    if suffix == "k" and top < 9999.5 and step % unit:
        unit, suffix = 1.0, ""
    decimals = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    return [f"{tick / unit:,.{decimals}f}{suffix}" if tick else "0" + suffix.strip("BMk") for tick in ticks]


def downsample(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` points: lowest and highest of each equal run of points, so that spikes survive; ends are kept."""
    if len(points) <= limit:
        return list(points)
    inner, runs = points[1:-1], max((limit - 2) // 2, 1)
    kept = [points[0]]
    for run in range(runs):
        part = range(run * len(inner) // runs, (run + 1) * len(inner) // runs)
        known = [i for i in part if inner[i][1] is not None]
        if not known:
            kept.append(inner[part[0]])
            continue
        ends = {min(known, key=lambda i: inner[i][1]), max(known, key=lambda i: inner[i][1])}
        kept.extend(inner[i] for i in sorted(ends))
    return [*kept, points[-1]]


def smooth(points: Sequence[Point]) -> list[Point]:
    """Centred moving average over a 20th of the points, at least five of 20 or more, never across a gap; cut at the ends.

    Rare spikes count only as far as the scale reaches: a plain average would turn each into a plateau.
    """
    half = max(len(points) // 40, 2)
    if len(points) < 20:
        return list(points)
    low, high = fence(points)
    result: list[Point] = []
    for piece in unbroken(points):
        sums = [0.0]
        for _, y in piece:
            sums.append(sums[-1] + min(max(y, low), high))
        for i, (x, _) in enumerate(piece):
            first, last = max(i - half, 0), min(i + half + 1, len(piece))
            result.append((x, (sums[last] - sums[first]) / (last - first)))
        result.append((piece[-1][0], None))
    return result[:-1]


def unbroken(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """The stretches of points between gaps, none of them empty."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append((x, y))
    return [piece for piece in pieces if piece]


def fence(points: Sequence[Point]) -> tuple[float, float]:
    """Lowest and highest y, but no further beyond the middle 96% of the values than those 96% are wide."""
    values = sorted(y for _, y in points if y is not None)
    low, high = values[len(values) // 50], values[-1 - len(values) // 50]
    return max(values[0], 2 * low - high), min(values[-1], 2 * high - low)


def _exponent(value: float) -> str:
    mantissa, power = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(power)}"
