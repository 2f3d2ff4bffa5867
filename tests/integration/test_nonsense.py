"""Random nonsense for every option and argument of every command: a sentence and an exit code, never a traceback, and what is
live stays as it is. Commands are found by walking the application, so that a new one has to be given a cheap line here."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer
from support_mistakes import EXIT_CODES, NOISE, Shop, commands, trained_shop

from recstore.wording import printable

NONSENSE = [
    "", " ", "-", "--", "---x", "x" * 6000, "ß日本🙈", "\u202e", "\udcff", "\x1b[31m", "\x7f", "a\nb", "a\tb", "'", '"',
    "\\", "`id`", "'; DROP SCHEMA retail CASCADE; --", "$1", "%s", "%(x)s", "{name}", "[bold]", "[/]", "*", "?", "@",
    "#", "=", ":", ",", ";", "-1", "0", "1", "1.5", "1e309", "-1e309", "nan", "inf", "-inf", "9" * 30, "-" + "9" * 30,
    "0x10", "1_000", "٣", "²", "1%", "101%", "none", "None", "null", "true", "auto", "/", ".", "..", "/nonexistent/x",
    "/dev/null/x", "~", "file:///x", "http://x", "a=b", "a:b:c", "a.b", "a.b.c", "a b", '"a"."b"', "1,2", "1,,2",
    ",1", "2001-01-01", "0 3 * * *", "SELECT 1", "SELECT", "{}", "[]",
]  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A command line that works or is refused at once, whatever one of its parts is replaced by."""

    arguments: tuple[str, ...] = ()
    options: dict[str, str | None] = field(default_factory=dict)

    def words(self) -> list[str]:
        return [*self.arguments, *(word for pair in self.options.items() for word in pair if word is not None)]


DRY: dict[str, str | None] = {"--dry-run": None}
VIEWS: dict[str, str | None] = {"--table": "shop.views", "--item": "product_id"}
NOBODY = Line(("nobody",))
FAILS_AT_PARSING = Line(options={"--no-such-option": None})
"""For commands that would start servers or serve until they are stopped."""

CHEAP = {
    "init": Line(("out.toml",), VIEWS | {"--user": "user_id", "--value": "view_count"}),
    "create": Line(("fresh",), VIEWS | DRY),
    "alter": Line(("retail",), DRY),
    "apply": Line(("recommenders.toml",), DRY),
    "grant": Line(("retail", "application"), DRY),
    "forget": Line(("retail",), {"--user": "1"} | DRY),
    "drop": Line(("retail",), DRY),
    "list": Line(),
    "show": Line(("retail",)),
    "load": Line(("pairs.csv",), {"--table": "shop.fresh"} | DRY),
    "retrain": NOBODY,
    "refresh": NOBODY,
    "reindex": NOBODY,
    "publish": Line(("retail",), DRY),
    "generations": Line(("retail",)),
    "rollback": Line(("retail",), DRY),
    "prune": Line(("retail",), DRY),
    "evaluate": Line(("retail",), {"--split": "time"}),  # which shop.views has not
    "tune": NOBODY,
    "studies": Line(("retail",)),
    "benchmark": Line((), {"--train": "nothing.csv", "--test": "nothing.csv"}),
    "recommend-all": Line(("retail",), {"--into": "lists.csv"} | DRY),
    "similar-all": Line(("retail",), {"--into": "lists.csv"} | DRY),
    "lists": NOBODY,
    "status": Line(),
    "requests": Line(),
    "runs": Line(),
    "logs": Line(),
    "export": Line(("retail", "out.npz"), {"--no-users": None, "--yes": None}),
    "import": Line(("retail", "pairs.csv"), DRY),
    "similar": Line(("retail", "1")),
    "recommend": Line(("retail", "1")),
    "explain": Line(("retail", "1", "1")),
    "popular": Line(("retail",)),
    "compare": Line(("retail", "1", "1")),
    "health": Line(),
    "cancel": Line(("999999",)),
    "release": NOBODY,
    "doctor": Line(("nobody",)),
    "db upgrade": Line((), DRY),
    "db downgrade": Line(("nix",), DRY),
    "db current": Line(),
    "db check": Line(),
    "db grant": Line(("application",), DRY),
    "db revoke": Line(("application",), DRY),
    "request retrain": NOBODY,
    "request refresh": NOBODY,
    "request reindex": NOBODY,
    "request lists": NOBODY,
    "request cancel": Line(("999",)),
    "start": FAILS_AT_PARSING,
    "stop": FAILS_AT_PARSING,
    "up": FAILS_AT_PARSING,
    "explore": FAILS_AT_PARSING,
    "worker": FAILS_AT_PARSING,
    "demo": FAILS_AT_PARSING,
    "worker-demo": FAILS_AT_PARSING,
}

EXEMPT = {"psql": "it becomes another program, whose arguments they are"}


COMMANDS = dict(commands())


def mistakes(name: str, chance: random.Random, each: int) -> Iterator[list[str]]:
    """Lines of a command with nonsense in the place of one part, `each` for every part."""
    line = CHEAP[name]
    arguments = [part for part in COMMANDS[name].params if part.param_type_name == "argument"]
    for part in COMMANDS[name].params:
        for nonsense in chance.sample(NONSENSE, each):
            if part.param_type_name == "argument":
                at = arguments.index(part)
                given = [*line.arguments[:at], nonsense, *line.arguments[at + 1 :]]
                yield replace(line, arguments=tuple(given)).words()
                continue
            flag = chance.choice(part.opts + part.secondary_opts)
            rest = {option: value for option, value in line.options.items() if option not in part.opts}
            words = replace(line, options=rest).words()
            if part.is_flag:  # never without it: --watch, --follow and --wait would go on
                yield [*words, f"{flag}={nonsense}"]
                continue
            how = chance.randrange(6)
            if how == 0:
                yield [*words, flag]
            elif how == 1:
                yield [*words, flag, nonsense, flag, chance.choice(NONSENSE)]
            elif how == 2 and flag.startswith("--"):
                yield [*words, f"{flag}={nonsense}"]
            else:
                yield [*words, flag, nonsense]
    yield [*line.words(), f"--{chance.choice('abcdefgh')}nix", chance.choice(NONSENSE)]
    yield [*line.words(), chance.choice(NONSENSE), chance.choice(NONSENSE)]


@pytest.fixture(scope="module")
def shop_of_nonsense(server: Any, shop_template: str) -> Iterator[Shop]:
    with trained_shop(server, shop_template) as shop:
        yield shop


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where relative names lie, and no other server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSTORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECSTORE_BROKER_URL", f"redis+socket://{tmp_path}/nothing")
    monkeypatch.delenv("RECSTORE_DATABASE_URL", raising=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"user_id,item_id\n1,2\n")))
    (tmp_path / "pairs.csv").write_text("user_id,item_id\n1,2\n")
    (tmp_path / "recommenders.toml").write_text('[fresh.source]\ntable = "shop.views"\nitem = "product_id"\n')


def check(words: list[str], answer: Answer) -> None:
    """What holds after any nonsense: a documented exit code and, but where it made sense, one sentence."""
    told = f"{words!r}\ncode {answer.code}\n{answer.out[:500]}\n{answer.err[:2000]}"
    assert answer.code in EXIT_CODES - {4, 5, 130}, told
    assert "Traceback" not in answer.out + answer.err, told
    assert answer.out + answer.err == printable(answer.out + answer.err), told
    errors = [line for line in answer.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == (answer.code not in (0, 6)), told
    for line in errors:
        assert not NOISE.search(line), told
        after = answer.err.partition(line)[2].splitlines()[1:]
        assert all(hint.startswith("Try: recstore") for hint in after), told


def test_every_command_is_tried() -> None:
    assert COMMANDS.keys() == CHEAP.keys() | EXEMPT.keys()


@pytest.mark.parametrize("each", [1, pytest.param(25, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("name", CHEAP)
def test_nonsense(name: str, each: int, shop_of_nonsense: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    for words in mistakes(name, random.Random(f"{name} {each}"), each):
        words = [*name.split(), *words]
        try:
            check(words, shop_of_nonsense.run(capsys, *words))
        except Exception as error:
            raise AssertionError(f"recstore {words!r}"[:2000]) from error
    shop_of_nonsense.assert_unharmed()


@pytest.mark.parametrize("each", [12, pytest.param(len(NONSENSE), marks=pytest.mark.campaign)])
def test_nonsense_before_the_command(each: int, shop_of_nonsense: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    for nonsense in random.Random(each).sample(NONSENSE, each):
        for words in (["--database", nonsense, "list"], [nonsense], ["db", nonsense], ["list", nonsense]):
            check(words, shop_of_nonsense.run(capsys, *words, url=shop_of_nonsense.database.url * (len(words) < 3)))
    shop_of_nonsense.assert_unharmed()
