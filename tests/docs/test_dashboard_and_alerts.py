"""The files of monitoring/: every query is valid PromQL about metrics and labels that a worker exports, and the alerts fire."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml  # type: ignore[import-untyped]
from recstore.worker.celery import pulse
from support import lacking

from recstore.background.prometheus import DatabaseCollector
from recstore.config import Settings

FOLDER = Path(__file__).parents[2] / "monitoring"
BOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
METRICS = {
    metric.name + "_total" * (metric.type == "counter"): set(metric._labelnames)  # type: ignore[attr-defined]
    for collector in (DatabaseCollector(Settings()), pulse.BrokerCollector())
    for metric in collector.describe()
}
"""Metric -> its labels; tests/integration/test_metrics.py shows that a real recommender exports them."""


def panels() -> Iterator[dict[str, Any]]:
    for panel in BOARD["panels"]:
        yield from (panel, *panel.get("panels", ()))


QUERIES = {
    f"{panel['title']}, {target['refId']}": (target["expr"], target.get("legendFormat", ""))
    for panel in panels()
    for target in panel.get("targets", ())
}
QUERIES |= {note["name"]: (note["expr"], note["titleFormat"]) for note in BOARD["annotations"]["list"]}
QUERIES |= {
    rule["alert"]: (rule["expr"], " ".join(re.findall(r"\$labels\.\w+", str(rule["annotations"])))) for rule in RULES
}


def labels(expression: Any) -> set[str]:
    """Return the labels of an expression's result; check that every metric and label in it is exported."""
    match expression:
        case promql_parser.VectorSelector(name=name, matchers=matchers):
            assert {matcher.name for matcher in matchers.matchers} <= METRICS[name], name
            return METRICS[name]
        case promql_parser.MatrixSelector(vector_selector=inner):
            return labels(inner)
        case promql_parser.ParenExpr(expr=inner):
            return labels(inner)
        case promql_parser.Call(args=arguments):
            return set().union(*map(labels, arguments))
        case promql_parser.AggregateExpr(expr=inner, modifier=modifier):
            kept = set(modifier.labels) if modifier else set()
            assert kept <= labels(inner), expression.prettify()
            return kept
        case promql_parser.BinaryExpr(lhs=left, rhs=right):
            return labels(left) | labels(right)
        case promql_parser.NumberLiteral():
            return set()
    raise AssertionError(f"a kind of expression that this test does not know: {expression!r}")


@pytest.mark.parametrize("name", QUERIES)
def test_its_metrics_and_labels_are_exported(name: str) -> None:
    query, text = QUERIES[name]
    found = labels(promql_parser.parse(query.replace("$recommender", ".*")))
    assert set(re.findall(r"\$labels\.(\w+)|\{\{(\w+)\}\}", text)) <= {
        pair for label in found for pair in ((label, ""), ("", label))
    }


def test_the_dashboard_shows_every_metric_and_imports_anywhere() -> None:
    shown = {name for query, _ in QUERIES.values() for name in re.findall(r"recstore_\w+", query)} - {"recstore_job"}
    assert shown == set(METRICS)
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    assert not [panel["title"] for panel in panels() if panel["type"] != "row" and not panel["description"]]
    assert set(re.findall(r'"uid": "([^"]*)"', json.dumps(BOARD))) == {"recstore", "${datasource}"}
    taken = [
        (x, y)
        for panel in panels()
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    page = (FOLDER.parent / "docs/monitoring.md").read_text()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["for"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert f"`{rule['alert']}`" in page
    assert set(re.findall(r"\bRecstore[A-Z]\w+", page + json.dumps(BOARD))) == {rule["alert"] for rule in RULES}


RETAIL, OTHER = '{recommender="retail"', '{recommender="other"'
HEALTHY: dict[str, Any] = {'recstore_database_up{instance="one"}': 1, 'recstore_database_up{instance="two"}': 1}
HEALTHY |= {f'recstore_queue_workers{{queue="{queue}"}}': 1 for queue in ("default", "train")}
HEALTHY |= {'recstore_dispatch_age_seconds{host="one"}': 30, 'recstore_dispatch_age_seconds{host="gone"}': 50_000}
for _one in (RETAIL, OTHER):
    HEALTHY |= {f"recstore_{name}{_one}}}": value for name, value in (("live_items", 100), ("ready_age_seconds", 0))}
    HEALTHY |= {f"recstore_retrain_overdue_seconds{_one}}}": "0+60x300 0x2000"}  # a training of five hours
    HEALTHY |= {f'recstore_oldest_request_age_seconds{_one}, recstore_job="retrain"}}': "0+60x100 0x2000"}
    HEALTHY |= {f'recstore_last_run_succeeded{_one}, recstore_job="retrain"}}': 1}
    HEALTHY |= {
        f'recstore_runs_total{_one}, recstore_job="retrain", state="failed"}}': "0+1x3 3x500 0x2000"
    }  # at midnight
    HEALTHY |= {f'recstore_live_ann_recall_ratio{_one}, query="similar"}}': 0.99}
    HEALTHY |= {
        f'recstore_live_ndcg_ratio{_one}, model="{model}"}}': ndcg
        for model, ndcg in (("live", 0.2), ("popularity", 0.1))
    }
    HEALTHY |= {
        f'recstore_live_rmse{_one}, model="{model}"}}': error for model, error in (("live", 0.8), ("biases", 0.9))
    }
"""Series of two workers without a broker, and their values each minute: a number, or in the notation of promtool."""

WRONG: list[tuple[set[str], dict[str, Any], int]] = [
    (set(), {}, 400),
    (set(), {'recstore_broker_up{instance="one"}': 1}, 400),
    (set(), {'recstore_database_up{instance="one"}': "1x10 0x3 1x2000", "recstore_broker_up": "1x10 0x3 1x2000"}, 14),
    ({"RecstoreSilent"}, dict.fromkeys(HEALTHY), 6),
    ({"RecstoreDatabaseDown"}, {'recstore_database_up{instance="two"}': 0}, 6),
    ({"RecstoreDatabaseDown"}, dict.fromkeys(HEALTHY) | {"recstore_database_up": 0}, 6),
    ({"RecstoreBrokerDown"}, {'recstore_broker_up{instance="one"}': 0, 'recstore_broker_up{instance="two"}': 1}, 6),
    ({"RecstoreNoDispatch"}, {'recstore_dispatch_age_seconds{host="one"}': 191}, 6),
    ({"RecstoreNoDispatch"}, {name: None for name in HEALTHY if "dispatch" in name}, 6),
    ({"RecstoreQueueUnserved"}, {'recstore_queue_workers{queue="train"}': 0}, 6),
    ({"RecstoreRetrainOverdue"}, {f"recstore_retrain_overdue_seconds{RETAIL}}}": 6 * 3600 + 1}, 6),
    ({"RecstoreRunFailed"}, {f'recstore_last_run_succeeded{RETAIL}, recstore_job="retrain"}}': 0}, 16),
    (
        {"RecstoreRunsFailOften"},
        {f'recstore_runs_total{RETAIL}, recstore_job="retrain", state="failed"}}': "0+1x3 3x50 0 1x2000"},
        62,
    ),
    ({"RecstoreGenerationHeldUp"}, {f"recstore_ready_age_seconds{RETAIL}}}": 3601}, 6),
    ({"RecstoreRequestsWait"}, {f'recstore_oldest_request_age_seconds{RETAIL}, recstore_job="retrain"}}': 7201}, 6),
    ({"RecstoreItemsLost"}, {f"recstore_live_items{RETAIL}}}": "100x600 69x2000"}, 620),
    ({"RecstoreAnnRecallLow"}, {f'recstore_live_ann_recall_ratio{RETAIL}, query="similar"}}': 0.94}, 16),
    ({"RecstoreWorseThanBaseline"}, {f'recstore_live_ndcg_ratio{RETAIL}, model="live"}}': 0.09}, 16),
    ({"RecstoreWorseThanBaseline"}, {f'recstore_live_rmse{RETAIL}, model="live"}}': 0.91}, 16),
]
"""The alerts that fire, what differs from healthy series (None: missing), and the minute; five minutes before none fires."""


def test_each_alert_fires_when_it_should_and_no_other(tmp_path: Path) -> None:
    assert {alert for alerts, *_ in WRONG for alert in alerts} == {rule["alert"] for rule in RULES}
    if not shutil.which("promtool"):
        lacking("prometheus", "which alerts fire")
    tests = []
    for alerts, differences, minute in WRONG:
        series = {name: value for name, value in (HEALTHY | differences).items() if value is not None}
        firing = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)]
        query = 'count by (alertname) (ALERTS{alertstate="firing"})'
        tests.append(
            {
                "name": f"{sorted(alerts)}: {differences}",
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": value if isinstance(value, str) else f"{value}x2000"}
                    for name, value in series.items()
                ],
                "promql_expr_test": [
                    {"expr": query, "eval_time": f"{minute}m", "exp_samples": firing},
                    {"expr": query, "eval_time": f"{minute - 5}m", "exp_samples": []},
                ],
            }
        )
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(FOLDER / "alerts.yaml")], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
