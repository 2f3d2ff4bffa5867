"""An installation without the extras: the read side and the operators' commands work, the others name what to install."""

import subprocess
import sys

import pytest
from conftest import Database

WITHOUT = """if True:
    import sys
    import sqlalchemy as sa
    from recstore import Recommender, cli
    from recstore.errors import PartNotInstalled

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in " ".join(PartNotInstalled.EXTRAS.values()).split():
                raise ModuleNotFoundError(name, name=name)

    sys.meta_path.insert(0, Missing())
    """


def without_extras(code: str, database: Database, *arguments: str) -> str:
    command = [sys.executable, "-c", WITHOUT + code, database.url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_application_and_operators_need_no_extra(trained: Database) -> None:
    lines = [
        "db check",
        "doctor",
        "create other --table shop.views --user user_id --item product_id",
        "alter other --factors 8",
        "drop other --yes",
        "grant retail application",
        *(f"{command} retail" for command in ("show", "popular", "generations", "prune", "request retrain")),
        *("similar retail 5", "recommend retail 42", "list", "status", "requests", "runs", "logs 1", "--help"),
    ]
    codes = without_extras(
        "print({line: code for line in sys.argv[2:] if (code := cli.run(['--database', sys.argv[1], *line.split()]))})",
        trained,
        *lines,
    )
    assert "\n{}\n" in codes, codes
    engine = "sa.create_engine('postgresql+psycopg' + sys.argv[1].removeprefix('postgresql'))"
    assert without_extras(f"print(len(Recommender({engine}, 'retail').recommend(42, 5)))", trained) == "5\n"


@pytest.mark.parametrize(
    ("line", "extra"),
    [("retrain retail", "worker"), ("evaluate retail", "worker"), (f"load {__file__} --table shop.new", "worker")],
)
def test_a_command_names_the_extra_it_needs(line: str, extra: str, shop: Database) -> None:
    printed = without_extras("assert cli.run(['--database', sys.argv[1], *sys.argv[2:]]) == 1", shop, *line.split())
    assert f"pip install 'recstore[{extra}]'" in printed
