"""Points: named places inside a save, before and after each call that makes something last, where a process can kill itself."""

import contextlib
import os
import re
import signal
import sqlite3

#: What a file is, by its name; the first that fits counts.
_KINDS = {
    "checkpoint": r"\.checkpoint",
    "state": r"\.state",
    "model": r"\.onnx",
    "index": r"index\.json",
    "status": r"status",
    "delta": r"\.live$",
    "head": r"^head$",
    "segment": r"\.sqlite",
    "key": r"key",
}
_CALLS = {
    "fsync": ("checkpoint", "state", "model", "index", "checkpoints/", "releases/", "journal/"),
    "replace": ("checkpoint", "state", "model", "index", "delta", "head", "status"),
    "unlink": ("checkpoint", "state", "model", "delta", "segment"),
    "link": ("segment",),
    "sqlite": ("begin", "commit", "settle"),
}
#: Every point by name, as in "before replace checkpoint".
POINTS = tuple(f"{when} {call} {what}" for call, kinds in _CALLS.items() for what in kinds for when in ("before", "after"))


def kind(path):
    """What a path is: a kind of file, or the name of a folder with a slash."""
    name = os.path.basename(os.fspath(path))
    if os.path.isdir(path):
        return f"{name}/"
    return next((found for found, pattern in _KINDS.items() if re.search(pattern, name)), name)


class Points:
    """Counts how often this process passes each point, and kills it at the n-th passing of the chosen one.

    `told` is called with the point's name just before. Deleted journal segments are kept in `archive` for the replay.
    """

    def __init__(self, chosen, nth, told, archive):
        self.chosen, self.left, self.told, self.archive, self.counts = chosen, nth, told, archive, True

    def passing(self, point):
        """Take note, and die where this is the place."""
        if point == self.chosen and self.counts:
            self.left -= 1
            if self.left == 0:
                self.told(point)
                os.kill(os.getpid(), signal.SIGKILL)

    def begin_with(self, owner, method):
        """Count only from the first call of a method on, or of another for which this was called."""
        call, self.counts = getattr(owner, method), False

        def begun(*given):
            self.counts = True
            return call(*given)

        setattr(owner, method, begun)

    def install(self):
        """Wrap the calls for the rest of this process's life."""
        for name, where in (("replace", 1), ("link", 1), ("unlink", 0), ("fsync", 0)):
            setattr(os, name, self._wrapped(getattr(os, name), name, where))
        points, connect = self, sqlite3.connect

        class Watched(sqlite3.Connection):
            def execute(self, statement, *values):
                verb = {"BEGIN IMMEDIATE": "begin", "COMMIT": "commit"}.get(statement)
                verb = "settle" if "wal_checkpoint" in statement else verb
                if verb is None:
                    return super().execute(statement, *values)
                points.passing(f"before sqlite {verb}")
                done = super().execute(statement, *values)
                points.passing(f"after sqlite {verb}")
                return done

        sqlite3.connect = lambda *given, **named: connect(*given, factory=Watched, **named)

    def _wrapped(self, call, name, where):
        def around(*given, **named):
            path = f"/proc/self/fd/{given[0]}" if name == "fsync" else given[where]
            what = kind(os.path.realpath(path) if name == "fsync" else path)
            if name == "unlink" and str(path).endswith(".sqlite"):
                self._keep(path)
            self.passing(f"before {name} {what}")
            done = call(*given, **named)
            self.passing(f"after {name} {what}")
            return done

        return around

    def _keep(self, path):
        # The log too: it may hold what has not been moved into the file.
        for part in (os.fspath(path), f"{path}-wal"):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(part, self.archive / os.path.basename(part))
