"""Who is there: the processes or nodes of one run meet number 0 at its address, and whoever is missing is named.

Plain sockets and lines of JSON: this has to work where Paddle's own communication does not. No tensors here.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from ernie2.strict import ConfigError

LONGEST_LINE = 1 << 20  # a stranger on the port must not fill the memory
RETRY_S = 0.3


class Absent(RuntimeError):
    """Somebody did not come, or went away; the message says who. A new start may help."""


class Line:
    """A connection that carries one JSON object a line. The system itself notices a dead machine within 35 s."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self._rest = connection, b""
        connection.setblocking(True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Seconds of silence before asking, between questions, and questions without an answer (Linux's names).
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 35_000)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        """For selectors."""
        return self.connection.fileno()

    def send(self, message: dict[str, Any]) -> bool:
        """Sends one object; False where the other side is gone."""
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def read(self) -> list[dict[str, Any]] | None:
        """Waits for bytes and returns the objects they complete; None where the other side is gone or talks nonsense."""
        try:
            block = self.connection.recv(1 << 16)
            *lines, self._rest = (self._rest + block).split(b"\n")
            messages = [json.loads(line) for line in lines]
        except (OSError, ValueError):
            return None
        sound = len(self._rest) < LONGEST_LINE and all(isinstance(message, dict) for message in messages)
        return messages if block and sound else None

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next object; None where the other side is gone. Raises TimeoutError. For conversations, one object at a time."""
        end = time.monotonic() + seconds
        while True:
            with selectors.DefaultSelector() as selector:
                selector.register(self, selectors.EVENT_READ)
                if not selector.select(max(end - time.monotonic(), 0)):
                    raise TimeoutError
            messages = self.read()
            if messages is None or messages:
                return messages and messages[0]

    def close(self) -> None:
        """Ends the connection."""
        self.connection.close()


def hello(run: str, number: int, **more: Any) -> dict[str, Any]:
    """What somebody says first: which run, which number, and where."""
    return {"run": run, "number": number, "host": socket.gethostname(), "process": os.getpid(), **more}


def name(kind: str, introduction: dict[str, Any]) -> str:
    """`rank 3 (process 4711 on host-b)`."""
    return f"{kind} {introduction['number']} (process {introduction['process']} on {introduction['host']})"


def gather(port: int, count: int, seconds: float, mine: dict[str, Any], kind: str,
           missing: Callable[[int], str]) -> dict[int, tuple[Line, dict[str, Any]]]:
    """Number 0's part: listens on `port` until all of 1 .. count - 1 have come.

    Args:
        port: TCP port, on every address of this machine.
        count: how many there are, this one included.
        seconds: how long to wait.
        mine: this one's `hello`.
        kind: "rank" or "node", for messages.
        missing: number -> where it was expected, for messages.

    Returns:
        Number -> its line and its hello.

    Raises:
        Absent: somebody is missing; names them. Those who came are told.
        ConfigError: two came under one number, or the port is taken.
    """
    came: dict[int, tuple[Line, dict[str, Any]]] = {}
    end = time.monotonic() + seconds
    with _listen(port) as door, selectors.DefaultSelector() as selector:
        selector.register(door, selectors.EVENT_READ)
        while len(came) < count - 1 and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(min(left, 1.0)):
                if key.fileobj is door:
                    selector.register(Line(door.accept()[0]), selectors.EVENT_READ)
                    continue
                said = key.fileobj.read()
                if said == []:
                    continue
                selector.unregister(key.fileobj)
                _let_in(came, key.fileobj, said, mine, count, kind)
    absent = [number for number in range(1, count) if number not in came]
    if absent:
        who = "; ".join(f"{kind} {number} ({missing(number)})" for number in absent[:8])
        text = (f"after {seconds:.0f} s {len(absent)} of {count} are missing: {who}{'; ...' if len(absent) > 8 else ''}; "
                f"see what their terminals say")
        dismiss(came, text)
        raise Absent(text)
    return came


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise ConfigError(f"port {port}: cannot be listened on: {error.strerror}; is another run using it?") from None


def _let_in(came: dict[int, tuple[Line, dict[str, Any]]], line: Line, said: list[dict[str, Any]] | None, mine: dict[str, Any],
            count: int, kind: str) -> None:
    """Takes a newcomer's hello; strangers are turned away."""
    theirs = said[0] if said else {}
    number = theirs.get("number")
    if theirs.get("run") != mine["run"] or not isinstance(number, int) or not {"host", "process"} <= theirs.keys():
        line.send({"stop": 2, "why": f"{mine['host']} is the place of another run"})
        line.close()
        return
    twin = mine if number == 0 else came[number][1] if number in came else None
    if twin is not None or not 0 < number < count:
        text = (f"two came as {kind} {number}: {name(kind, twin)} and {name(kind, theirs)}" if twin else
                f"{name(kind, theirs)} came, but {count} are counted from 0")
        line.send({"stop": 2, "why": text})
        dismiss(came, text, 2)
        raise ConfigError(f"{text}; give every {kind} a number of its own (NODE_RANK)")
    came[number] = (line, theirs)


def dismiss(came: dict[int, tuple[Line, dict[str, Any]]], why: str, code: int = 1) -> None:
    """Tells everybody that the run will not be."""
    for line, _ in came.values():
        line.send({"stop": code, "why": why})
        line.close()


def answer(address: tuple[str, int], seconds: float, mine: dict[str, Any], kind: str) -> Line:
    """Everybody else's part: goes to number 0 and says hello; `expect_go` is next.

    Raises:
        Absent: number 0 cannot be reached within `seconds`.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            connection = socket.create_connection(address, timeout=5)
            # A connection to a free port of this very machine can meet itself.
            if connection.getsockname() != connection.getpeername():
                line = Line(connection)
                line.send(mine)
                return line
            connection.close()
            trouble = "nobody listens there"
        except OSError as error:
            trouble = error.strerror or str(error)
        if time.monotonic() > end:
            raise Absent(f"{kind} 0 does not answer at {address[0]}:{address[1]} after {seconds:.0f} s ({trouble}); see what its "
                         f"terminal says, and whether a firewall stands between")
        time.sleep(RETRY_S)


def expect_go(line: Line, seconds: float, kind: str) -> dict[str, Any]:
    """Waits until number 0 says go. Returns what it said with it.

    Raises:
        Absent: number 0 went away, said nothing for `seconds`, or stopped because somebody is missing.
        ConfigError: it stopped because of a mistake.
    """
    try:
        said = line.receive(seconds)
    except TimeoutError:
        raise Absent(f"{kind} 0 has said nothing for {seconds:.0f} s") from None
    if said is None:
        raise Absent(f"{kind} 0 went away; see what its terminal says")
    if "stop" in said:
        raise (ConfigError if said["stop"] == 2 else Absent)(f"{kind} 0 says: {said['why']}")
    return said


def differences(kind: str, mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """In what somebody's facts differ from number 0's, in words; empty where they are the same."""
    unlike = [what for what, value in mine["facts"].items() if theirs.get("facts", {}).get(what) != value]
    return f"{name(kind, theirs)} has another {', another '.join(unlike)} than {name(kind, mine)}" if unlike else ""
