"""The demo as a newcomer runs it: twice, from a folder of its own, and every SQL it prints gives what it printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path


def test_the_demo_runs_twice_and_its_sql_is_ready_to_paste(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSTORE_")}

    def recstore(*arguments: str) -> str:
        command = [sys.executable, "-m", "recstore", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        first, second = json.loads(recstore("demo", "--json")), recstore("demo")
        assert (first["generation"], len(first["answers"])) == (1, 9)
        assert "273,844 view counts" in second
        assert "retail exists already" in second
        assert second.splitlines()[-1].startswith("Stop the server with: ")
        statements = re.findall(r"^SELECT .*?;$", second, re.DOTALL | re.MULTILINE)
        assert statements == [answer["sql"] for answer in first["answers"]]
        script = [word for statement in statements for word in ("-c", statement, "-c", "\\echo --")]
        answers = recstore("psql", "-At", *script).split("--\n")
        for statement, answer in zip(statements, answers, strict=False):
            printed = second.partition(statement + "\n")[2].partition("\n\n")[0].splitlines()
            pasted = answer.splitlines()
            assert [line.split()[0] for line in printed] == [line.split("|")[0] for line in pasted]
            assert len(pasted) == 5
    finally:
        recstore("stop")
    assert recstore("psql", "-At", "-c", "SELECT count(*) FROM retail.item_vectors") == "4006\n"
    recstore("stop")
