"""A tuning left to real workers: several trials at once, one of them killed, and the end."""

import signal

import pytest
from conftest import Command
from support import look, until

from .conftest import Workers, of_kinds


@pytest.mark.campaign
@of_kinds("workers")
def test_workers_share_a_tuning_and_one_that_is_killed_costs_no_trial(workers: Workers, recstore: Command) -> None:
    database = workers.database
    workers.hold("in trial")
    for _ in range(2):
        workers.start()
    line = "tune retail --background --parallel 2 --trials 8 --max-factors 16 --max-iterations 6"
    answer = recstore(line, url=database.url)
    assert answer.code == 0, answer.err
    running = "SELECT count(*) AS n FROM recstore.trials WHERE state = 'running'"
    until(lambda: look(database, running)[0]["n"] == 2, 60)
    victim = workers.holder("in trial")
    victim.signal(signal.SIGKILL)
    victim.popen.wait()
    until(lambda: look(database, "SELECT FROM recstore.trials WHERE state = 'waiting'"))
    workers.release("in trial")
    workers.start()
    workers.beat()
    until(lambda: look(database, "SELECT state FROM recstore.studies")[0]["state"] != "running", 120)
    study = look(database, "SELECT * FROM recstore.studies")[0]
    assert study["state"] == "ended", study["outcome"]
    trials = look(database, "SELECT * FROM recstore.trials ORDER BY number")
    assert [trial["number"] for trial in trials] == list(range(8))
    assert all(trial["state"] in ("complete", "pruned") for trial in trials)
    assert sorted(trial["attempts"] for trial in trials) == [1] * 7 + [2], "the one that was killed was begun again"
    assert study["evaluation"]["results"][0]["name"] == "retail, tuned"
    answer = recstore(f"tune retail --study {study['study']} --adopt", url=database.url)
    assert answer.code == 0, answer.err
    workers.ends(workers.request("retrain"))
