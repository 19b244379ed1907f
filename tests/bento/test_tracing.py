"""Tracing: a request's span names its impressions, and what is logged within it names the span."""

import asyncio
import re

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from riverdelta.bento.tracing import note, present


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
