"""data_gen.engine: results in the order of the calls, errors as they were raised, no process left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT

from data_gen.engine import Engine
from ernie2.config import ConfigError


@pytest.fixture()
def two() -> Iterator[Engine]:
    with Engine("local", 2) as engine:
        engine.start(dict)
        yield engine
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def late(number: int, size: int = 0) -> tuple[int, int, int]:
    """Its number, its process, how much came; the earlier the call the later it is done."""
    time.sleep(0.01 * (5 - number % 5))
    return number, os.getpid(), size


def fails(error: Exception) -> None:
    raise error


def waits(data: bytes) -> int:
    time.sleep(0.2)
    return len(data)


def leaves(data: bytes) -> None:
    waits(data)
    os._exit(9)


def touches(path: Path) -> None:
    path.touch()


def test_results_come_in_the_order_of_the_calls(two: Engine) -> None:
    for count in (0, 1, 23):
        done = list(two.run(partial(late, number) for number in range(count)))
        assert [number for number, *_ in done] == list(range(count))
        assert os.getpid() not in {process for _, process, _ in done}
    assert len({process for _, process, _ in done}) == 2


def test_calls_are_asked_for_as_they_are_needed(two: Engine) -> None:
    asked: list[int] = []

    def calls() -> Iterator[partial]:
        for number in range(30):
            asked.append(number)
            yield partial(late, number)

    for number, *_ in two.run(calls()):
        assert len(asked) <= number + 10  # two at work, two ahead, and those that overtook it


def test_large_arguments_and_results_pass(two: Engine) -> None:
    sizes = [3_000_000, 7, 0, 9_000_000]
    many = [bytes([number]) * size for number, size in enumerate(sizes * 3)]
    assert list(two.run(partial(bytes.swapcase, one) for one in many)) == [one.swapcase() for one in many]


def test_a_worker_has_its_next_call_before_anything_becomes_of_the_last(two: Engine, tmp_path: Path) -> None:
    def done() -> int:
        return len([*tmp_path.iterdir()])

    for number, _ in enumerate(two.run(partial(touches, tmp_path / str(one)) for one in range(6))):
        deadline = time.monotonic() + 10
        while (
            done() < min(number + 2, 6) and time.monotonic() < deadline
        ):  # the other goes on while this one looks on
            time.sleep(0.01)
        assert done() >= min(number + 2, 6)


class Odd(Exception):  # noqa: N818 - a user's
    """Cannot be made again from its arguments, as exceptions of users' generators may be."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} {other}")


@pytest.mark.parametrize(
    "error", [ConfigError("data.x: wrong"), OSError(28, "No space left on device", "file"), ValueError("no")]
)
def test_errors_are_raised_as_they_were(two: Engine, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        list(two.run([partial(late, 1), partial(fails, error), partial(late, 2)]))
    assert caught.value.args == error.args
    assert isinstance(error, ConfigError) or "in fails" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_sent_is_told(two: Engine) -> None:
    with pytest.raises(RuntimeError, match="Odd: 1 2"):
        list(two.run([partial(odd)]))


def odd() -> None:
    raise Odd(1, 2)


def test_a_worker_that_dies_is_named(two: Engine) -> None:
    """Also while calls larger than a pipe holds are on their way."""
    large = bytes(3_000_000)
    with pytest.raises(ConfigError, match="a worker process was killed.*fewer --workers"):
        list(two.run(partial(leaves if number == 2 else waits, large) for number in range(9)))


def test_after_an_error_no_call_is_waited_for() -> None:
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Engine("local", 2) as engine:
        engine.start(dict)
        for _ in engine.run([partial(late, 0), partial(time.sleep, 60)]):
            raise KeyboardInterrupt
    assert time.monotonic() - begin < 30


def test_errors_of_the_calls_themselves(two: Engine, tmp_path: Path) -> None:
    def calls() -> Iterator[partial]:
        yield partial(late, 0)
        (tmp_path / "none").read_bytes()

    with pytest.raises(FileNotFoundError):
        list(two.run(calls()))


PARENT = """
import os, time
from functools import partial
from data_gen.engine import Engine

def slow():
    time.sleep(0.05)
    return os.getpid()

with Engine("local", 2) as engine:
    engine.start(dict)
    print(*set(engine.run([partial(slow)] * 6)), flush=True)
    time.sleep(60)
"""


def test_workers_die_with_a_process_that_is_killed_by_force() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    numbers = process.stdout.readline().split()
    assert len(numbers) == 2
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < end, "a worker outlives the process it works for"
        time.sleep(0.05)


INTERRUPTED = """
import os, signal
from data_gen.engine import Engine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    with Engine("local", 2) as engine:
        engine.start(dict)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupted_between_two_forks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
