"""What an HTML page is made of: templates, figures for people, line charts by matplotlib. No tensors here.

A page loads nothing from anywhere, has no scripts, and is well-formed XML as well. Its colours, those of the
charts too, are the CSS variables of report.css. All text that reaches it is escaped by jinja2 or matplotlib.
"""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ernie2.run_log import Run
from ernie2.strict import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
TASK_COLORS = 8
"""Colours of tasks, --t0 to --t7 (report.css). Found by search: on the page and on a stage's band they have a
contrast of 3, any two of them stay apart with each of the three kinds of colour blindness."""
VARIABLES = ("ink", "soft", "hair", "band", "page", *(f"t{number}" for number in range(TASK_COLORS)))
"""CSS variables of a chart. matplotlib draws number i as #0000xx, which is then replaced by var(--name)."""

CHART_SIZE = (440, 200)
"""Pixels of a chart of half the page's width, so narrow that a phone need not shrink its text much."""
CHAR = 7.0
"""Pixels kept for a character of a label: wide fonts at the size for phones (report.css) still fit."""
TOP, BOTTOM = 34, 22
"""Pixels above and below the plot."""
LABEL_GAP = 13.5
"""Pixels from one curve's label to the next."""
SPOT = 12
"""Pixels of a plot for each point that is marked; more spots would cover the line."""
STRIPS = 40
"""Stretches of a chart that tell their values when the mouse is over them."""
STYLES = {
    "line": {"linewidth": 1.8},
    "smooth": {"linewidth": 1.8},
    "marked": {"linewidth": 1.8},
    "level": {"linewidth": 1.3, "linestyle": (0, (4, 3))},
}


def clean(value: object) -> str:
    """Text without what XML forbids: control characters and lone surrogates become U+FFFD."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(value))


def compact(value: float) -> str:
    """A number for people: 1234567 -> 1.23M, 43210 -> 43.2k, 0.5 -> 0.500, 0.001 -> 1e-3."""
    size = abs(value)
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}" if size < 999.5 * unit else f"{value / unit:.0f}{letter}"
    if 0 < size < 0.00995:
        return (
            f"{value:.3g}".replace("e-0", "e-") if size < 1e-4 else re.sub(r"\.?0*e-0", "e-", f"{value:.2e}")
        )
    return f"{value:#.3g}" if 0 < size < 99.95 else f"{value:.0f}"


def _plain(value: float) -> str:
    """A number on a scale: 0, 0.25, 5e-5."""
    return compact(value) if abs(value) < 0.001 else f"{value:.6g}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash for None."""
    return "–" if value is None else f"{value:.{digits}%}"


def environment(*folders: Path) -> Environment:
    """jinja2 over the templates of this folder and others: escapes everything, fails on what is not there."""
    made = Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"compact": compact, "percent": percent, "comma": "{:,}".format}
    return made


def write(path: Path, text: str) -> None:
    """Writes a page under its name only when it is whole. Raises ConfigError where that cannot be."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; choose another place with --out"
        ) from None


# ---- line charts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """One curve: its direct label, its points in order of x, its colour and how it is drawn."""

    label: str
    points: Sequence[tuple[float, float]]
    """(step, value); value NaN = a gap in the line."""
    color: str = "ink"
    """One of VARIABLES."""
    kind: Literal["line", "smooth", "marked", "level"] = "line"
    """smooth: faint raw values under their moving average; marked: a spot at each point; level: dashed."""
    note: str = ""
    """Added to the label at the curve's end in place of the last value."""

    @cached_property
    def raw(self) -> np.ndarray:
        """float (2, N): steps and values."""
        return np.array(self.points, float).reshape(-1, 2).T

    @cached_property
    def drawn(self) -> np.ndarray:
        """float (2, n): what the line shows."""
        return smooth(self.raw) if self.kind == "smooth" else self.raw

    @cached_property
    def known(self) -> np.ndarray:
        """float (2, n): the drawn points without the gaps."""
        return self.drawn[:, ~np.isnan(self.drawn[1])]


def fence(values: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value, but no further beyond the middle 96% of them than those 96% are wide."""
    low, high = np.nanpercentile(values, [2, 98])
    return max(np.nanmin(values), 2 * low - high), min(np.nanmax(values), 2 * high - low)


def smooth(points: np.ndarray) -> np.ndarray:
    """Centred moving average over a 20th of points (2, N), never across a gap; fewer than 20 stay.

    Rare spikes count only as far as `fence`: a plain average would turn each into a plateau."""
    steps, values = points
    if len(values) < 20:
        return points
    window, clipped = np.ones(2 * max(len(values) // 40, 2) + 1), np.clip(values, *fence(values))
    pieces = []
    for piece in np.split(
        clipped, np.flatnonzero(np.isnan(clipped))
    ):  # each but the first begins with its gap
        gap, rest = piece[np.isnan(piece)], piece[~np.isnan(piece)]
        sums, counts = (
            np.convolve(one, window)[len(window) // 2 :][: len(rest)] for one in (rest, np.ones(len(rest)))
        )
        pieces += [gap, sums / counts]
    return np.stack([steps, np.concatenate(pieces)])


def line_chart(
    run: Run,
    title: str,
    series: Sequence[Series],
    *,
    share: bool = False,
    zero: bool = False,
    size: tuple[int, int] = CHART_SIZE,
) -> Markup:
    """Draws curves over the steps of a run, its stages behind them, as one `<svg>`.

    Args:
        run: Its stages and steps.
        title: Name of the chart, top left.
        series: Curves; those without a point are left out.
        share: Values are shares of one, shown in percent.
        zero: The y axis begins at 0.
        size: Width and height in pixels (the page may scale the picture)."""
    from matplotlib import rc_context  # here: it takes most of a second
    from matplotlib.figure import Figure

    series = [one for one in series if one.points and one.known.size]
    width, height = size
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{title} {size}",
        "text.parse_math": False,
        "font.size": 11,
    }
    settings["path.simplify_threshold"] = 1.0  # pixels: long runs log more points than there are
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its caches
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has it
        figure = Figure((width / 72, height / 72))
        figure.text(0, 1 - 13 / height, clean(title), gid="name")
        if not series:
            figure.text(0.5, 0.5, "nothing logged yet", ha="center")
        return _svg(figure, title, _plot(figure, run, series, share, zero) if series else "")


def _plot(figure: Figure, run: Run, series: Sequence[Series], share: bool, zero: bool) -> str:
    """Axes, stages, curves and labels. Returns the strips that tell values under the mouse."""
    width, height = 72 * figure.get_size_inches()
    labels = [_label(one, share, int(width / 2 / CHAR)) for one in series]
    right = 17 + CHAR * max(12, *map(len, labels))
    left, down = 10 + CHAR * 5, height - TOP - BOTTOM
    axes = figure.add_axes((left / width, BOTTOM / height, 1 - (left + right) / width, down / height))
    axes.set_xlim(0, max(run.last_step, 1))
    axes.set_ylim(*_y_range(series, share, zero))
    _scales(axes, share)
    _stages(axes, run)
    for one in series:
        _curve(axes, one)
    _end_labels(axes, series, labels)
    low, high = axes.get_ylim()
    hidden = sum(int(((one.raw[1] < low) | (one.raw[1] > high)).sum()) for one in series)
    if hidden:
        figure.text(1, 1 - (TOP - 4) / height, f"{hidden} off the scale", ha="right", gid="stage")
    return _hover(run, series, share, (left, TOP, width - left - right, down))


def _pixels(axes: Axes) -> tuple[float, float]:
    """Width and height of the plot."""
    width, height = 72 * axes.figure.get_size_inches()
    box = axes.get_position()
    return box.width * width, box.height * height


def _label(one: Series, share: bool, room: int) -> str:
    """The curve's label with its last value, in at most `room` characters."""
    last = float(one.known[1, -1])
    note = one.note or (percent(last) if share else compact(last))
    room -= len(note) + 1
    label = clean(one.label)
    return f"{label if len(label) <= room else label[: room - 1] + '…'} {note}".strip()


def _y_range(series: Sequence[Series], share: bool, zero: bool) -> tuple[float, float]:
    values = [one.known[1] for one in series]
    # Of what is smoothed the raw values, too, but a rare spike must not flatten the curve.
    values += [np.array(fence(one.raw[1])) for one in series if one.kind == "smooth"]
    low, high = float(np.concatenate(values).min()), float(np.concatenate(values).max())
    if high - low < 1e-6 * max(abs(low), abs(high)):  # the rounding of equal values is no curve
        low = high
    room = 0.07 * (high - low) or 0.05 * abs(high) or (0.05 if share else 1.0)
    bottom = low - room if low < 0 else 0.0 if zero else max(low - room, 0.0)
    return bottom, min(high + room, 1.0) if share and high <= 0.999 else high + room


def _scales(axes: Axes, share: bool) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    thousands = EngFormatter(sep="")
    small = FuncFormatter(lambda value, _: f"{100 * value:.6g}%" if share else _plain(value))
    steps = max(int(_pixels(axes)[0] / 55), 2)
    axes.xaxis.set_major_locator(MaxNLocator(steps, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(thousands)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.yaxis.set_major_formatter(thousands if axes.get_ylim()[1] >= 1000 else small)
    axes.annotate("steps", (1, 0), (17, -15), "axes fraction", "offset pixels", annotation_clip=False)
    axes.tick_params(axis="x", length=3, width=0.8, color=_color("soft"), pad=3)
    axes.tick_params(axis="y", length=0, pad=5)
    axes.grid(axis="y", color=_color("hair"), linewidth=1)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(_color("soft"))


def _stages(axes: Axes, run: Run) -> None:
    """Shades every other stage; names those with room for it."""
    for number, stage in enumerate(run.stages):
        if number % 2 == 0:
            axes.axvspan(stage.start, stage.stop, color=_color("band"), linewidth=0, zorder=0, gid="band")
        name = run.stage_name(stage.number)
        room = (stage.stop - stage.start) / max(run.last_step, 1) * _pixels(axes)[0] / 6.2
        name = name if len(name) < room else name.split()[-1]
        if len(name) < room:
            middle = (stage.start + stage.stop) / 2
            axes.text(middle, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", gid="stage")


def _curve(axes: Axes, one: Series) -> None:
    color = _color(one.color)
    if one.kind == "smooth":
        axes.plot(*one.raw, color=color, linewidth=1, alpha=0.3)
    marks = {}
    if one.kind != "level" and one.known.shape[1] <= _pixels(axes)[0] / SPOT:
        fill = _color("page") if one.kind == "marked" else color
        marks = {"marker": "o", "markersize": 4.2 if one.kind == "marked" else 2, "markerfacecolor": fill}
    axes.plot(
        *one.drawn, color=color, gid="level" if one.kind == "level" else "curve", **STYLES[one.kind], **marks
    )


def _end_labels(axes: Axes, series: Sequence[Series], labels: Sequence[str]) -> None:
    """Labels in the order of the curves' ends, apart from each other, each joined to its curve by a line."""
    low, high = axes.get_ylim()
    ends = [min(max((one.known[1, -1] - low) / (high - low), 0.0), 1.0) for one in series]
    width, height = _pixels(axes)
    for one, label, end, place in zip(series, labels, ends, _apart(ends, height), strict=True):
        style = {"color": _color(one.color), "linewidth": 1.2, "clip_on": False}
        last, right = one.known[0, -1], axes.get_xlim()[1]
        if last < right:  # the curve ends before the picture does
            axes.plot([last, right], [low + end * (high - low)] * 2, linestyle=(0, (1, 3)), **style)
        lead = [1, 1 + 9 / width, 1 + 13 / width]
        axes.plot(lead, [end, place, place], transform=axes.transAxes, **style)
        axes.text(1 + 16 / width, place, label, transform=axes.transAxes, va="center", gid="end")


def _apart(ends: Sequence[float], height: float) -> list[float]:
    """Places for labels near `ends`, in their order and LABEL_GAP apart, as shares of `height` pixels."""
    order, gap = sorted(range(len(ends)), key=ends.__getitem__), LABEL_GAP / height
    places, least, most = list(ends), -np.inf, 1 - 3.5 / height
    for number in order:
        places[number] = max(places[number], least)
        least = places[number] + gap
    for number in reversed(order):  # pushed past the top: push back down
        places[number] = min(places[number], most)
        most = places[number] - gap
    return places


def _hover(run: Run, series: Sequence[Series], share: bool, box: tuple[float, float, float, float]) -> str:
    """Invisible strips over the plot (left, top, width, height), whose tooltips tell the values there."""
    left, top, width, height = box
    edges, parts = np.linspace(0, run.last_step, STRIPS + 1), []
    for number, (start, stop) in enumerate(pairwise(edges)):
        middle = (start + stop) / 2
        stage = next(stage for stage in run.stages if middle <= stage.stop)
        lines = [f"{run.stage_name(stage.number)}, step {middle:,.0f}"]
        for one in series:
            steps, values = one.known
            near = int(np.abs(steps - middle).argmin())
            reach = max(stop - start, (steps[-1] - steps[0]) / len(steps))
            if one.kind == "level" or abs(steps[near] - middle) <= reach:
                lines.append(f"{one.label} {percent(values[near]) if share else compact(values[near])}")
        x = left + number * width / STRIPS
        parts.append(
            f'<rect class="hover" x="{x:.1f}" y="{top}" width="{width / STRIPS:.1f}" height="{height}">'
            f"<title>{escape(clean(chr(10).join(lines)))}</title></rect>"
        )
    return "".join(parts)


def _color(name: str) -> str:
    return f"#0000{VARIABLES.index(name):02x}"


TAG_PATTERNS = (
    (r"(\.\d)\d+", r"\1"),
    (r"#0000(0[0-9a-f])", lambda found: f"var(--{VARIABLES[int(found[1], 16)]})"),
    (r'<g id="(name|stage|end|band|curve|level)">', r'<g class="\1">'),
    (r'<g id="[^"]*">', "<g>"),
    (r'font-size: [^;"]*; font-family: [^;"]*(; )?', ""),
    (r' transform="rotate\(-?0 [^"]*"', ""),
    (r"xlink:href", "href"),
    (r"\s*\n\s*", " "),
)
"""What becomes of matplotlib's tags: classes for ids, variables for colours, no fonts, one decimal."""


def _svg(figure: Figure, title: str, extra: str = "") -> Markup:
    """The figure as `<svg>` of the page; its texts stay as they are."""

    def tag(found: re.Match) -> str:
        text = found[0]
        for pattern, by in TAG_PATTERNS:
            text = re.sub(pattern, by, text)
        return text

    file = io.StringIO()
    figure.patch.set_visible(False)
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    inside = file.getvalue().partition("</defs>")[2].rpartition("</svg>")[0]
    inside = re.sub(r"<[^>]+>\s*", tag, inside)
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" aria-label="{escape(clean(title))}">{inside}{extra}</svg>'
    )
