"""Which modules a command line imports: its command's, and nothing that trains for one that only looks."""

import importlib
import subprocess
import sys
from inspect import signature

import pytest
import typer

from recstore import cli
from recstore.api.store import Recstore
from recstore.evaluation.splits import SEED
from recstore.experiments.tuning.search_options import Options
from recstore.sql.generation import MIN_USERS


def test_every_module_has_the_commands_it_is_listed_with() -> None:
    for modules in cli.PANELS.values():
        for name, listed in modules.items():
            app = typer.Typer()
            importlib.import_module(f"recstore.cli.{name}").register(app)
            names = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]  # type: ignore[union-attr]
            assert [*names, *(group.name for group in app.registered_groups)] == listed


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("list", "list"),
        ("--database postgresql://list show retail", "show"),
        ("--database=postgresql://x recommend-all retail --into list", "recommend-all"),
        ("db upgrade --help", "db"),
        ("", None),
        ("--help", None),
        ("--database", None),
        ("lst", None),
    ],
)
def test_the_command_of_a_line(line: str, command: str | None) -> None:
    assert cli.command_of(line.split()) == command


@pytest.mark.parametrize(
    ("typed", "command"),
    [("recstore ", None), ("recstore show", None), ("recstore show ", "show"), ("recstore show r", "show")],
)
def test_the_command_behind_which_tab_was_pressed(
    typed: str, command: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_RECSTORE_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", typed)
    assert cli.command_of([]) == command
    monkeypatch.setenv("COMP_WORDS", typed.replace(" ", "\n"))  # as bash hands it over
    assert cli.command_of([]) == command


def test_defaults_are_those_of_the_work_below() -> None:
    """The declarations import nothing that computes, so they repeat the numbers."""
    tune, options = signature(Recstore.tune).parameters, Options()
    declared = [tune[name].default for name in ("trials", "time", "max_iterations", "users", "seed")]
    stored = [options.trials, options.seconds, options.most_iterations, options.users, options.seed]
    assert declared == stored
    assert signature(Recstore.evaluate).parameters["split_seed"].default == SEED
    assert signature(Recstore.benchmark).parameters["split_seed"].default == SEED
    assert signature(Recstore.similar_all).parameters["min_users"].default == MIN_USERS


def test_commands_that_look_import_nothing_that_computes() -> None:
    looking = ["tune", "evaluate", "load", "list", "show", "status", "runs", "requests", "rollback", "publish"]
    looking += ["recommend", "doctor", "health", "db", "request"]
    program = (
        "import sys; from recstore import cli\n"
        f"for command in {looking}: cli.command_line(command)\n"
        "heavy = {'numpy', 'scipy', 'pyarrow', 'adbc_driver_manager', 'implicit', 'sqlalchemy', 'alembic'}\n"
        "heavy |= {'matplotlib', 'jinja2', 'flask', 'optuna', 'celery', 'redis', 'opentelemetry'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(len(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found, modules = told.stdout.splitlines()
    assert found == "[]"
    assert int(modules) < 620


def test_the_version_needs_no_command() -> None:
    program = "import sys; from recstore import cli; cli.run(['--version']); print('psycopg' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split()[-1] == "False"
