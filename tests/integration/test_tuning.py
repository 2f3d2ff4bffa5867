"""Studies in Postgres: resumed after a kill, shared by processes, adopted; no trial sees the test part."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import Command, Database
from support import look, until
from support_processes import Forked, take_part

from recstore import errors, pipeline, registry
from recstore.background import dispatch, due
from recstore.definition import Hyperparameters
from recstore.evaluation.curves import LearningCurve
from recstore.evaluation.splits import SplitChoice
from recstore.experiments.evaluate import evaluate
from recstore.experiments.measurement import Measurement
from recstore.experiments.tuning import search, space, studies, work
from recstore.experiments.tuning.search_options import Options
from recstore.source import pulling

SMALL = Options(trials=6, max_factors=16, most_iterations=6)
LINE = "tune retail --trials 6 --max-factors 16 --max-iterations 6"


def rows(database: Database, study: int) -> list[dict[str, Any]]:
    return look(database, "SELECT * FROM recstore.trials WHERE study = %s ORDER BY number", study)


def study_row(database: Database, study: int) -> dict[str, Any]:
    return look(database, "SELECT * FROM recstore.studies WHERE study = %s", study)[0]


def begin(database: Database, options: Options = SMALL, **more: Any) -> int:
    return work.begin(database.url, database.settings, "retail", options, SplitChoice(), **more)


def test_a_search_is_made_measured_and_adopted(
    shop: Database, recstore: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop.create()
    counted = {name: Mock(wraps=getattr(module, name)) for name, module in (("read", pulling), ("measure", search))}
    monkeypatch.setattr(pulling, "read", counted["read"])
    monkeypatch.setattr(search, "measure", counted["measure"])
    report = tmp_path / "search.html"
    answer = recstore(f"{LINE} --adopt --json --report {report}").expect(0)
    assert [mock.call_count for mock in counted.values()] == [1, 1]
    found = answer.json
    assert found["state"] == "ended"
    assert [made["number"] for made in found["trials"]] == list(range(6))
    assert {made["state"] for made in found["trials"]} <= {"complete", "pruned"}
    best = max((made for made in found["trials"] if made["state"] == "complete"), key=lambda made: made["value"])
    names = [result["name"] for result in found["evaluation"]["results"]]
    assert names[:4] == ["retail, tuned", "popularity", "item-kNN", "EASE"]
    assert found["evaluation"]["examples"]
    assert "validation part" in found["split"]
    assert report.read_text().startswith("<!DOCTYPE html>")

    # what won is the recommender's now
    with shop.connect() as connection:
        definition = registry.get(connection, "retail").definition
    assert space.present(definition) | best["parameters"] == space.present(definition)
    assert definition.hyperparameters.iterations == (best["iterations"] or 5)
    row = study_row(shop, found["study"])
    assert row["adopted_at"]
    assert row["best"] == found["best"] == best["number"]
    assert (row["best_value"], row["outcome"]) == (best["value"], found["outcome"])
    assert look(shop, "SELECT count(*) AS n FROM recstore_private.study_data") == [{"n": 0}]
    assert shop.retrain().live

    # seen afterwards
    listed = recstore("studies retail")
    assert "ended" in listed.out
    assert f"{best['value']:.4f}" in listed.out
    one = recstore(f"studies retail {found['study']}")
    assert found["split"] in one.out
    assert [line for line in one.out.splitlines() if line.strip().startswith("5 ")]
    assert len(recstore("studies --json").json) == 1
    again = recstore(f"tune retail --study {found['study']} --adopt")
    assert "already" in again.out
    assert counted["measure"].call_count == 1


def child(database: Database, study: int, folder: Path, hold: int, me: str, other: str = "") -> Forked:
    process = Forked(take_part, database.url, study, folder, hold, me, other, log=folder / f"{me} said")
    process.start()
    return process


def test_a_killed_search_loses_no_trial_and_two_processes_share_it(shop: Database, tmp_path: Path) -> None:
    shop.create()
    study = begin(shop)
    first = child(shop, study, tmp_path, 2, "first")
    try:
        until(lambda: (tmp_path / "first in 2").exists() or first.poll() is not None, 60)
        assert [row["state"] for row in rows(shop, study)] == ["complete", "complete", "running"]
        assert study_row(shop, study)["at_work"] == 1
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    until(lambda: rows(shop, study)[2]["state"] == "waiting")
    before = rows(shop, study)

    both = [child(shop, study, tmp_path, -1, me, other) for me, other in (("b", "c"), ("c", "b"))]
    assert [process.wait(120) for process in both] == [0, 0]
    after = rows(shop, study)
    assert [row["number"] for row in after] == list(range(6))
    assert after[:2] == before[:2], "what was finished stays as it was"
    assert after[2]["parameters"] == before[2]["parameters"]
    assert [row["attempts"] for row in after] == [1, 1, 2, 1, 1, 1]
    assert all(row["state"] in ("complete", "pruned") for row in after)
    assert {"b began", "c began"} <= {file.name for file in tmp_path.iterdir()}
    ended = study_row(shop, study)
    assert ended["state"] == "ended", ended["outcome"]
    assert look(shop, "SELECT attempts FROM recstore_private.studies") == [{"attempts": 1}]
    tried = [tuple(sorted(row["parameters"].items())) for row in after]
    assert len(set(tried)) == len(tried)


def test_the_same_command_continues_and_another_begins_from_scratch(
    shop: Database, recstore: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.create()

    with monkeypatch.context() as patch:
        patch.setattr(work, "work", Mock(side_effect=KeyboardInterrupt))
        recstore(LINE).expect(130, "recstore tune retail --study 1")
        assert recstore(f"{LINE} --metric recall@20").code == 130
    assert [row["study"] for row in look(shop, "SELECT study FROM recstore.studies")] == [1, 2]
    with shop.connect() as connection:
        retail = registry.get(connection, "retail")
        assert work.unfinished(connection, retail, work.asked(replace(SMALL, trials=7), SplitChoice())) is None
        assert (work.unfinished(connection, retail) or {})["study"] == 2
    assert recstore("studies retail 1").out.endswith("recstore tune retail --study 1\n")
    recstore(LINE).expect(0, "study 1 of retail")
    assert study_row(shop, 1)["state"] == "ended"
    assert study_row(shop, 2)["state"] == "running"
    assert recstore("tune retail --stop --json").json == {"stopped": [2]}
    assert recstore("tune retail --stop --json").json == {"stopped": []}
    assert recstore("tune retail --resume").code == 2
    assert "Study 2" in recstore("tune retail --study 2 --adopt").err
    assert look(shop, "SELECT count(*) AS n FROM recstore_private.study_data") == [{"n": 0}]

    # an altered recommender is another search
    begun = begin(shop)
    with shop.connect() as connection:
        retail = registry.get(connection, "retail")
        assert (work.unfinished(connection, retail, work.asked(SMALL, SplitChoice())) or {})["study"] == begun
        other = retail.definition.model_copy(update={"hyperparameters": Hyperparameters(factors=8)})
        registry.alter(connection, shop.settings, retail, other)
        assert work.unfinished(connection, registry.get(connection, "retail"), work.asked(SMALL, SplitChoice())) is None


def test_a_grid_and_what_has_no_room(shop: Database, recstore: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = Mock(wraps=LearningCurve)
    monkeypatch.setattr(search, "LearningCurve", curves)
    shop.create()
    assert shop.retrain().live
    line = (
        "tune retail --grid factors=80,100 --grid alpha=40 --max-iterations 3 --curve 2 --include-seen --json --adopt"
    )
    answer = recstore(line)
    assert answer.code == 2
    assert "has room for 64" in json.loads(answer.err.splitlines()[-1])["error"]
    study = study_row(shop, 1)
    assert study["kind"] == "grid"
    trials = rows(shop, 1)
    assert [row["parameters"] for row in trials] == [{"alpha": 40.0, "factors": n} for n in (80, 100)]
    assert [[point["iteration"] for point in row["curve"]] for row in trials] == [[2, 3]] * 2
    popular = recstore("evaluate retail --include-seen --json").expect(0).json["results"][1]
    assert study["evaluation"]["results"][1]["metrics"] == popular["metrics"]
    assert {call.kwargs["include_seen"] for call in curves.call_args_list} == {True}
    answer = recstore("tune retail --study 1 --adopt --resize --json").expect(0)
    assert answer.json["scales"] == {"factors": "log", "alpha": "log"}
    with shop.connect() as connection:
        retail = registry.get(connection, "retail")
    assert retail.dimensions == 128
    assert retail.definition.hyperparameters.factors == study["best_parameters"]["factors"]
    assert shop.retrain().live


def test_a_search_of_which_nothing_succeeds_has_failed(
    shop: Database, recstore: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.create()
    monkeypatch.setattr(LearningCurve, "follow", Mock(side_effect=errors.TrainingDiverged(what="all of them")))
    recstore(LINE).expect(1, "6 trials", "finite numbers")
    assert study_row(shop, 1)["failed"] == 6


def test_a_trial_that_ends_its_process_every_time_is_given_up(shop: Database) -> None:
    shop.create()
    study = begin(shop, replace(SMALL, trials=2))
    connection = shop.connect()
    known = work._load(shop.url, connection, studies.get(connection, study))
    assert known
    for attempt in range(1, studies.ATTEMPTS + 1):
        with shop.connect() as other:
            claim, _ = studies.claim(other, study, known.plan.next)
            assert claim
            assert (claim.trial.number, claim.attempts) == (0, attempt)
            mine, at_work = studies.claim(connection, study, lambda _: None)
            assert (mine, at_work) == (None, True)
        until(lambda: rows(shop, study)[0]["state"] == "waiting")
    late, _ = studies.claim(connection, study, known.plan.next)
    assert late
    assert late.trial.number == 1
    assert not studies.note_curve(connection, claim, []), "who was overtaken stores nothing"
    assert rows(shop, study)[0]["state"] == "failed"
    assert "perhaps memory ran out" in rows(shop, study)[0]["error"]
    assert work.stop(connection, study)
    assert not studies.note_curve(connection, late, []), "nor who was stopped"
    assert [row["state"] for row in rows(shop, study)] == ["failed", "failed"]


def test_the_dispatcher_sends_a_message_for_each_trial_that_is_missing(shop: Database) -> None:
    shop.create()
    study = begin(shop, parallel=2)
    sent: list[tuple[str, str]] = []

    def dispatched(**changed: float) -> list[tuple[str, str]]:
        sent.clear()
        dispatch.dispatch(shop.url, shop.settings.model_copy(update=changed), lambda *message: sent.append(message))
        return list(sent)

    message = ("trial", str(study))
    assert dispatched() == [message] * 2
    assert dispatched() == [], "they are on their way"
    connection = shop.connect()
    known = work._load(shop.url, connection, studies.get(connection, study))
    assert known
    claim, _ = studies.claim(connection, study, known.plan.next)
    assert claim
    connection.execute("UPDATE recstore_private.studies SET sent = 1")
    assert dispatched() == [], "one at work and one on its way"
    assert dispatched(resend=0.0001) == [message], "which was lost"
    studies.release(connection, claim)
    connection.execute("UPDATE recstore_private.studies SET sent = 0")
    refuse = Mock(side_effect=errors.BrokerUnreachable(reason="it is down"))
    done = dispatch.dispatch(shop.url, shop.settings, refuse)
    assert "it is down" in done.problems[0]
    assert dispatched() == [message] * 2
    with shop.connect() as other:
        assert work.stop(other, study)
    assert dispatched(resend=0.0001) == []
    assert dispatched(history=1e-9) == []
    assert look(shop, "SELECT FROM recstore.studies") == [], "long over"


def test_a_worker_without_a_broker_takes_trials_of_several_studies_in_turns(shop: Database) -> None:
    shop.create()
    both = [begin(shop, parallel=2), begin(shop, replace(SMALL, trials=3), parallel=2)]

    def take(*but: int) -> tuple[str, str] | None:
        return due.take_one(shop.connect(), shop.settings, "train", but)

    one, two = (("trial", str(study)) for study in both)
    assert [take(), take(), take()] == [one, two, one]
    assert take(both[0]) == two, "where the first has nothing left but what is at work elsewhere"
    assert take() is None
    assert due.take_one(shop.connect(), shop.settings, "default", ()) is None


def test_no_trial_sees_the_test_part_or_delays_a_retrain_and_the_users_are_those_of_an_evaluation(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held out by share, some users have pairs in the validation part only, which is trained on in the end."""
    shop.create()
    choice = SplitChoice("share", 0.6)
    study = work.begin(shop.url, shop.settings, "retail", SMALL, choice)
    run, retrained = search.Search.run, []

    def blind(self: search.Search, *rest: Any) -> Any:
        if not retrained:
            retrained.append(pipeline.retrain(shop.url, shop.settings, "retail").live)
        blinded = replace(self.split, test=object())  # type: ignore[arg-type]  # any use of it is an AttributeError
        return run(replace(self, split=blinded), *rest)

    monkeypatch.setattr(search.Search, "run", blind)
    work.work(shop.url, shop.settings, study)
    assert retrained == [True]
    assert study_row(shop, study)["state"] == "ended", study_row(shop, study)["outcome"]
    assert all(row["state"] in ("complete", "pruned") for row in rows(shop, study))
    with shop.connect() as connection:
        found = work.result(connection, study).evaluation
    evaluated = evaluate(shop.url, shop.settings, "retail", Measurement(), choice)
    assert found
    assert found.evaluated_users == evaluated.evaluated_users > len(work._newest[shop.url, study].split.users())
    assert list(found.results[0].metrics) == list(evaluated.results[0].metrics)
