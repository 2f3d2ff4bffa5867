"""Traces of runs, as a collector on this machine receives them."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, Database
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from support import Hook, free_port, look, until

from recstore import lists
from recstore.config import traces_wanted
from recstore.definition import Filters
from recstore.errors import NothingLeft
from recstore.evaluation.splits import SplitChoice
from recstore.experiments.tuning import work
from recstore.experiments.tuning.search_options import Options
from recstore.operations import jobs
from recstore.refresh import refresh
from recstore.runs import tracing

from .conftest import CELERY, OWN, Workers, of_kinds


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


@dataclass
class Collector:
    """Receives traces over HTTP; calls back before it answers."""

    resources: list[dict[str, Any]] = field(default_factory=list)
    traces: list[list[Span]] = field(default_factory=list)
    on_trace: Callable[[], None] = lambda: None

    def receive(self, body: bytes) -> None:
        (found,) = ExportTraceServiceRequest.FromString(body).resource_spans
        self.on_trace()
        self.resources.append(attributes(found.resource.attributes))
        self.traces.append([span for scope in found.scope_spans for span in scope.spans])

    def trace(self) -> tuple[Span, list[Span]]:
        """The root of the only trace, and its children in their order."""
        (spans,) = self.traces
        (root,) = [span for span in spans if not span.parent_span_id]
        children = [span for span in spans if span.parent_span_id == root.span_id]
        assert len(children) == len(spans) - 1
        assert {span.trace_id for span in spans} == {root.trace_id}
        return root, children


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.receive(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(tracing, "PATIENCE", 30.0)
    yield collector
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_run_is_a_span_and_each_of_its_stages(
    trained: Database, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment.name=test")
    states: list[dict[str, Any]] = []
    newest = "SELECT run, state, finished_at IS NOT NULL AS ended, stages FROM recstore.runs ORDER BY run DESC LIMIT 1"
    locks = "SELECT count(*) AS locks FROM pg_locks JOIN pg_database d ON d.oid = database"
    locks += " WHERE locktype = 'advisory' AND datname = current_database()"
    collector.on_trace = lambda: states.extend((look(trained, newest)[0], look(trained, locks)[0]))
    done = trained.retrain()
    root, children = collector.trace()
    run = look(trained, newest)[0]
    assert states == [run, {"locks": 0}]  # it had ended before the collector was asked
    assert root.name == "retrain"
    assert attributes(root.attributes) == {
        "recstore.recommender": "retail",
        "recstore.job": "retrain",
        "recstore.run": done.run,
        "recstore.generation": done.generation,
        "recstore.state": "succeeded",
        "recstore.device": "cpu",
        "recstore.outcome": f"Generation {done.generation} is live.",
    }
    assert [child.name for child in children] == [stage["stage"] for stage in run["stages"]]
    before = root.start_time_unix_nano
    for child, stage in zip(children, run["stages"], strict=True):
        assert before <= child.start_time_unix_nano <= child.end_time_unix_nano <= root.end_time_unix_nano
        before = child.end_time_unix_nano - 100_000  # the seconds of a stage are rounded to that
        found = attributes(child.attributes)
        assert found["recstore.seconds"] == stage["seconds"]
        assert {key.removeprefix("recstore.") for key in found} == {
            key for key, value in stage.items() if value is not None
        }
    train = next(attributes(child.attributes) for child in children if child.name == "train")
    assert train["recstore.factors"] == 16
    assert collector.resources[0]["service.name"] == "shop"
    assert collector.resources[0]["deployment.environment.name"] == "test"
    assert not any(span.status.code or span.events for span in (root, *children))


def test_an_error_is_on_the_run_and_on_the_stage_that_failed(shop: Database, collector: Collector) -> None:
    shop.create(filters=Filters(min_item_views=10**9))
    with pytest.raises(NothingLeft) as failure:
        shop.retrain()
    root, children = collector.trace()
    assert collector.resources[0]["service.name"] == "recstore"
    assert attributes(root.attributes)["recstore.state"] == "failed"
    assert [child.name for child in children if child.status.code] == ["filter"]
    for span in (root, children[-1]):
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert span.status.message == failure.value.message
        (event,) = span.events
        assert attributes(event.attributes)["exception.type"].endswith("NothingLeft")


def test_every_job_and_a_trial_has_a_trace(trained: Database, collector: Collector, tmp_path: Path) -> None:
    place = trained.url, trained.settings
    refresh(*place, "retail")
    jobs.reindex(*place, "retail")
    jobs.prune(*place, "retail")
    lists.similar_all(*place, "retail", tmp_path / "lists.csv")
    study = work.begin(*place, "retail", Options(trials=1, max_factors=4, most_iterations=1), SplitChoice())
    work.work_on(*place, study)
    roots = [span for spans in collector.traces for span in spans if not span.parent_span_id]
    assert [root.name for root in roots] == ["refresh", "reindex", "prune", "lists", "trial"]
    trial = attributes(roots[-1].attributes)
    assert (trial["recstore.study"], trial["recstore.trial"], trial["recstore.state"]) == (study, 0, "complete")
    assert trial["recstore.ndcg@20"] > 0
    assert {len(spans) > 1 for spans in collector.traces[:-1]} == {True}


@of_kinds("workers", CELERY, OWN)
def test_a_worker_s_child_sends_its_traces(workers: Workers, collector: Collector) -> None:
    workers.start(dispatch_interval=1000)
    workers.ends(workers.request("reindex"))
    until(lambda: collector.traces)
    assert collector.trace()[0].name == "reindex"


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_that_does_not_answer_fails_no_run(
    trained: Database, recstore: Command, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{port}/v1/traces")
    monkeypatch.setattr(tracing, "PATIENCE", 0.1)
    hook = Hook()
    with socket.create_server(("127.0.0.1", port)) if listens else socket.socket():
        assert trained.retrain(reporter=hook).live
        answer = recstore("retrain retail").expect(0)
    assert [row["state"] for row in look(trained, "SELECT state FROM recstore.runs")] == ["succeeded"] * 3
    problem = "No trace was sent: the collector did not answer within 0.1 s. Check OTEL_EXPORTER_OTLP_ENDPOINT."
    assert hook.warnings == [problem]
    assert problem in answer.err
    assert "Traceback" not in answer.err


def test_without_the_extra_there_are_no_traces(
    trained: Database, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    hook = Hook()
    jobs.prune(trained.url, trained.settings, "retail", reporter=hook)
    assert (hook.warnings, collector.traces) == ([], [])


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"TRACES_EXPORTER": "otlp"}, True),
        ({"EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "TRACES_EXPORTER": "none"}, False),
        ({"EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_ask_for_traces(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    assert traces_wanted() == wanted


def test_nothing_is_imported_that_is_not_configured(trained: Database) -> None:
    code = "import sys; from recstore import cli; code = cli.run(sys.argv[1:])"
    code += "; sys.exit(code or any(name.startswith('opentelemetry') for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, "--database", trained.url, "prune", "retail"], capture_output=True
    )
    assert done.returncode == 0, done
