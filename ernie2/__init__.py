"""ERNIE 2.0: continual multi-task pre-training (arXiv 1907.12412) and fine-tuning on PaddlePaddle."""

__version__ = "0.1.0"
