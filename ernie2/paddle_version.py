"""Which versions of paddle this code is tested with. Two, because V100 users find 2.6.2 on PyPI and 3.x on
Paddle's own index."""

from __future__ import annotations

import re

TESTED = "2.6.x and 3.x"
_TESTED = re.compile(r"(2\.6|3\.\d+)\.")


def check(version: str) -> None:
    """Raises ImportError where `version` (paddle.__version__) is not in the tested range."""
    if not _TESTED.match(version):
        raise ImportError(
            f"paddle {version}: ernie2 is tested with {TESTED}; pip install -c constraints.txt -e '.[cpu]' "
            "(or "
            f"'.[gpu]') brings 3.x, -c constraints-paddle2.txt -e '.[cpu2]' (or '.[gpu2]') 2.6.x"
        )
