"""Quotations and brackets of a text of many lines: where the outermost ones open and close."""

from __future__ import annotations

import numpy as np

from ernie2.characters import to_text

PAIRS = {
    "“": "”",
    "‘": "’",
    "「": "」",
    "『": "』",
    "《": "》",
    "〈": "〉",
    "【": "】",
    "（": "）",
    "(": ")",
    "[": "]",
    '"': '"',
}
"""What opens a quotation or a bracket, and what closes it."""

_CLOSERS = np.zeros(1 << 16, np.uint32)
_CLOSERS[[*map(ord, PAIRS)]] = [*map(ord, PAIRS.values())]
_LOOK_BACK = (
    8  # levels of quotations; enough, and keeps a million brackets that never close from taking forever
)


def outermost(
    codes: np.ndarray, at: np.ndarray, line: np.ndarray, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Outermost quotations and brackets that are not too long.

    Args:
        codes: uint32 (n), the marks.
        at: int64 (n), their places, rising.
        line: int64 (n), the line of each; a quotation ends with its line.
        limits: int (n), the most characters of a quotation in the line of each.

    Returns:
        int64 (Q) twice, rising: where they open, and where they close."""
    # Straight quotes open and close in turn; an odd number of them in a line (inches, a slip) says nothing.
    straight = codes == ord('"')
    odd = np.bincount(line[straight], minlength=line[-1] + 1 if len(line) else 0) % 2 == 1
    kept = ~(straight & odd[line])
    codes, at, line, limits = codes[kept], at[kept], line[kept], limits[kept]
    flat = _in_turn(codes, line)
    firsts, lasts = at[flat][0::2], at[flat][1::2]
    short = lasts - firsts <= limits[flat][0::2]
    others = _nested(to_text(codes[~flat]), at[~flat], line[~flat], limits[~flat])
    firsts, lasts = (np.concatenate(both) for both in zip((firsts[short], lasts[short]), others, strict=True))
    order = np.argsort(firsts)
    return firsts[order], lasts[order]


def _in_turn(codes: np.ndarray, line: np.ndarray) -> np.ndarray:
    """bool (n): marks of lines in which each that opens is followed by the one that closes it, as in nearly
    all lines."""
    if not len(codes):
        return np.zeros(0, bool)
    begins = np.flatnonzero(np.diff(line, prepend=-1))
    counts = np.diff(begins, append=len(line))
    opens = (np.arange(len(line)) - np.repeat(begins, counts)) % 2 == 0
    closed_next = np.append(_CLOSERS.take(codes[:-1]) == codes[1:], False)
    wrong = np.logical_or.reduceat(opens & ~closed_next, begins) | (counts % 2 == 1)
    return np.repeat(~wrong, counts)


def _nested(
    marks: str, at: np.ndarray, line: np.ndarray, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `outermost`, of marks that stand within each other, or alone."""
    firsts, lasts, stack, current = [], [], [], -1
    for mark, place, here, limit in zip(marks, at.tolist(), line.tolist(), limits.tolist(), strict=True):
        if here != current:
            stack, current = [], here
        closer = PAIRS.get(mark)
        depth = _depth(stack, mark) if closer is None or closer == mark else -1
        if depth >= 0:
            first = stack[depth][1]
            del stack[depth:]
            if place - first <= limit:
                while firsts and firsts[-1] > first:
                    firsts.pop()
                    lasts.pop()
                firsts.append(first)
                lasts.append(place)
        elif closer is not None:
            stack.append((closer, place))
    return np.array(firsts, np.int64), np.array(lasts, np.int64)


def _depth(stack: list[tuple[str, int]], mark: str) -> int:
    """Index of the nearest opening mark that `mark` closes; -1 where there is none among the last few."""
    if stack and stack[-1][0] == mark:
        return len(stack) - 1
    for depth in range(len(stack) - 2, max(len(stack) - 1 - _LOOK_BACK, -1), -1):
        if stack[depth][0] == mark:
            return depth
    return -1
