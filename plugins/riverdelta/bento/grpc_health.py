"""Health: answers grpc.health.v1, gRPC's own protocol of health checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckResponse

from riverdelta.core.errors import NotFound, Unavailable, short
from riverdelta.serving.oip.messages import SERVICE

#: The maximum number of watches at a time: each keeps memory as long as its client wants.
_MOST_WATCHES = 1_024
#: An empty name is the server.
_SERVICES = ("", SERVICE)


class Health:
    """Whether this worker takes calls: `ready()` until `stop`, then no; it is the same for the server and for the service."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._stopping = asyncio.Event()
        self._watches = 0

    def stop(self) -> None:
        """Report from now on that no calls are taken, and end all watches."""
        self._stopping.set()

    def check(self, request: Any) -> dict[str, Any]:
        """Return the status of the service that a request names; raises `NotFound` naming those that exist."""
        if request.service not in _SERVICES:
            raise NotFound(f"there is no service {short(request.service)}; expected {SERVICE}, or no name for the server")
        ready = self._ready() and not self._stopping.is_set()
        return {"status": HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING}

    async def watch(self, request: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the status of a service now and at `stop`, the only change; that of an unknown service never changes."""
        if self._watches == _MOST_WATCHES:
            raise Unavailable(f"this worker has {_MOST_WATCHES} watches, the maximum; try again, or use Check")
        self._watches += 1
        try:
            known = request.service in _SERVICES
            yield self.check(request) if known else {"status": HealthCheckResponse.SERVICE_UNKNOWN}
            await self._stopping.wait()
            if known:
                yield self.check(request)
        finally:
            self._watches -= 1
