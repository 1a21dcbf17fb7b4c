"""How a worker of benchmarks/train_step.py talks to it. Nothing of ernie2 is imported: peers must not meet its variables."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(step: Callable[[], int], more: Callable[[float], dict[str, Any]] = lambda seconds: {}) -> None:
    """Says `ready`, then answers each line of standard input, a number of steps, with one line of JSON.

    Args:
        step: does a step to its end and returns its real tokens.
        more: seconds of the steps -> what else to answer.
    """
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        tokens = sum(step() for _ in range(int(line)))
        seconds = time.perf_counter() - begin
        print(json.dumps({"tokens": tokens, "seconds": seconds, **more(seconds)}), flush=True)
