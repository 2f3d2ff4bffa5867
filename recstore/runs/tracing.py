"""Send what a run did to an OpenTelemetry collector: a trace for each run, with a span for each stage.

A trace is built and sent when the run has ended and released its lock, so no run waits for a collector. The standard variables
OTEL_.. configure it. Without them, or without the extra `otel`, nothing is imported.
"""

import contextvars
import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from recstore.config import traces_wanted

PATIENCE = 3.0
"""Most seconds that the process waits for the collector at the end of a run."""

QUIET = logging.NullHandler()
"""Without a handler, Python prints the warnings of OpenTelemetry to a command's standard error."""


@dataclass(frozen=True)
class Span:
    """Work that has ended, with its start and end by `time.monotonic()`. Attributes that are None are left out."""

    name: str
    start: float
    end: float
    attributes: Mapping[str, Any]
    error: BaseException | None = None


def send(span: Span, children: Iterable[Span] = ()) -> str | None:
    """Send a trace if a collector is configured. Never raises; return a sentence if it was not accepted in time."""
    if not traces_wanted():
        return None
    reasons = [f"the collector did not answer within {PATIENCE:g} s"]

    def work() -> None:
        try:
            reasons[:] = [] if _export(span, children) else ["the collector did not accept it"]
        except ImportError:  # without the extra
            reasons.clear()
        except Exception as error:
            reasons[:] = [f"{type(error).__name__}: {error}"]

    # within the context of this thread, so that a span of the caller becomes the parent
    thread = threading.Thread(target=contextvars.copy_context().run, args=[work], name="recstore-trace", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return f"No trace was sent: {reasons[0]}. Check OTEL_EXPORTER_OTLP_ENDPOINT." if reasons else None


def _export(span: Span, children: Iterable[Span]) -> bool:
    """Build the spans and send them; return whether the collector accepted them."""
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    logging.getLogger("opentelemetry").addHandler(QUIET)
    own = Resource.create({"service.name": "recstore", "service.version": version("recstore")})
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come last
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    ended = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(ended))
    tracer = provider.get_tracer("recstore", version("recstore"))
    offset = time.time() - time.monotonic()

    def begin(one: Span, parent: Context | None = None) -> trace.Span:
        attributes = {f"recstore.{key}": _value(value) for key, value in one.attributes.items() if value is not None}
        begun = tracer.start_span(one.name, parent, attributes=attributes, start_time=_nanoseconds(one.start + offset))
        if one.error is not None:
            begun.record_exception(one.error, timestamp=_nanoseconds(one.end + offset))
            begun.set_status(trace.StatusCode.ERROR, str(one.error))
        return begun

    root = begin(span)
    for child in children:
        begin(child, trace.set_span_in_context(root)).end(_nanoseconds(child.end + offset))
    root.end(_nanoseconds(span.end + offset))
    spans = ended.get_finished_spans()  # none if OTEL_TRACES_SAMPLER drops the trace
    return not spans or OTLPSpanExporter().export(spans) is SpanExportResult.SUCCESS


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _value(value: Any) -> str | bool | int | float:
    """Return what an attribute can hold; anything nested as JSON."""
    return value if isinstance(value, str | bool | int | float) else json.dumps(value, default=str)
