"""Text as an array of its characters, and back: what is asked of every character of a corpus is asked by
array.

A lone surrogate, which bad input can hold, is a character like others."""

from __future__ import annotations

import numpy as np


def code_points(text: str) -> np.ndarray:
    """uint32 (len(text)), not writable: the code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def to_text(codes: np.ndarray) -> str:
    """The text of code points, int of any shape."""
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
