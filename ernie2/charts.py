"""Line charts as SVG text: the small part of a plotting library that a report needs, without a dependency.

A chart is a `<svg>` string, valid inside HTML and as XML, coloured by the CSS variables of `CHART_CSS` (light, dark,
print). No scripts: hovering reads values from `<title>` elements. All text that reaches a chart is escaped here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ernie2.chart_scales import (
    Point,
    compact,
    downsample,
    escape,
    fence,
    nice_ticks,
    shorten,
    smooth,
    tick_labels,
    unbroken,
)

COLORS = 8
"""Colours of tasks, --t0 to --t7; report.css has their swatches. Chosen by search: on the page and on a stage's band they
keep a contrast of 3, and any two of them stay apart with each of the three kinds of colour blindness."""

CHART_CSS = """
:root{color-scheme:light dark;--page:#fff;--ink:#1d2226;--soft:#5f676e;--hair:#e3e6e8;--band:#f1f3f5;--good:#00694a;
--bad:#a63c00;--t0:#0072b2;--t1:#933405;--t2:#527e4e;--t3:#840485;--t4:#be790b;--t5:#0098ba;--t6:#744373;--t7:#514d4d}
@media screen and (prefers-color-scheme:dark){:root{--page:#15181b;--ink:#e4e7e9;--soft:#98a1a8;--hair:#2c3136;
--band:#1e2226;--good:#4cc9a0;--bad:#ff9a5c;--t0:#8fbcff;--t1:#f79b84;--t2:#77a42d;--t3:#c182b9;--t4:#f0cb3d;
--t5:#6ceefe;--t6:#ad80fd;--t7:#c7bebc}}
@media print{:root{color-scheme:light;--band:#eceff1;--hair:#d5d9dc}}
.chart{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Noto Sans CJK SC",sans-serif;
font-variant-numeric:tabular-nums;fill:var(--soft)}
.chart .name{font-size:12.5px;font-weight:600;fill:var(--ink)}.chart .stage{font-size:10px}
.chart .end{fill:var(--ink)}.chart .lead{fill:none;stroke-width:1.3;stroke-opacity:.85}
.chart .far{stroke-dasharray:1 4}
.chart .band{fill:var(--band)}.chart .grid{stroke:var(--hair);fill:none}
.chart .axis{stroke:var(--soft);stroke-opacity:.6;fill:none}
.chart .curve{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.chart .raw{fill:none;stroke-width:2.6;stroke-linecap:round;stroke-opacity:.3}
.chart .level{fill:none;stroke-width:1.3;stroke-dasharray:5 4}.chart .spot{fill:var(--page);stroke-width:1.5}
.chart .hover{fill:var(--ink);fill-opacity:0}.chart .hover:hover{fill-opacity:.07}
""" + "".join(f".s-{name}{{stroke:var(--{name})}}.f-{name}{{fill:var(--{name})}}\n"
              for name in ["ink", "soft", *(f"t{i}" for i in range(COLORS))])


CHART_SIZE = (440, 200)
"""Pixels of a chart of half the page's width, so narrow that a phone need not shrink its text much."""

CHAR = 7.0
"""Pixels kept for a character of a label: wide fonts at the size for phones (report.css) still fit."""


@dataclass(frozen=True)
class Series:
    """One curve: its direct label, its points in order of x, its colour and how it is drawn."""

    label: str
    points: Sequence[Point]
    color: str = "ink"
    """"ink", "soft", or "t0" to "t7"."""
    kind: str = "line"
    """line | smooth (faint raw points under their moving average) | marked (a spot at each point) | level (dashed)."""
    note: str = ""
    """Added to the label at the curve's end in place of the last value."""


@dataclass(frozen=True)
class Band:
    """A stretch of the x axis (a stage) that is shaded in turn with its neighbours and named at the top."""

    label: str
    start: float
    stop: float


@dataclass(frozen=True)
class Frame:
    """The plot area in pixels and the data ranges it shows."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Data x -> pixel."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Data y -> pixel, kept within a little more than the plot area."""
        low, high = self.y_range
        pixel = self.bottom - (value - low) / (high - low) * (self.bottom - self.top)
        return min(max(pixel, self.top - 40), self.bottom + 40)

    def shows(self, value: float) -> bool:
        """Whether data y lies on the scale."""
        return self.y_range[0] <= value <= self.y_range[1]


def line_chart(title: str, series: Sequence[Series], bands: Sequence[Band] = (), *,
               x_range: tuple[float, float] | None = None, share: bool = False, zero: bool = False,
               size: tuple[int, int] = CHART_SIZE) -> str:
    """Draws curves over steps as one `<svg>`.

    Args:
        title: name of the chart, top left.
        series: curves; those without a point are left out.
        bands: stages, drawn behind.
        x_range: steps shown; default: what the curves cover.
        share: values are shares of one, shown in percent.
        zero: the y axis begins at 0.
        size: width and height in pixels (the page may scale the picture).
    """
    series = [one for one in series if any(y is not None for _, y in one.points)]
    width, height = size
    head = _root(title, width, height) + f'<text class="name" x="0" y="13">{escape(title)}</text>'
    if not series:
        return head + f'<text x="{width // 2}" y="{height // 2}" text-anchor="middle">nothing logged yet</text></svg>'
    lines = [(one, downsample(smooth(one.points) if one.kind == "smooth" else one.points)) for one in series]
    xs = [x for one in series for x, _ in one.points]
    low, high = x_range or (min(xs), max(xs))
    y_range, labels = _y_range(lines, share, zero), _labels(lines, share, int(width / 2 / CHAR))
    left = 10 + CHAR * max(5, *(len(label) for _, label in _y_ticks(y_range, share)))
    right = width - 17 - CHAR * max(12, *(len(label) for _, _, label in labels))
    frame = Frame(left, 34, right, height - 22, (low, high if high > low else low + 1), y_range)
    inside = "".join(_curve(one, points, frame) for one, points in lines)
    hidden = sum(1 for one in series for _, y in one.points if y is not None and not frame.shows(y))
    hidden_note = f"{hidden} off the scale" if hidden else ""
    plot = (f'<svg x="0" y="{frame.top - 2}" width="{frame.right + 4}" height="{frame.bottom - frame.top + 4}" '
            f'viewBox="0 {frame.top - 2} {frame.right + 4} {frame.bottom - frame.top + 4}">{inside}</svg>')
    return "".join([head, _bands(bands, frame), _axes(frame, share), plot, _end_labels(labels, frame),
                    f'<text class="stage" x="{width}" y="{frame.top - 4}" text-anchor="end">{hidden_note}</text>',
                    _hover(lines, bands, frame, share), "</svg>"])


def stack(rows: Sequence[Sequence[str]], cell: tuple[int, int], title: str, gap: int = 18) -> str:
    """Sets charts of `cell` pixels in rows as one standalone SVG document, styles and background included."""
    across, down = cell[0] + gap, cell[1] + gap
    width, height = max(len(row) for row in rows) * across + gap, len(rows) * down + gap + 24
    cells = "".join(f'<g transform="translate({gap + j * across} {24 + gap + i * down})">{chart}</g>'
                    for i, row in enumerate(rows) for j, chart in enumerate(row))
    return (f'{_root(title, width, height)}<style>{escape(CHART_CSS)}</style>'
            f'<rect width="{width}" height="{height}" style="fill:var(--page)"/>'
            f'<text class="name" x="{gap}" y="26" style="font-size:15px">{escape(title)}</text>{cells}</svg>\n')


def _root(title: str, width: int, height: int) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{escape(title)}" '
            f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">')


def _y_range(lines: Sequence[tuple[Series, list[Point]]], share: bool, zero: bool) -> tuple[float, float]:
    values = [y for _, points in lines for _, y in points if y is not None]
    for one, _ in lines:
        if one.kind == "smooth":  # a rare spike must not flatten the rest of the curve
            values += fence(one.points)
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(abs(low), abs(high)):  # the rounding of equal values is no curve
        low = high
    room = 0.07 * (high - low) or 0.05 * abs(high) or (0.05 if share else 1.0)
    bottom = 0.0 if zero and low >= 0 else low - room
    if low >= 0:
        bottom = max(bottom, 0.0)
    return bottom, min(high + room, 1.0) if share and high <= 0.999 else high + room


def _path(points: Sequence[Point], frame: Frame) -> str:
    lines = ["L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in piece) for piece in unbroken(points)]
    return "".join(f"M{line}" if "L" in line else f"M{line}h0" for line in lines)


def _curve(one: Series, points: list[Point], frame: Frame) -> str:
    parts = []
    if one.kind == "smooth":
        dots = "".join(f"M{frame.x(x):.1f} {frame.y(y):.1f}h0" for x, y in downsample(one.points) if y is not None)
        parts.append(f'<path class="raw s-{one.color}" d="{dots}"/>')
    style = "level" if one.kind == "level" else "curve"
    parts.append(f'<path class="{style} s-{one.color}" d="{_path(points, frame)}"/>')
    known = [point for point in points if point[1] is not None]
    if one.kind == "marked" and len(known) <= (frame.right - frame.left) / 12:  # else they would cover the line
        parts += [f'<circle class="spot s-{one.color}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.1"/>'
                  for x, y in known]
    return "".join(parts)


def _bands(bands: Sequence[Band], frame: Frame) -> str:
    parts = []
    for number, band in enumerate(bands):
        start, stop = (min(max(frame.x(x), frame.left), frame.right) for x in (band.start, band.stop))
        if number % 2 == 0:
            parts.append(f'<rect class="band" x="{start:.1f}" y="{frame.top}" width="{max(stop - start, 0):.1f}" '
                         f'height="{frame.bottom - frame.top}"/>')
        label = band.label if stop - start > 6.2 * len(band.label) else band.label.split()[-1]
        if stop - start > 6.2 * len(label):
            parts.append(f'<text class="stage" x="{(start + stop) / 2:.1f}" y="{frame.top - 4}" '
                         f'text-anchor="middle">{escape(label)}</text>')
    return "".join(parts)


def _y_ticks(y_range: tuple[float, float], share: bool) -> list[tuple[float, str]]:
    """(value, label) of the horizontal lines."""
    scales = [nice_ticks(*y_range, count=count) for count in (4, 6, 9)]
    ticks = next((scale for scale in scales if len(scale) >= 3), scales[-1])  # one or two lines tell no scale
    return list(zip(ticks, tick_labels(ticks, share), strict=True))


def _axes(frame: Frame, share: bool) -> str:
    parts = []
    for tick, label in _y_ticks(frame.y_range, share):
        y = frame.y(tick)
        parts.append(f'<path class="grid" d="M{frame.left} {y:.1f}H{frame.right}"/>'
                     f'<text x="{frame.left - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>')
    wanted = max(2, int((frame.right - frame.left) / 55))
    ticks = [tick for tick in nice_ticks(*frame.x_range, count=wanted) if tick == int(tick)]
    labels = tick_labels(ticks)
    for tick, label in zip(ticks, labels, strict=True):
        parts.append(f'<path class="axis" d="M{frame.x(tick):.1f} {frame.bottom}v3"/>'
                     f'<text x="{frame.x(tick):.1f}" y="{frame.bottom + 15}" text-anchor="middle">{label}</text>')
    after_last = frame.x(ticks[-1]) + 5 + 0.56 * CHAR * len(labels[-1]) if ticks else frame.right
    parts.append(f'<path class="axis" d="M{frame.left} {frame.bottom}H{frame.right}"/>'
                 f'<text x="{after_last:.1f}" y="{frame.bottom + 15}">steps</text>')
    return "".join(parts)


def _labels(lines: Sequence[tuple[Series, list[Point]]], share: bool, room: int) -> list[tuple[Point, Series, str]]:
    """(last point, series, text of at most `room` characters) of the label at each curve's end."""
    found = []
    for one, points in lines:
        last = next(point for point in reversed(points) if point[1] is not None)
        note = one.note or compact(last[1], share)
        found.append((last, one, f"{shorten(one.label, room - len(note) - 1)} {note}".strip()))
    return found


def _end_labels(labels: Sequence[tuple[Point, Series, str]], frame: Frame) -> str:
    """Labels in the order of the curves' ends and apart from each other, each joined to its curve by a line of its colour."""
    ends = sorted((frame.y(last[1]), number) for number, (last, _, _) in enumerate(labels))
    places, gap = [end for end, _ in ends], 13.5
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    lowest = frame.bottom - 3.5
    for i in reversed(range(len(places))):  # pushed past the bottom: push back up
        places[i] = min(places[i], lowest)
        lowest = places[i] - gap
    parts, x = [], frame.right
    for (end, number), place in zip(ends, places, strict=True):
        last, one, text = labels[number]
        end = min(max(end, frame.top), frame.bottom)
        if x - frame.x(last[0]) > 4:  # the curve ends before the picture does
            parts.append(f'<path class="lead far s-{one.color}" d="M{frame.x(last[0]) + 4:.1f} {end:.1f}H{x}"/>')
        parts.append(f'<path class="lead s-{one.color}" d="M{x + 1} {end:.1f}L{x + 9} {place:.1f}h4"/>'
                     f'<text class="end" x="{x + 16}" y="{place + 3.5:.1f}">{escape(text)}</text>')
    return "".join(parts)


def _hover(lines: Sequence[tuple[Series, list[Point]]], bands: Sequence[Band], frame: Frame, share: bool) -> str:
    """Invisible strips over the plot, each with the values nearest to its middle as its tooltip."""
    known = [(one, [p for p in points if p[1] is not None]) for one, points in lines]
    count = min(48, max(len(points) for _, points in known))
    (low, high), wide, parts = frame.x_range, (frame.right - frame.left) / count, []
    for i in range(count):
        middle = low + (i + 0.5) * (high - low) / count
        values = [next((f"{band.label}, " for band in bands if band.start <= middle <= band.stop), "")
                  + f"step {middle:,.0f}"]
        for one, points in known:
            at = bisect_left(points, (middle,))
            x, y = min(points[max(at - 1, 0):at + 1], key=lambda point: abs(point[0] - middle))
            near = max((high - low) / count, (points[-1][0] - points[0][0]) / len(points))
            if one.kind == "level" or abs(x - middle) <= near:
                values.append(f"{one.label} {compact(y, share)}")
        if len(values) > 1:
            parts.append(f'<rect class="hover" x="{frame.left + i * wide:.1f}" y="{frame.top}" width="{wide:.1f}" '
                         f'height="{frame.bottom - frame.top}"><title>{escape(chr(10).join(values))}</title></rect>')
    return "".join(parts)
