"""HTML pages: templates, numbers for people, line charts by matplotlib. No tensors here.

A page loads nothing, has no scripts and is well-formed XML. Its colors, those of the charts too, are the CSS
variables of report.css. jinja2 and matplotlib escape every text."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ernie2.disk import write_text
from ernie2.strict import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
TASK_COLORS = 8  # --t0 to --t7 (report.css), which stay apart with each kind of color blindness
VARIABLES = ("ink", "soft", "hair", "band", "page", *(f"t{number}" for number in range(TASK_COLORS)))
COLORS = {name: f"#0000{number:02x}" for number, name in enumerate(VARIABLES)}  # _svg puts var(--name) there

# All sizes are in pixels.
CHART_SIZE = (440, 200)  # half the page's width, so narrow that a phone need not shrink its text much
CHAR_WIDTH = 7.0  # of a label's character: wide fonts at the size for phones (report.css) still fit
TOP, BOTTOM, LEFT = 34, 22, 45  # margins around the plot
DOT_GAP = 12  # between the marked points of a curve; denser dots would cover the line
# Points closer than a pixel are merged: long runs log many.
SETTINGS = {"font.size": 11, "path.simplify_threshold": 1.0, "svg.fonttype": "none", "text.parse_math": False}


def clean(value: object) -> str:
    """Text without what XML forbids: control characters and lone surrogates become U+FFFD."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(value))


def cut(text: str, most: int) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= most else text[: most - 1] + "…"


def compact(value: float) -> str:
    """A number for people: 1234567 -> 1.23M, 43210 -> 43.2k, 0.5 -> 0.500, 0.001 -> 1e-3."""
    size = abs(value)
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= 0.9995 * unit:
            return f"{float(f'{value / unit:.3g}'):g}{letter}"
    if 0 < size < 0.00995:
        return re.sub(r"\.?0*e-0?", "e-", f"{value:.2e}")
    return f"{value:#.3g}" if 0 < size < 99.95 else f"{value:.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash for None."""
    return "–" if value is None else f"{value:.{digits}%}"


def environment(*folders: Path) -> Environment:
    """jinja2 over the templates of this folder and others: escapes everything, fails on what is not there."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.loader = FileSystemLoader([*folders, HERE])
    made.finalize = lambda value: value if isinstance(value, Markup) else clean(value)
    made.filters |= {"compact": compact, "percent": percent, "comma": "{:,}".format}
    made.filters["duration"] = lambda seconds: timedelta(seconds=round(seconds))
    return made


def write(path: Path, text: str) -> None:
    """Writes a page, whole or not at all. Raises ConfigError where that cannot be."""
    try:
        write_text(path, text, sync=False)
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror}; choose another place with --out"
        raise ConfigError(message) from None


Stages = Sequence[tuple[int, int, str]]  # steps before each stage, its last step, its name


@dataclass
class Series:
    """A curve: (step, value) in order of steps, in a color of VARIABLES.

    smooth: faint values, rare spikes cut, under their moving average; level: dashed."""

    label: str
    points: Sequence[tuple[float, float]]
    color: str = "ink"
    kind: Literal["line", "smooth", "level"] = "line"

    def __post_init__(self) -> None:
        self.raw = self.drawn = np.array(self.points, float).reshape(-1, 2).T
        if self.kind == "smooth" and len(self.points) >= 20:
            self.raw, self.drawn = smooth(*self.raw)


def smooth(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values without spikes far beyond 96% of them, and their moving average over a 20th, as (2, 2, N)."""
    low, high = np.percentile(values, [2, 98])
    values = np.clip(values, 2 * low - high, 2 * high - low)
    window = np.ones(2 * max(len(values) // 40, 2) + 1)
    sums, counts = (np.convolve(one, window, "same") for one in (values, np.ones(len(values))))
    return np.array([[steps, values], [steps, sums / counts]])


def line_chart(
    stages: Stages, title: str, series: Sequence[Series], share: bool = False, size: tuple = CHART_SIZE
) -> Markup:
    """Draws curves over the stages of a run as one `<svg>`; nothing without points. share: in percent."""
    from matplotlib import rc_context  # here: it takes most of a second
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports its font cache
    series = sorted([one for one in series if one.points], key=lambda one: -one.drawn[1, -1])
    if not series:
        return Markup()
    last = [percent(one.drawn[1, -1]) if share else compact(one.drawn[1, -1]) for one in series]
    most = int(size[0] / 2 / CHAR_WIDTH)
    labels = [f"{cut(clean(one.label), most - len(end))} {end}".strip() for one, end in zip(series, last)]
    with rc_context(SETTINGS | {"svg.hashsalt": f"{title} {size}"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has it
        figure = Figure((size[0] / 72, size[1] / 72), facecolor="none")
        figure.text(0, 1 - 13 / size[1], clean(title), gid="name")
        width = size[0] - LEFT - 30 - CHAR_WIDTH * max(12, *map(len, labels))
        place = (LEFT / size[0], BOTTOM / size[1], width / size[0], (size[1] - TOP - BOTTOM) / size[1])
        axes = figure.add_axes(place, facecolor="none", xlim=(0, max(stages[-1][1], 1)))
        _stages(axes, width, stages)
        curves = [_curve(axes, width, one) for one in series]
        _axes(axes, width, share)
        place = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False, "handlelength": 1}
        for text in axes.legend(curves, labels, **place).get_texts():
            text.set_gid("end")
        return _svg(figure, size, title)


def _stages(axes: Axes, width: float, stages: Stages) -> None:
    """Shades every other stage; names those that are wide enough."""
    for number, (start, stop, name) in enumerate(stages):
        if number % 2 == 0:
            axes.axvspan(start, stop, color=COLORS["band"], linewidth=0, zorder=0, gid="band")
        characters = (stop - start) / axes.get_xlim()[1] * width / 6.2
        name = name if len(name) < characters else name.split()[-1]
        if len(name) < characters:
            at = {"transform": axes.get_xaxis_transform(), "ha": "center", "gid": "stage"}
            axes.text((start + stop) / 2, 1.02, name, **at)


def _curve(axes: Axes, width: float, one: Series) -> Any:
    style = {"color": COLORS[one.color], "linewidth": 1.8, "gid": "curve"}
    if one.kind == "smooth":
        axes.plot(*one.raw, color=COLORS[one.color], linewidth=1, alpha=0.3)
    if one.kind == "level":
        style |= {"linewidth": 1.3, "linestyle": (0, (4, 3)), "gid": "level"}
    elif len(one.points) <= width / DOT_GAP:
        style |= {"marker": "o", "markersize": 3, "clip_on": False}
    return axes.plot(*one.drawn, **style)[0]


def _axes(axes: Axes, width: float, share: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    def number(value: float, place: int | None = None) -> str:
        return compact(value) if not 0.001 <= abs(value) < 1000 else f"{value:.6g}"

    axes.xaxis.set_major_locator(MaxNLocator(max(int(width / 55), 2), steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(number)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.yaxis.set_major_formatter((lambda value, _: f"{100 * value:.6g}%") if share else number)
    axes.annotate("steps", (1, 0), (17, -15), "axes fraction", "offset pixels", annotation_clip=False)
    axes.tick_params(axis="x", color=COLORS["soft"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=COLORS["hair"], linewidth=1)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(COLORS["soft"])
    low, high = axes.dataLim.intervaly
    if 0 <= low <= high / 2 or low == high >= 0:
        axes.set_ylim(bottom=0)


TAG_PATTERNS = {  # matplotlib's tags get one decimal, variables for colors, classes for `gid`, no fonts
    r"(\.\d)\d+": r"\1",
    r"#0000(0[0-9a-f])": lambda found: f"var(--{VARIABLES[int(found[1], 16)]})",
    r'<g id="([a-z]+)">': r'<g class="\1">',
    r'<g id="[^"]*">': "<g>",
    r'font-size: [^;"]*; font-family: [^;"]*(; )?': "",
    r"xlink:href": "href",
    r"\s*\n\s*": " ",
}


def _svg(figure: Figure, size: tuple[int, int], title: str) -> Markup:
    """The figure as `<svg>` of the page; its texts stay as they are."""

    def tag(found: re.Match) -> str:
        text = found[0]
        for pattern, by in TAG_PATTERNS.items():
            text = re.sub(pattern, by, text)
        return text

    file = io.StringIO()
    figure.savefig(file, format="svg")
    inside = re.sub(r"<[^>]+>\s*", tag, file.getvalue().partition("</defs>")[2].rpartition("</svg>")[0])
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" width="{size[0]}" '
        f'height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}" aria-label="{escape(clean(title))}">'
        f"{inside}</svg>"
    )
