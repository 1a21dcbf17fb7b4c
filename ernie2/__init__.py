"""ERNIE 2.0: continual multi-task pre-training (arXiv 1907.12412) and fine-tuning on PaddlePaddle."""

import os
import zlib  # noqa: F401 - before paddle: 2.6 brings a zlib of its own, and crashes Python's if that is loaded later

__version__ = "0.1.0"

# Paddle reads these once, at its import: no strided views (its CPU kernels copy them element by element), oneDNN on.
os.environ.setdefault("FLAGS_use_stride_kernel", "0")
os.environ.setdefault("FLAGS_use_mkldnn", "1")
