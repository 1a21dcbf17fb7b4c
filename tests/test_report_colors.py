"""The colours of tasks in the report: to be seen on every ground, and told apart by colour-blind readers as
well."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from ernie2.pages import HERE, TASK_COLORS

# What each kind of colour blindness (the strongest form) makes of linear RGB: Machado, Oliveira and Fernandes
# 2009.
SIGHT = {
    "full": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color: str) -> np.ndarray:
    """Linear RGB of #rgb or #rrggbb."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    values = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB: distances in it are those that people see."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_of_tasks(scheme: str) -> None:
    style = (HERE / "report.css").read_text(encoding="utf-8")
    light, dark = style.split("@media print")[0].split("@media screen")
    found = dict(re.findall(r"--(\w+): (#\w+)", light if scheme == "light" else dark))
    colors = [linear(found[f"t{number}"]) for number in range(TASK_COLORS)]
    for number, color in enumerate(colors):
        for ground in ("page", "band"):
            lights = sorted(float(XYZ[1] @ one) + 0.05 for one in (color, linear(found[ground])))
            assert lights[1] / lights[0] >= 3, f"t{number} is too faint on {ground}"
    for name, sight in SIGHT.items():
        for (i, one), (j, other) in combinations(enumerate(colors), 2):
            apart = np.linalg.norm(lab(np.array(sight) @ one) - lab(np.array(sight) @ other))
            assert apart > 12, f"t{i} and t{j} look alike to readers with {name} sight"
