"""ERNIE 2.0: continual multi-task pre-training (arXiv 1907.12412) and fine-tuning on PaddlePaddle."""

import contextlib
import importlib.abc
import importlib.machinery
import io
import os
import sys
import types
import warnings
import zlib  # noqa: F401 - before paddle: 2.6 brings a zlib of its own, and crashes Python's if that is loaded later
from pathlib import Path

__version__ = "0.1.0"

# Paddle reads these once, at its import: no strided views (its CPU kernels copy them element by element),
# oneDNN on.
os.environ.setdefault("FLAGS_use_stride_kernel", "0")
os.environ.setdefault("FLAGS_use_mkldnn", "1")

# What paddle and paddlenlp say at their import to those who build C++ extensions or packages, which nobody
# does here.
for _message in ("No ccache found", "Setuptools is replacing distutils", "pkg_resources is deprecated"):
    warnings.filterwarnings("ignore", message=_message, append=True)


class _QuietPaddle(importlib.abc.MetaPathFinder):
    """Imports paddle without its advice to set OMP_NUM_THREADS to 1: it is the number of threads that was
    asked for.

    Paddle prints the advice and gives no switch for it; all else that it writes to standard error passes."""

    def find_spec(
        self, name: str, path: object = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Paddle itself, to be run with a filter on standard error; None for every other module."""
        spec = importlib.machinery.PathFinder.find_spec(name) if name == "paddle" else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            heard = io.StringIO()
            try:
                with contextlib.redirect_stderr(heard):
                    run(module)
            finally:
                lines = heard.getvalue().splitlines(keepends=True)
                sys.stderr.write("".join(line for line in lines if "OMP_NUM_THREADS" not in line))

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _QuietPaddle())


def _is_amd_with_avx2() -> bool:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            first = file.read(4096)  # one processor says enough
    except OSError:
        return False
    return "AuthenticAMD" in first and " avx2 " in first


# The MKL inside paddle's CPU wheels takes its slowest way on processors that are not Intel's unless it is
# told to use AVX2: matrix products are then 3.4 times as fast (AMD EPYC). Read at the first product. Newer
# MKLs ignore it.
if _is_amd_with_avx2():
    os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
