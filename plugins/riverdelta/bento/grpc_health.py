"""Health: answers grpc.health.v1, gRPC's own protocol of health checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckResponse

from riverdelta.core.errors import NotFound
from riverdelta.serving.oip.messages import SERVICE

_LOOK_SECONDS = 0.5
#: An empty name is the server.
_SERVICES = ("", SERVICE)


class Health:
    """Whether this worker takes calls: `ready()` until `stop`, then no; it is the same for the server and for the service."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Report from now on that no calls are taken, and end all watches."""
        self._stopping.set()

    def check(self, request: Any) -> dict[str, Any]:
        """Return the status of the service that a request names; raises `NotFound` naming those that exist."""
        if request.service not in _SERVICES:
            raise NotFound(f"there is no service {request.service!r}; expected {SERVICE}, or no name for the server")
        ready = self._ready() and not self._stopping.is_set()
        return {"status": HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING}

    async def watch(self, request: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the status of a service now and at each change, until `stop`; that of an unknown service never changes."""
        known, last = request.service in _SERVICES, None
        while True:
            stopping = self._stopping.is_set()
            status = self.check(request) if known else {"status": HealthCheckResponse.SERVICE_UNKNOWN}
            if status != last:
                yield status
            if stopping:
                return
            last = status
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LOOK_SECONDS)
