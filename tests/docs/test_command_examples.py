"""The example in the help of every command runs on the demo, here a small shop of the same shape, and each command has
`--json`, whose output is one JSON document; without a terminal nothing has colours."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Answer, Database, superuser
from typer.main import get_command

from recstore import cli, demo

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "docs"))

import cli_page  # noqa: E402

COMMANDS = dict(cli_page.commands())

WITHOUT_JSON = {
    "recstore psql": "is psql, with psql's own output",
    "recstore explore": "serves pages for people",
}

ELSEWHERE = {
    "recstore start": "tests/integration/test_embedded.py",
    "recstore stop": "tests/integration/test_embedded.py",
    "recstore psql": "tests/integration/test_embedded.py",
    "recstore demo": "tests/acceptance/test_demo.py",
    "recstore worker-demo": "tests/acceptance/test_worker_demo.py",
    "recstore up": "tests/integration/test_up.py",
    "recstore explore": "tests/integration/test_explorer.py",
    "recstore worker": "tests/worker",
    "recstore cancel": "tests/integration/test_runs.py: it wants a run in progress",
    "recstore health": "tests/worker/test_monitoring.py: it wants a broker and workers",
}
"""Examples that start, stop or become other processes."""

FIRST = ["db upgrade", "init", "load", "create", "retrain", "publish", "request reindex", "request cancel"]
LAST = ["prune", "drop", "db downgrade"]

SHORTER = {
    r"retail 1606": "retail 6",  # an item of this shop
    r"--wait": "",  # nobody works here
    r" --watch": "",
    r"request cancel 12": "request cancel 1",
    r"compare retail 41 42": "compare retail 2 2 --users 5",
    r"--table shop.views$": "--table shop.loaded",  # that one is here
    r"(tune retail.*)": r"\1 --trials 1 --max-iterations 2 --users 50",
    r"(evaluate retail.*)--factors 256": r"\1--factors 8 --iterations 2",
    r"--factors 256": "--factors 8 --iterations 2",
}


def in_order() -> list[str]:
    """Names of the commands whose example runs here."""
    first, last = [[f"recstore {name}" for name in names] for names in (FIRST, LAST)]
    rest = [name for name in COMMANDS if name not in {*first, *last, *ELSEWHERE}]
    return [*first, *rest, *last]


def line_of(name: str) -> str:
    line = cli_page.example(COMMANDS[name])
    for pattern, instead in SHORTER.items():
        line = re.sub(pattern, instead, line)
    line += " --factors 16 --dimensions 128 --search exact" * (name == "recstore create")
    return line.removeprefix("recstore ")


@pytest.fixture
def run(
    shop: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Answer]]:
    """Runs a command line as the demo's only role, its owner, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSTORE_RETENTION", "0")
    monkeypatch.setenv("RECSTORE_FLIP_WAIT", "0")
    pairs = [f"{user},{user % 7 + step}\n" for user in range(40) for step in (1, 2, 3)]
    Path("train.txt").write_text("".join(pairs))
    Path("test.txt").write_text("".join(f"{user},{user % 7 + 4}\n" for user in range(40)))
    Path("views.csv").write_text("user_id,product_id,view_count\n1,2,3\n2,3,4\n")
    Path("recommenders.toml").write_text('[other.source]\ntable = "shop.views"\nitem = "product_id"\n')
    roles = ("webapp", "ops")
    with superuser(shop.server, shop.name) as connection:
        connection.execute(demo.ROLES)
        connection.execute("REASSIGN OWNED BY worker TO postgres")

    def call(line: str) -> Answer:
        code = cli.run(["--database", shop.url_of("postgres"), *shlex.split(line)])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    yield call
    with superuser(shop.server, shop.name) as connection:
        for role in roles:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_every_command_has_an_example_and_json_or_a_reason() -> None:
    assert len(COMMANDS) > 45
    assert WITHOUT_JSON.keys() | ELSEWHERE.keys() <= COMMANDS.keys()
    for name, command in COMMANDS.items():
        assert cli_page.example(command).startswith(f"{name} ") or cli_page.example(command) == name, name
        has = any("--json" in parameter.opts for parameter in command.params)
        assert has is (name not in WITHOUT_JSON), name
        assert all(parameter.help for parameter in command.params), name


def test_every_example_runs(shop: Database, run: Callable[[str], Answer]) -> None:
    failed = {}
    reader = shop.connect("postgres")
    for name in in_order():
        line = line_of(name)
        if name == "recstore retrain":  # so that the next one has to wait for this
            reader.execute("BEGIN; SELECT count(*) FROM retail.item_vectors")
        if name == "recstore publish":
            assert run("retrain retail").code == 4
            reader.execute("ROLLBACK")
        if name == "recstore lists":
            assert run("alter retail --recommend-into shop.recommended").code == 0
        answers = [run(line)] if not _changes(name) else []
        answers.append(run(line + " --json"))
        for answer in answers:
            if answer.code != 0 or "\x1b" in answer.out + answer.err:
                failed[line] = (answer.code, answer.out, answer.err)
        try:
            json.loads(answers[-1].out)
        except ValueError:
            failed[line] = ("not one JSON document", answers[-1].out, answers[-1].err)
    assert not failed, "\n".join(f"{line}: {what}" for line, what in failed.items())


def _changes(name: str) -> bool:
    """Whether a second time is not like the first."""
    changing = "init load create retrain publish rollback prune drop tune import benchmark evaluate cancel reindex"
    return name.split()[-1] in changing.split() or "request" in name or name.endswith(("export", "-all"))


def test_help_and_mistakes_have_no_colours(run: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CLICOLOR_FORCE"):
        monkeypatch.delenv(variable, raising=False)
    groups = {name.rpartition(" ")[0].removeprefix("recstore").strip() for name in COMMANDS}
    for name in (*groups, *(name.removeprefix("recstore ") for name in COMMANDS)):
        answer = run(f"{name} --help")
        assert answer.code == 0
        assert "\x1b" not in answer.out + answer.err, name
        assert "Usage" in answer.out
    for line in ("nonsense", "show", "drop nix --yes", "create x --factors many --table y", "--nix"):
        answer = run(line)
        assert (answer.code > 0, answer.out) == (True, "")
        assert "\x1b" not in answer.err, line
        told = json.loads(run(f"{line} --json").err.splitlines()[-1])
        assert told.keys() == {"error", "kind", "data"}
        assert get_command(cli.application())
