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

# Read at paddle's import: no strided views (its CPU kernels copy them element by element), oneDNN on.
os.environ.setdefault("FLAGS_use_stride_kernel", "0")
os.environ.setdefault("FLAGS_use_mkldnn", "1")
os.environ.setdefault("GLOG_minloglevel", "2")  # of its C++ part the errors

# Warnings of paddle and paddlenlp at their import for who builds C++ extensions or packages.
for _message in ("No ccache found", "Setuptools is replacing distutils", "pkg_resources is deprecated"):
    warnings.filterwarnings("ignore", message=_message, append=True)


class _QuietPaddle(importlib.abc.MetaPathFinder):
    """Imports paddle without its advice, which has no switch, to set OMP_NUM_THREADS to 1."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Paddle itself, to be run with a filter on standard error; None for every other module."""
        spec = importlib.machinery.PathFinder.find_spec(name) if name == "paddle" else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            try:
                with contextlib.redirect_stderr(io.StringIO()) as errors:
                    run(module)
            finally:
                lines = errors.getvalue().splitlines(keepends=True)
                sys.stderr.write("".join(line for line in lines if "OMP_NUM_THREADS" not in line))

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _QuietPaddle())


# The MKL of paddle's CPU wheels takes its slowest path on AMD's processors unless told to use AVX2, which is
# 3.4 times as fast (AMD EPYC). Read at the first matrix product. Newer MKLs ignore it.
with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as _file:
    _processor = _file.read(4096)  # one says enough
    if "AuthenticAMD" in _processor and " avx2 " in _processor:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
