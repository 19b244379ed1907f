"""Download: a release as one file, made in another process so that requests do not wait for it."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryDirectory
from typing import BinaryIO

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from riverdelta.bento.sidecar import environment
from riverdelta.core.errors import Unsupported

_CHUNK_BYTES = 1 << 18
_REFUSED = 3
_SCRIPT = f"""
import os, sys
os.nice(10)
from pathlib import Path
from riverdelta.core.errors import Unsupported
from riverdelta.graph.files import export
try:
    export(*map(Path, sys.argv[1:]), alone=True)
except Unsupported as error:
    print(error, file=sys.stderr)
    sys.exit({_REFUSED})
"""


async def packed(merged: Path) -> BinaryIO:
    """Return the merged model at `merged` as one self-contained file, open and already deleted from its folder.

    Another process makes it. Raises `Unsupported` if it would exceed the limit of one ONNX file.
    """
    with TemporaryDirectory(prefix="riverdelta-export-", ignore_cleanup_errors=True) as folder:
        out = Path(folder) / merged.name
        command = [sys.executable, "-c", _SCRIPT, str(merged), str(out)]
        # Not asyncio's subprocess: uvloop forks, which runs gRPC's fork handlers in this process.
        child = Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=environment())
        try:
            said = (await asyncio.to_thread(child.communicate))[1].decode(errors="replace").strip()
        except asyncio.CancelledError:  # the client has disconnected
            child.kill()
            raise
        if child.returncode == _REFUSED:
            raise Unsupported(said)
        if child.returncode:
            raise RuntimeError(f"the export of {merged} ended with code {child.returncode}: {said}")
        return out.open("rb")


class Download(StreamingResponse):
    """Sends an open file under a name, and closes it, also if the client disconnects."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(os.fstat(file.fileno()).st_size),
        }
        super().__init__(iter(partial(file.read, _CHUNK_BYTES), b""), 200, headers, "application/octet-stream")
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)
