"""Who is missing at the start, whose files differ, and who died: collective operations would only hang.

Every rank keeps a connection to rank 0. A process that dies loses it at once, a machine in 35 s; rank 0 tells
the others, and every process names who it was and exits. Paddle's own store does not serve: its `wait` has no
time limit, and it does not notice a client that dies. No tensors here."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from ernie2.strict import ConfigError

PEER_LOST = 75  # exit code of who stops because of another process (sysexits.h: temporary failure)
GRACE_S = 5.0  # such a process waits this long, so that the launcher sees first who it was
# Seconds of silence before the system asks, between questions, and questions without an answer.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 35_000}
_Rank = dict[str, Any]  # how a rank introduces itself: rank, name, endpoints of the run, facts
_Peers = dict[Connection, _Rank]  # on rank 0 all others, elsewhere rank 0 alone


@contextlib.contextmanager
def watched(limit: float, facts: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Waits until all ranks that paddle.distributed.launch started are there, then watches them to the end.

    Yields a function to call when this rank is ready for its first step. The others may take `limit` seconds
    to come, and then to get ready; `facts` (name -> digest) have to be the same on every rank. Raises
    ConfigError where they differ, SystemExit where somebody is missing; both name the rank."""
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    if len(endpoints) == 1:
        yield lambda: None
        return
    rank = int(os.environ["PADDLE_TRAINER_ID"])
    name = f"rank {rank} (process {os.getpid()} on {socket.gethostname()})"
    me = {"rank": rank, "name": name, "endpoints": endpoints, "facts": facts}
    try:
        watchdog = Watchdog(me, _follow(me, limit) if rank else _gather(me, limit), limit)
    except OSError as error:  # somebody is missing
        print(f"error: start-up: {error}", file=sys.stderr)
        sys.exit(PEER_LOST)
    try:
        yield watchdog.ready
    except BaseException as error:
        watchdog.leave(2 if isinstance(error, ConfigError) else 1, f"{type(error).__name__}: {error}")
        raise
    watchdog.leave(0)


class Watchdog:
    """Watches the other ranks in a thread, and how long they take to get ready (`limit`, in seconds)."""

    def __init__(self, me: _Rank, peers: _Peers, limit: float) -> None:
        self.me, self.peers, self.limit = me, peers, limit
        self._deadline = time.monotonic() + limit
        self._starting = {peer["rank"]: peer["name"] for peer in (me, *peers.values())}  # those not ready yet
        self._left, self._stopping = threading.Event(), threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def ready(self) -> None:
        """This rank is ready for its first step."""
        self._starting.pop(self.me["rank"], None)
        if self.me["rank"]:  # rank 0 keeps the account; unread messages would cost it its last words
            _tell(self.peers, stop=None)

    def leave(self, code: int, why: str = "") -> None:
        """This rank ends. After an error all stop; does not return from one that another's death caused."""
        if code == 1 and self._stopping.wait(GRACE_S):
            time.sleep(2 * GRACE_S)  # the thread ends this process meanwhile
        self._left.set()
        why = f"{self.me['name']} stopped with exit code {code} ({why.splitlines()[0] if why else ''})"
        _tell(self.peers, stop=PEER_LOST if code == 1 else code, why=why)

    def _watch(self) -> None:
        watching = set(self.peers)
        while watching and not self._left.is_set():
            for line in wait(watching, 0.5):
                message = _receive(line) or {"stop": PEER_LOST, "why": f"{self.peers[line]['name']} died"}
                if message["stop"]:
                    return self._stop(message["stop"], message["why"])
                if message["stop"] == 0:
                    watching.remove(line)
                self._starting.pop(self.peers[line]["rank"], None)
            if self.me["rank"] == 0 and self._starting and time.monotonic() > self._deadline:
                slow = ", ".join(list(self._starting.values())[:8])
                self._stop(PEER_LOST, f"not ready in {self.limit:.0f} s (runtime.startup_limit): {slow}")

    def _stop(self, code: int, why: str) -> None:
        """Tells the others and ends this process, whatever its main thread waits for."""
        self._stopping.set()
        _tell(self.peers, stop=code, why=why)
        text = f"{why}; this process stops too"
        if code != 2:
            print(f"error: {text}", file=sys.stderr, flush=True)
        time.sleep(GRACE_S)  # meanwhile every rank that finds the mistake itself prints it and leaves
        if not self._left.is_set():
            if code == 2:
                print(text, file=sys.stderr, flush=True)
            os._exit(code)


def _gather(me: _Rank, limit: float) -> _Peers:
    """Rank 0 waits at its endpoint, which the launcher kept free, for all others and compares them."""
    peers: _Peers = {}
    unknown: list[Connection] = []
    end, port = time.monotonic() + limit, int(me["endpoints"][0].rpartition(":")[2])
    with socket.create_server(("", port), backlog=1024) as door:
        while len(peers) < len(me["endpoints"]) - 1 and (left := end - time.monotonic()) > 0:
            for line in wait([door, *unknown], left):
                if line is door:
                    unknown.append(_connection(door.accept()[0]))
                    continue
                unknown.remove(line)
                if (peer := _receive(line)) and peer.get("endpoints") == me["endpoints"]:  # no stranger
                    peers[line] = peer
    error = _objection(me, peers, limit)
    _tell(peers, stop=2 if isinstance(error, ConfigError) else error and PEER_LOST, why=str(error), me=me)
    if error:
        raise error
    return peers


def _objection(me: _Rank, peers: _Peers, limit: float) -> Exception | None:
    came = {0, *(peer["rank"] for peer in peers.values())}
    hosts = {rank: endpoint.rpartition(":")[0] for rank, endpoint in enumerate(me["endpoints"])}
    if absent := [f"rank {rank} (expected on {host})" for rank, host in hosts.items() if rank not in came]:
        what = f"{len(absent)} of {len(hosts)} are missing after {limit:.0f} s: {'; '.join(absent[:8])}"
        return OSError(f"{what}; see what their terminals say")
    for peer in peers.values():
        if unlike := [name for name, digest in me["facts"].items() if peer["facts"].get(name) != digest]:
            what = f"{peer['name']} has another {', another '.join(unlike)} than {me['name']}"
            return ConfigError(
                f"{what}; every node needs the same checkout, command, shards and kind of card"
            )
    return None


def _follow(me: _Rank, limit: float) -> _Peers:
    """Every other rank introduces itself to rank 0 and waits until that says whether to start."""
    host, _, port = me["endpoints"][0].rpartition(":")
    end = time.monotonic() + limit
    while True:
        try:
            line = socket.create_connection((host, int(port)), timeout=5)
            if line.getsockname() != line.getpeername():  # to a free port of this machine it can meet itself
                break
        except OSError as error:
            if time.monotonic() > end:
                what = f"rank 0 did not answer at {host}:{port} in {limit:.0f} s ({error.strerror or error})"
                raise OSError(f"{what}; see its terminal, and whether a firewall is in between") from None
        time.sleep(0.3)
    connection = _connection(line)
    _tell([connection], **me)
    silence = {"stop": PEER_LOST, "why": "went away; see what its terminal says"}
    answer = (connection.poll(2 * limit) and _receive(connection)) or silence  # it may itself wait for others
    if answer["stop"]:
        raise (ConfigError if answer["stop"] == 2 else OSError)(f"rank 0: {answer['why']}")
    return {connection: answer["me"]}


def _connection(line: socket.socket) -> Connection:
    """Carries whole messages over a socket, and notices a machine that is gone."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(line.detach())


def _tell(lines: Any, **message: Any) -> None:
    for line in lines:
        with contextlib.suppress(OSError):  # who is gone is noticed by the thread
            line.send_bytes(json.dumps(message).encode())


def _receive(line: Connection) -> dict[str, Any] | None:
    """The next message; None where the other side is gone or talks nonsense."""
    try:
        return json.loads(line.recv_bytes(1 << 20))  # a stranger on the port must not fill the memory
    except (EOFError, OSError, ValueError):
        return None
