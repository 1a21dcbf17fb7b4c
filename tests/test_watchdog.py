"""The watchdog, with processes that are forked here and need no paddle: who is missing, who died, who leaves
how."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie2 import watchdog
from ernie2.strict import ConfigError, cli
from ernie2.watchdog import PEER_LOST, watched

FACTS = {"code": "c0de", "recipe": "r"}


def freed_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("", 0)) as door:
        return door.getsockname()[1]


def in_child(act: Callable[[], object], said: Path) -> Callable[..., int]:
    """Runs a command's body in a forked process, its output in a file. Returns wait() -> exit code;
    wait.process = its number."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
            cli(lambda argv: act())([])
        except SystemExit as leaving:
            code = leaving.code
        except BaseException as error:  # noqa: BLE001 - what Python would do
            sys.stderr.write(f"Traceback: {error!r}\n")
            code = 1
        finally:
            os._exit(code)

    def wait(seconds: float = 60) -> int:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise TimeoutError(f"process {child}: {said.read_text()}")

    wait.process = child
    return wait


Ranks = Callable[..., list[Callable[..., int]]]


@pytest.fixture()
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """ranks(act of rank 0, act of rank 1, ...) starts them; act(rank) runs where training would. None: does
    not come."""
    monkeypatch.setattr(watchdog, "GRACE_S", 0.5)

    def start(
        *acts: Callable[[int], object] | None,
        limit: float = 20,
        facts: Callable[[int], dict] = lambda rank: FACTS,
    ) -> list[Callable[..., int]]:
        ports = [freed_port() for _ in acts]
        monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", ",".join(f"127.0.0.1:{port}" for port in ports))
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(len(acts)))

        def body(rank: int, act: Callable[[int], object]) -> None:
            with watched(limit, facts(rank)) as ready:
                if act is not slow:
                    ready()
                act(rank)

        waits = []
        for rank, act in enumerate(acts):
            if act is not None:
                monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
                waits.append(in_child(lambda rank=rank, act=act: body(rank, act), tmp_path / f"rank{rank}"))
        return waits

    return start


def work(rank: int) -> None:
    """Never comes to an end, as a collective operation that waits for somebody dead."""
    threading.Event().wait()


def slow(rank: int) -> None:
    """Never gets ready."""
    threading.Event().wait()


def rest(rank: int) -> None:
    time.sleep(0.3)


def texts(tmp_path: Path, count: int) -> list[str]:
    return [(tmp_path / f"rank{rank}").read_text() for rank in range(count)]


def test_all_leave_in_peace(ranks: Ranks, tmp_path: Path):
    waits = ranks(rest, lambda rank: None, lambda rank: time.sleep(1.0))
    assert [wait() for wait in waits] == [0, 0, 0] and texts(tmp_path, 3) == ["", "", ""]


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_is_named_by_all_others(ranks: Ranks, tmp_path: Path, victim: int):
    begin = time.monotonic()
    waits = ranks(*[work] * 3)
    time.sleep(1.0)
    os.kill(waits[victim].process, signal.SIGKILL)
    codes = [wait() for wait in waits]
    assert time.monotonic() - begin < 30
    assert codes.pop(victim) == -signal.SIGKILL and codes == [PEER_LOST, PEER_LOST]
    for rank, text in enumerate(texts(tmp_path, 3)):
        if rank != victim:
            assert (
                f"error: rank {victim} (process {waits[victim].process} on {socket.gethostname()}) died"
                in text
            ), text


def test_what_follows_from_a_death_is_not_blamed(ranks: Ranks, tmp_path: Path):
    """A broken all-reduce raises at once: the traceback would name the wrong rank."""

    flag = tmp_path / "flag"

    def follows(rank: int) -> None:
        while not flag.exists():
            time.sleep(0.01)
        raise RuntimeError("Connection reset by peer")

    waits = ranks(follows, work)
    time.sleep(1.0)
    os.kill(waits[1].process, signal.SIGKILL)
    flag.touch()
    assert [wait() for wait in waits] == [PEER_LOST, -signal.SIGKILL]
    assert "rank 1" in texts(tmp_path, 1)[0] and "Traceback" not in texts(tmp_path, 1)[0]


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_exception_is_passed_on(ranks: Ranks, tmp_path: Path, culprit: int):
    def fails(rank: int) -> None:
        time.sleep(0.5)
        raise ValueError("nonsense\nand more")

    acts = [work] * 3
    acts[culprit] = fails
    codes = [wait() for wait in ranks(*acts)]
    assert codes.pop(culprit) == 1 and codes == [PEER_LOST] * 2
    for rank, text in enumerate(texts(tmp_path, 3)):
        assert ("Traceback: ValueError" in text) == (rank == culprit)
        assert (
            rank == culprit
            or f"rank {culprit} (process" in text
            and "exit code 1 (ValueError: nonsense)" in text
        )


def test_a_mistake_that_one_rank_sees_is_everybodys(ranks: Ranks, tmp_path: Path):
    """Exit code 2 on every node, so that none starts again for nothing; the words are those of who saw it."""

    def mistake(rank: int) -> None:
        raise ConfigError("x.yaml: bad key")

    codes = [wait() for wait in ranks(work, mistake, work)]
    assert codes == [2, 2, 2]
    assert texts(tmp_path, 2)[1] == "error: x.yaml: bad key\n"
    assert "rank 1 (process" in texts(tmp_path, 1)[0] and "x.yaml: bad key" in texts(tmp_path, 1)[0]
    codes = [wait() for wait in ranks(mistake, mistake)]
    assert codes == [2, 2] and texts(tmp_path, 2) == ["error: x.yaml: bad key\n"] * 2


def test_who_does_not_come_is_named(ranks: Ranks, tmp_path: Path):
    waits = ranks(work, None, work, None, limit=1)
    assert [wait() for wait in waits] == [PEER_LOST, PEER_LOST]
    text = (tmp_path / "rank0").read_text()
    assert (
        "error: start-up: 2 of 4 are missing after 1 s: rank 1 (expected on 127.0.0.1); rank 3 (expected on "
        "127.0.0.1)" in text
    )
    assert "rank 0: 2 of 4 are missing after 1 s" in (tmp_path / "rank2").read_text()


def test_without_rank_0(ranks: Ranks, tmp_path: Path):
    (wait,) = ranks(None, work, limit=1)
    assert wait() == PEER_LOST and "rank 0 did not answer at 127.0.0.1" in (tmp_path / "rank1").read_text()


@pytest.mark.parametrize("late", [0, 1])
def test_a_start_up_that_takes_too_long_names_who(ranks: Ranks, tmp_path: Path, late: int):
    acts = [work, work]
    acts[late] = slow
    assert [wait() for wait in ranks(*acts, limit=1)] == [PEER_LOST, PEER_LOST]
    for text in texts(tmp_path, 2):
        assert "error: not ready in 1 s (runtime.startup_limit): " in text
        assert f"rank {late} (process" in text and f"rank {1 - late} (process" not in text


def test_other_code_or_shards_are_named(ranks: Ranks, tmp_path: Path):
    waits = ranks(work, work, work, facts=lambda rank: {**FACTS, "code": "other"} if rank == 2 else FACTS)
    assert [wait() for wait in waits] == [2, 2, 2]
    for text in texts(tmp_path, 3):
        assert "rank 2 (process" in text and "has another code than rank 0 (process" in text


def test_strangers_hold_nobody_up(ranks: Ranks, tmp_path: Path):
    (wait,) = ranks(rest, None)
    port = int(os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0].split(":")[1])
    end = time.monotonic() + 20
    silent = None
    while silent is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            silent = socket.create_connection(("127.0.0.1", port))
    with socket.create_connection(("127.0.0.1", port)) as scanner:
        scanner.sendall(b"GET / HTTP/1.1\r\n\r\n")
    other_run = watchdog._connection(socket.create_connection(("127.0.0.1", port)))
    watchdog._tell([other_run], rank=1, endpoints=["elsewhere"])

    def second() -> None:
        os.environ["PADDLE_TRAINER_ID"] = "1"
        with watched(20, FACTS) as ready:
            ready()

    assert in_child(second, tmp_path / "rank1")() == 0 and wait() == 0, texts(tmp_path, 2)
    silent.close()


def test_a_port_in_use_is_named(ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A new start draws other ports, so it may help."""
    with socket.create_server(("", 0)) as door:
        monkeypatch.setattr("test_watchdog.freed_port", lambda: door.getsockname()[1])
        waits = ranks(work, None)
        assert waits[0]() == PEER_LOST and "Address already in use" in (tmp_path / "rank0").read_text()


def test_the_kind_of_card_is_compared(monkeypatch: pytest.MonkeyPatch):
    from types import SimpleNamespace

    import paddle

    from ernie2 import distributed

    assert distributed.card() == "cpu"
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    kinds = [SimpleNamespace(name="V100", major=7, minor=0), SimpleNamespace(name="A100", major=8, minor=0)]
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(paddle.device.cuda, "get_device_properties", lambda number: kinds[number])
    assert distributed.card() == "V100, 7.0"
    monkeypatch.setenv("FLAGS_selected_gpus", "1")
    assert distributed.card() == "A100, 8.0"
