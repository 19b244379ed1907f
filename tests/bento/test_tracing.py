"""Tracing: a request's span names its impressions, and what is logged within it names the span."""

import asyncio
import contextvars
import re
from types import SimpleNamespace

import numpy as np
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from riverdelta.bento.tracing import arrived, note, present, span, trace_id

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter
    provider.shutdown()


def test_outside_of_a_span_nothing_is_noted_and_nothing_is_known():
    note("abc")
    assert present() is None


def test_the_span_of_a_request_carries_its_impressions_and_lends_its_ids_to_the_log(spans, runtime):
    tracer, exporter = spans
    columns = {"user": [1, 2], "x": [0.5, 1.0], "shop": np.zeros(2, np.float32)}
    with tracer.start_as_current_span("score") as span:
        answer = asyncio.run(runtime.score(columns, None, "rest"))
        trace_id, span_id = present()
    (finished,) = exporter.get_finished_spans()
    assert finished.attributes["riverdelta.impressions"] == answer.impressions
    assert (trace_id, span_id) == (trace.format_trace_id(span.context.trace_id), trace.format_span_id(span.context.span_id))
    assert re.fullmatch("[0-9a-f]{32}", trace_id)


def seen(parents):
    """The trace id that a request with these headers has, in a context of its own."""

    def one():
        arrived(parents)
        return trace_id()

    return contextvars.copy_context().run(one)


def test_the_trace_that_a_client_names_is_known_where_no_span_is():
    assert seen([PARENT]) == TRACE
    assert seen([]) is None
    assert seen([PARENT.replace("00-", "01-", 1) + "-what-later-versions-add"]) == TRACE


@pytest.mark.parametrize(
    "parents",
    [
        [""],
        ["x" * 5_000],
        [PARENT, PARENT],
        [PARENT.upper()],
        [PARENT[:-1]],
        ["ff" + PARENT[2:]],
        [f"00-{'0' * 32}-b7ad6b7169203331-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
    ],
    ids=["empty", "long", "two", "upper case", "short", "version ff", "no trace", "no parent"],
)
def test_a_header_that_breaks_the_standard_names_no_trace(parents):
    assert seen(parents) is None


@pytest.fixture
def exported(spans):
    """BentoML exports its spans to these."""
    exporter_type, provider = BentoMLContainer.tracing.exporter_type, BentoMLContainer.tracer_provider
    before = exporter_type.get()
    exporter_type.set("otlp")
    provider.set(SimpleNamespace(get_tracer=lambda _: spans[0]))
    yield spans[1]
    exporter_type.set(before)
    provider.reset()


def test_a_grpc_call_is_no_span_where_none_is_exported():
    with span("/inference.GRPCInferenceService/ModelInfer", [PARENT]):
        assert present() is None


def test_a_grpc_call_is_a_span_within_its_clients_trace_where_spans_are_exported(exported):
    with span("/inference.GRPCInferenceService/ModelInfer", [PARENT]):
        note("abc")
        assert trace_id() == TRACE
    (finished,) = exported.get_finished_spans()
    assert finished.name == "inference.GRPCInferenceService/ModelInfer"
    assert finished.kind is trace.SpanKind.SERVER
    assert trace.format_span_id(finished.parent.span_id) == "b7ad6b7169203331"
    assert dict(finished.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "riverdelta.impressions": "abc",
    }
