"""ERNIE 2.0: continual multi-task pre-training (arXiv 1907.12412) and fine-tuning on PaddlePaddle."""

import os
import zlib  # noqa: F401 - before paddle: 2.6 brings a zlib of its own, and crashes Python's if that is loaded later
from pathlib import Path

__version__ = "0.1.0"

# Paddle reads these once, at its import: no strided views (its CPU kernels copy them element by element), oneDNN on.
os.environ.setdefault("FLAGS_use_stride_kernel", "0")
os.environ.setdefault("FLAGS_use_mkldnn", "1")


def _is_amd_with_avx2() -> bool:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            first = file.read(4096)  # one processor says enough
    except OSError:
        return False
    return "AuthenticAMD" in first and " avx2 " in first


# The MKL inside paddle's CPU wheels takes its slowest way on processors that are not Intel's unless it is told to use AVX2:
# matrix products are then 3.4 times as fast (AMD EPYC). Read at the first product. Newer MKLs ignore it.
if _is_amd_with_avx2():
    os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
