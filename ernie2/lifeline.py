"""A thread that notices when another process of the run dies, and says who: collective operations would only hang or fail.

Every rank keeps a connection to rank 0 from the roll call on. A process that dies loses it at once (the system closes it), a
machine that dies within half a minute. Rank 0 tells all others, and every process leaves by itself. No tensors here.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from typing import Any

from ernie2 import roll_call
from ernie2.roll_call import Line
from ernie2.strict import ConfigError

PEER_LOST = 75
"""Exit code of a process that stopped because another one died (sysexits.h: a temporary failure, a new start may help)."""
GRACE_S = 5.0
"""A process that stops for another's sake waits this long, so that the launcher sees first who it was."""
STEPS = {"joined": "joining the communication between processes", "ready": "loading shards, model and checkpoint"}


class Lifeline:
    """Watches the other processes of a run.

    Args:
        mine: this process's hello.
        lines: number -> line and hello; all others on rank 0, rank 0 alone elsewhere.
        limit: seconds that each of STEPS may take.
    """

    def __init__(self, mine: dict[str, Any], lines: dict[int, tuple[Line, dict[str, Any]]], limit: float) -> None:
        self.rank, self.mine, self.lines, self.limit = mine["number"], mine, lines, limit
        self._closed, self._condemned = threading.Event(), threading.Event()
        self._left: set[int] = set()
        self._reached: dict[str, set[int]] = {step: set() for step in STEPS}
        self._ahead = list(STEPS)
        self._deadline = time.monotonic() + limit
        self._thread = threading.Thread(target=self._watch, daemon=True, name="lifeline")
        self._thread.start()

    def reached(self, step: str) -> None:
        """Says that this process is through a step of the start-up (one of STEPS)."""
        assert step in STEPS
        if self.rank == 0:
            self._reached[step].add(0)
        else:
            self.lines[0][0].send({"reached": step})

    def leave(self, code: int, why: str = "") -> None:
        """Says good-bye. With an exit code other than 0 everybody stops."""
        if self._condemned.is_set() and code != 2:
            self._thread.join()  # this process stops for another's sake; the thread ends it
        self._closed.set()
        for line, _ in self.lines.values():
            if self.rank == 0 and code:
                line.send({"stop": _passed_on(code), "why": _stopped(self.mine, code, why)})
            else:
                line.send({"left": code, "why": why})

    def failed(self, error: BaseException) -> None:
        """Says good-bye after an exception. Where another process died first, this is a consequence: does not return."""
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        else:
            code = 2 if isinstance(error, ConfigError) else 130 if isinstance(error, KeyboardInterrupt) else 1
        if code == 1:
            self._condemned.wait(GRACE_S)
        lines = str(error).strip().splitlines()
        self.leave(code, f"{type(error).__name__}: {lines[0] if lines else ''}")

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for number, (line, _) in self.lines.items():
                selector.register(line, selectors.EVENT_READ, number)
            while not self._closed.is_set() and selector.get_map():
                for key, _ in selector.select(0.5):
                    messages = key.fileobj.read()
                    if messages is None:
                        selector.unregister(key.fileobj)
                        if key.data not in self._left:
                            return self._stop(PEER_LOST, f"{roll_call.name('rank', self.lines[key.data][1])} died")
                    for message in messages or ():
                        if self._hear(key.data, message):
                            return None
                if self.rank == 0 and self._late():
                    return None
        return None

    def _hear(self, number: int, message: dict[str, Any]) -> bool:
        """True where the message ends this process."""
        if "reached" in message:
            self._reached.get(message["reached"], set()).add(number)
        elif "stop" in message:
            self._stop(message["stop"], message["why"])
        elif message.get("left"):
            self._stop(_passed_on(message["left"]), _stopped(self.lines[number][1], message["left"], message["why"]))
        else:
            self._left.add(number)
        return self._condemned.is_set()

    def _late(self) -> bool:
        """Rank 0: whether a step of the start-up took too long; the run is then stopped, with the names of who did not do it."""
        while self._ahead:
            step = self._ahead[0]
            absent = sorted({0, *self.lines} - self._reached[step] - self._left)
            if absent:
                break
            self._ahead.pop(0)
            self._deadline = time.monotonic() + self.limit
        if not self._ahead or time.monotonic() < self._deadline:
            return False
        names = [roll_call.name("rank", self.lines[i][1] if i else self.mine) for i in absent]
        self._stop(PEER_LOST, f"start-up: {STEPS[step]} took more than {self.limit:.0f} s (runtime.startup_limit); not done by "
                              f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}")
        return True

    def _stop(self, code: int, why: str) -> None:
        """Ends this process, whatever its main thread waits for; rank 0 tells the others first."""
        self._condemned.set()
        if self.rank == 0:
            for line, _ in self.lines.values():
                line.send({"stop": code, "why": why})
        if code != 2:
            self._say(f"error: {why}; this process stops too")
        time.sleep(GRACE_S)  # a mistake that every process finds is told by each in its own words meanwhile
        if self._closed.is_set():
            return
        if code == 2:
            self._say(f"{why}; this process stops too")
        sys.stdout.flush()
        os._exit(code)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n" if self.rank == 0 else f"[rank {self.rank}] {text}\n")
        sys.stderr.flush()


def _passed_on(code: int) -> int:
    """What the others leave with: a mistake stays a mistake, so that nobody starts again for nothing."""
    return 2 if code == 2 else PEER_LOST


def _stopped(introduction: dict[str, Any], code: int, why: str) -> str:
    return f"{roll_call.name('rank', introduction)} stopped with exit code {code}{f' ({why})' if why else ''}"
