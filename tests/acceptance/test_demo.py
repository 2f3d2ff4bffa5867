"""The demo as a newcomer runs it: twice, from a folder of its own, and every SQL it prints gives the rows it printed."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from recstore import cli, demo
from recstore.definition import Definition, Hyperparameters


@pytest.mark.parametrize("commands", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_the_demo_runs_twice_and_its_sql_is_ready_to_paste(
    commands: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the commands, or in this process with few factors; psql is a command in either case."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in os.environ:
        if name.startswith("RECSTORE_") and (commands or name != "RECSTORE_CALIBRATION_QUESTIONS"):
            monkeypatch.delenv(name)
    few = Hyperparameters(factors=8, iterations=2)
    monkeypatch.setattr(demo, "Definition", partial(Definition, hyperparameters=few))

    def command(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "recstore", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def recstore(*arguments: str) -> str:
        if commands:
            return command(*arguments)
        capfd.readouterr()
        assert cli.run([*arguments]) == 0
        return capfd.readouterr().out

    try:
        first, second = json.loads(recstore("demo", "--json")), recstore("demo")
        assert (first["generation"], len(first["answers"])) == (1, 10)
        assert "273,844 view counts" in second
        assert "retail exists already" in second
        assert second.splitlines()[-1].startswith("Stop the server with: ")
        printed_sql = re.findall(r"^(?:SELECT|BEGIN|INSERT|ROLLBACK).*?;$", second, re.DOTALL | re.MULTILINE)
        statements = [statement for statement in printed_sql if statement.startswith("SELECT")]
        assert statements == [answer["sql"] for answer in first["answers"]]
        script = [["-c", statement] + ["-c", "\\echo --"] * statement.startswith("SELECT") for statement in printed_sql]
        answers = command("psql", "-qAt", *chain(*script)).split("--\n")
        for statement, answer in zip(statements, answers, strict=False):
            printed = (
                second.partition(statement + "\n")[2].partition("\n\n")[0].removesuffix("\nROLLBACK;").splitlines()
            )
            pasted = answer.splitlines()
            assert [line.split()[0] for line in printed] == [line.split("|")[0] for line in pasted]
            assert len(pasted) == 5
        assert {row["reason"] for row in first["answers"][-1]["rows"]} == {"fold_in"}
    finally:
        recstore("stop")
    assert command("psql", "-At", "-c", "SELECT count(*) FROM retail.item_vectors") == "4006\n"
    recstore("stop")
