"""Processes: those of a service that runs, and what each of them takes; where /proc is, which is on Linux."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def processes(server):
    """Return the process ids of `supervisor`, `sidecar`, `learner` and each `worker 1`, `worker 2`, …; others by their id."""
    found = {"supervisor": server.process.pid}
    for pid, command in sorted(descendants(server.process.pid).items()):
        name = str(pid)
        if "_bentoml_impl.worker.service" in command:
            name = "sidecar" if "Sidecar" in command else f"worker {sum(n.startswith('worker') for n in found) + 1}"
        elif "riverdelta sidecar" in command:
            name = "learner"
        found[name] = pid
    return found


def descendants(root):
    """Return the command line of every process below `root`."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)], commands[int(folder.name)] = parent, command
    below, frontier = {}, {root}
    while frontier := {p for p, parent in parents.items() if parent in frontier}:
        below |= {p: commands[p] for p in frontier}
    return below


def own_bytes(pid):
    """Return what a process has for itself: its anonymous pages, in memory or swapped out, in bytes.

    Pages of files are left out: the system drops and reads them as it likes, and other processes share them.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Anonymous:", "Swap:")))


def cpu_seconds(pids):
    """Return user and system time of processes, all their threads included, in seconds."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICK
