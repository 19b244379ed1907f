"""Tracing: the trace id of a request, and spans that name its impressions.

Without an exporter there are no spans, which would cost 0.2 ms a request; the trace id that a client sends is recorded in any
case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.http import ExcludeList, parse_excluded_urls

from riverdelta.bento import internals

#: The header with a request's version, trace id, parent id and flags (W3C Trace Context, section 3.2).
HEADER = "traceparent"
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_named: ContextVar[str | None] = ContextVar("riverdelta_trace", default=None)


class ExcludedUrls:
    """The URLs that are not traced: all of them without an exporter, otherwise the configured ones.

    Decided at the first request, when the service's configuration has been read.
    """

    @cached_property
    def _chosen(self) -> ExcludeList:
        if not internals.exported():
            return ExcludeList([".*"])
        urls = internals.EXCLUDED_URLS.find().get()
        return parse_excluded_urls(urls) if isinstance(urls, str) else ExcludeList(urls or [])

    def url_disabled(self, url: str) -> bool:
        """Whether requests to this URL are not traced."""
        return bool(self._chosen.url_disabled(url))


def trace_only_where_exported() -> None:
    """Make BentoML's tracing middleware use `ExcludedUrls`."""
    internals.EXCLUSION.find().set(ExcludedUrls())


def present() -> tuple[str, str] | None:
    """Return the current trace and span ids, in hexadecimal (W3C Trace Context); None outside a span."""
    context = trace.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None


def arrived(parents: Iterable[str]) -> None:
    """Record the trace id in a request's `traceparent` headers; a malformed header has none."""
    found = [match[1] for match in map(_PARENT.fullmatch, parents) if match]
    _named.set(found[0] if len(found) == 1 else None)


def trace_id() -> str | None:
    """Return the current request's trace id, 32 hexadecimal digits: its span's, or the one in its header."""
    ids = present()
    return ids[0] if ids else _named.get()


@contextmanager
def span(path: str, parents: Iterable[str]) -> Iterator[None]:
    """Run the gRPC call of `/service/method` in a child span of the client's, if spans are exported."""
    if not internals.exported():
        yield
        return
    context = TraceContextTextMapPropagator().extract({HEADER: next(iter(parents), "")})
    tracer = internals.TRACER.find().get().get_tracer("riverdelta")
    service, _, method = path.strip("/").partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    with tracer.start_as_current_span(path.strip("/"), context, trace.SpanKind.SERVER, attributes):
        yield


def flush() -> None:
    """Export the remaining spans when a worker ends, which BentoML does not do."""
    if internals.exported():
        internals.TRACER.find().get().force_flush()


def note(impressions: str) -> None:
    """Record a scoring request's impression id in its span, as `riverdelta.impressions`."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute("riverdelta.impressions", impressions)
