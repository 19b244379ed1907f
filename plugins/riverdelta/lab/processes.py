"""Processes: those of a service that runs, and what each of them takes; where /proc is, which is on Linux."""

from __future__ import annotations

import os
from pathlib import Path

from riverdelta.lab.server import Server

_TICK = os.sysconf("SC_CLK_TCK")


def processes(server: Server) -> dict[str, int]:
    """Return the process ids of `supervisor`, `sidecar`, `learner` and each `worker 1`, `worker 2`, …; others by their id."""
    found = {"supervisor": server.process.pid}
    parents, commands = _running()
    below = {server.process.pid}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    for pid in sorted(below - {server.process.pid}):
        command, name = commands[pid], str(pid)
        if "_bentoml_impl.worker.service" in command:
            name = "sidecar" if "Sidecar" in command else f"worker {sum(n.startswith('worker') for n in found) + 1}"
        elif "riverdelta sidecar" in command:
            name = "learner"
        found[name] = pid
    return found


def own_bytes(pid: int) -> int:
    """Return what a process has for itself: its anonymous pages, in memory or swapped out, in bytes.

    Pages of files are left out: the system drops and reads them as it likes, and other processes share them.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Anonymous:", "Swap:")))


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, all its threads included, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _running() -> tuple[dict[int, int], dict[int, str]]:
    """Every process's parent and command line."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)], commands[int(folder.name)] = parent, command
    return parents, commands
