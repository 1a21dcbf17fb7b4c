"""`python -m ernie2.doctor [RECIPE.yaml] [key=value ...]`: what could stop a run, looked over before it starts.

Looks over this machine and the recipe's folders before a run: versions, devices, memory, addresses, disk, shards, checkpoints.
With NNODES, NODE_RANK and MASTER set as for run_pretrain.sh (or started by paddle.distributed.launch), all nodes meet at
MASTER and are compared too: code, recipe, vocabulary and shards, clocks, and whether they share out_dir's disk.

Exit code 0, or 1 where there is a problem. --then data_gen: node 0 afterwards runs `python -m data_gen` with the same recipe
while the others wait; its exit code becomes that of all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from ernie2 import roll_call
from ernie2.config import Recipe
from ernie2.digests import run_digests, short
from ernie2.doctor_checks import Finding, examine
from ernie2.plan import parse_recipe, recipe_parser
from ernie2.roll_call import Line
from ernie2.strict import ConfigError, cli

CLOCK_SKEW_S = 2.0  # more than this makes logs and file times of different nodes misleading
PATIENCE_S = 60.0
COMPARED = ("digests", "clock")

Lines = dict[int, Line]


@dataclasses.dataclass
class Party:
    """The nodes (or, under paddle.distributed.launch, ranks) that are looked over together."""

    kind: str
    number: int
    count: int
    host: str
    port: int
    run: str


def party() -> Party | None:
    """Who else there is, from the environment; None for a single machine. Raises ConfigError where MASTER is missing."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM") or 1) > 1:
        endpoints = os.environ["PADDLE_TRAINER_ENDPOINTS"]
        host, _, port = endpoints.split(",")[0].rpartition(":")
        return Party("rank", int(os.environ["PADDLE_TRAINER_ID"]), endpoints.count(",") + 1, host, int(port), endpoints)
    count, master = int(os.environ.get("NNODES") or 1), os.environ.get("MASTER", "")
    if count == 1:
        return None
    host, _, port = master.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"MASTER: found '{master}'; NNODES={count} needs MASTER=host:port of node 0, the same on every node")
    return Party("node", int(os.environ.get("NODE_RANK") or 0), count, host, int(port), f"doctor {count}")


def consult(us: Party, recipe: Recipe, found: list[Finding], digests: dict[str, str]) -> tuple[list[tuple[int, Finding]], Lines]:
    """All nodes meet and are compared.

    Returns:
        (number, finding) of all on number 0, of this node elsewhere; and lines: to all others on number 0, to it elsewhere.

    Raises:
        roll_call.Absent: somebody did not come; names them.
        ConfigError: two nodes have one number, or the port is taken.
    """
    mine = roll_call.hello(us.run, us.number, facts=digests, findings=[dataclasses.asdict(finding) for finding in found])
    limit = recipe.runtime.startup_limit
    if us.number:
        line = roll_call.answer((us.host, us.port), limit, mine, us.kind)
        question = roll_call.expect_go(line, 2 * limit, us.kind)
        line.send({"clock": time.time(), "sees": Path(question["look"]).exists()})
        return [(us.number, finding) for finding in found], {0: line}
    came = roll_call.gather(us.port, us.count, limit, mine, us.kind, lambda number: f"no word from it at {us.host}:{us.port}")
    all_found = [(0, finding) for finding in found]
    token, made = _token(Path(recipe.out_dir))
    try:
        for number, (line, theirs) in sorted(came.items()):
            all_found += [(number, Finding(**finding)) for finding in theirs["findings"]]
            all_found += [(number, finding) for finding in _compare(us, mine, theirs, line, token)]
    finally:
        token.unlink(missing_ok=True)
        if made:
            token.parent.rmdir()
    return all_found, {number: line for number, (line, _) in came.items()}


def _token(folder: Path) -> tuple[Path, bool]:
    """A file for the others to look for, and whether its folder had to be made."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        token = folder.absolute() / f".doctor-{uuid.uuid4().hex}"
        token.touch()
    except OSError as error:
        raise ConfigError(f"out_dir: {folder} cannot be written: {error.strerror}; name another") from None
    return token, made


def _compare(us: Party, mine: dict[str, Any], theirs: dict[str, Any], line: Line, token: Path) -> list[Finding]:
    """One other node beside number 0."""
    asked = time.time()
    line.send({"look": str(token)})
    try:
        said = line.receive(PATIENCE_S)
    except TimeoutError:
        said = None
    if said is None:
        return [Finding("nodes", "problem", f"{roll_call.name(us.kind, theirs)} went away", "see what its terminal says")]
    took = time.time() - asked
    skew = said["clock"] - asked - took / 2
    unlike = roll_call.differences(us.kind, mine, theirs)
    found = [Finding("digests", "problem", unlike, "the same checkout, command and shards on every node") if unlike else
             Finding("digests", "ok", f"as on {us.kind} 0")]
    if abs(skew) > CLOCK_SKEW_S + took:
        found.append(Finding("clock", "warning", f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} {us.kind} 0",
                             "let both follow one time server (chrony, ntpd)"))
    else:
        found.append(Finding("clock", "ok", f"within {abs(skew) + took / 2:.2f} s of {us.kind} 0's"))
    if not said["sees"]:
        found.append(Finding("out_dir", "problem", f"does not see what {us.kind} 0 writes to {token.parent}",
                             "put out_dir and data.shards_dir on a disk that all nodes share, under one path"))
    return found


def page(found: list[tuple[int, Finding]], us: Party | None, digests: dict[str, str]) -> str:
    """The table. Of other nodes only what is not well stands in it, beside how they compare with this one."""
    mine = us.number if us else 0
    width = max(len(finding.check) for _, finding in found)
    lines = []
    for number, finding in found:
        if number != mine and finding.state == "ok" and finding.check not in COMPARED:
            continue
        who = f"{us.kind} {number:<3} " if us else ""
        lines.append(f"{finding.state:8} {who}{finding.check:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"{'':8} {'':{len(who)}}{'':{width}}  -> {finding.remedy}")
    counts = {state: sum(finding.state == state for _, finding in found) for state in ("problem", "warning")}
    summary = [f"{count} {state}{'s' if count > 1 else ''}" for state, count in counts.items() if count]
    return "\n".join([*lines, f"digests: {short(digests)}", ", ".join(summary) or "all is well"])


def main(argv: list[str]) -> int:
    """Command line."""
    parser = recipe_parser("python -m ernie2.doctor", __doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--then", metavar="MODULE", help="what node 0 runs afterwards, with the same recipe")
    recipe, _, args = parse_recipe(parser, argv)
    us, digests = party(), run_digests(recipe)
    own = examine(recipe)
    found: list[tuple[int, Finding]] = [(0, finding) for finding in own]
    lines: Lines = {}
    if us is not None:
        try:
            found, lines = consult(us, recipe, own, digests)
        except (roll_call.Absent, ConfigError) as error:
            found = [*((us.number, finding) for finding in own),
                     (us.number, Finding("nodes", "problem", str(error), "the same command on every node, NODE_RANK from 0"))]
    sick = any(finding.state == "problem" for _, finding in found)
    if args.json:
        text = json.dumps({"ok": not sick, "digests": digests,
                           "findings": [{"number": number, **dataclasses.asdict(finding)} for number, finding in found]}, indent=1)
    else:
        text = page(found, us, digests)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", args.then, args.recipe, *args.overrides] if args.then else []
    return _together(us, lines, int(sick), command)


def _together(us: Party | None, lines: Lines, code: int, command: list[str]) -> int:
    """Number 0 runs the command where all is well; the others wait and leave with its exit code."""
    if us is not None and us.number and lines:
        waited = 0
        while True:
            try:
                said = lines[0].receive(PATIENCE_S)
            except TimeoutError:
                waited += 1
                sys.stderr.write(f"waiting for {us.kind} 0 at {us.host}, which is at work: {waited} min\n")
                continue
            if said is None or said["code"]:
                sys.stderr.write(f"error: {us.kind} 0 " + ("went away" if said is None else f"stopped: {said['why']}") + "\n")
            return max(code, 1 if said is None else said["code"])
    why = "the doctor found problems; its terminal lists them"
    if not code and command and (us is None or us.number == 0):
        code = subprocess.run(command, check=False).returncode
        why = f"{' '.join(command[1:3])} ended with exit code {code}; its terminal says why"
    for line in lines.values():
        line.send({"code": code, "why": why})
    return code


if __name__ == "__main__":
    cli(main)()
