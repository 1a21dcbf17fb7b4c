"""The versions of paddle that this code is tested with: 2.6.2 is on PyPI, 3.x on Paddle's own index."""

import re


def check(version: str) -> None:
    """Raises ImportError where `version` (paddle.__version__) is not in the tested range."""
    if not re.match(r"(2\.6|3\.\d+)\.", version):
        remedy = "pip install -c constraints.txt -e '.[cpu]' (or '.[gpu]') brings 3.x, "
        remedy += "-c constraints-paddle2.txt -e '.[cpu2]' (or '.[gpu2]') 2.6.x"
        raise ImportError(f"paddle {version}: ernie2 is tested with 2.6.x and 3.x; {remedy}")
