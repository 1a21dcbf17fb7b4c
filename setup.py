"""Package metadata. Paddle comes as packages that cannot stand side by side, so it is an extra: pick one.

    pip install -c constraints.txt -e ".[dev]"    everything on a CPU: the library, paddle, the test tools
    pip install -c constraints.txt -e ".[cpu]"    without the test tools
    pip install -c constraints.txt -e ".[gpu]" --extra-index-url <Paddle's own index for your CUDA version>
    pip install -c constraints-paddle2.txt -e ".[gpu2]"    paddle 2.6.2 from PyPI, with CUDA 11 (or cpu2)

`bash run_pretrain.sh` does this by itself (ernie2/env.sh). Install with -e: tasks/ and examples/ live in
the checkout."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "ernie2/__init__.py").read_text(encoding="utf-8"), re.MULTILINE
)[1]
README = ROOT / "README.md"

# Each paddle with the PaddleNLP that goes with it.
PADDLE, PADDLENLP = "3.3.1", "paddlenlp==3.0.0b4"
PADDLE2 = "2.6.2"
WITH_PADDLE2 = [
    "paddlenlp==2.8.1",
    "protobuf>=3.20.2,<4",  # paddle 2.6 asks for no less, and newer ones refuse its generated code
    "setuptools<80",  # paddle 2.6 imports its easy_install and does not ask for it; Python 3.12 brings none
]
CUDA11 = [
    f"nvidia-{part}-cu11"
    for part in "cublas cudnn nccl curand cusolver cusparse cufft cuda-nvrtc cuda-cupti nvtx".split()
]  # what paddlepaddle-gpu 2.6.2 opens and does not bring; env.sh links it beside paddle's own libraries
DATA = ["zstandard"]  # .zst files
SERVE = ["fastapi", "uvicorn", "prometheus-client"]  # ernie2.serve
ONNX = ["paddle2onnx", "onnxruntime"]  # ernie2.export --to onnx
TEST = ["pytest", "pytest-xdist", "ruff", "ray", "httpx", *DATA, *SERVE, *ONNX]

setup(
    name="ernie2",
    version=VERSION,
    description="ERNIE 2.0: continual multi-task pre-training, data generation, fine-tuning on PaddlePaddle",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[
        *("ernie2", "ernie2.finetune"),
        *("data_gen", "data_gen.audit", "data_gen.generators", "data_gen.interchange", "data_gen.reading"),
        "data_gen.text",
    ],
    package_data={"ernie2": ["*.css", "*.html", "*.svg", "*.sh"], "data_gen.audit": ["*.css", "*.html"]},
    entry_points={"console_scripts": ["ernie2=ernie2.__main__:console"]},
    python_requires=">=3.10,<3.13",  # numpy 1.26, which paddlenlp asks for, has no wheel for 3.13
    install_requires=[
        "numpy<=1.26.4",
        "pyyaml",
        "pydantic>=2",
        "tqdm",
        "jinja2",  # pages
        "matplotlib",  # their line charts
        "rich",  # text on a terminal
        "scikit-learn",  # metrics
        "scipy",
        "jieba",
        "opencc",  # simplify: of a corpus, of DRCD
        "rjieba",  # jieba's words, twenty times as fast
        "tokenizers>=0.21,<0.22",
        "safetensors>=0.6",
        "joblib",
        "visualdl",
        # Three that paddlenlp brings without a ceiling, and whose newest versions break its import:
        "aistudio-sdk<0.3",  # 0.3 has no aistudio_sdk.hub.download
        "datasets<4",  # draws a huggingface_hub without names that paddlenlp and tokenizers use
        "pyarrow<20",  # later ones ask for NumPy 2
    ],
    extras_require={
        "cpu": [f"paddlepaddle=={PADDLE}", PADDLENLP],
        "gpu": [f"paddlepaddle-gpu=={PADDLE}", PADDLENLP],
        "cpu2": [f"paddlepaddle=={PADDLE2}", *WITH_PADDLE2],
        "gpu2": [f"paddlepaddle-gpu=={PADDLE2}", *CUDA11, *WITH_PADDLE2],
        "data": DATA,
        "serve": SERVE,
        "onnx": ONNX,
        "ray": ["ray"],  # data generation on many machines
        "test": TEST,
        "dev": [f"paddlepaddle=={PADDLE}", PADDLENLP, *TEST],
    },
    classifiers=["Programming Language :: Python :: 3", "Operating System :: POSIX :: Linux"],
)
