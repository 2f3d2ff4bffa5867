"""Tab in a shell: what is offered, by the protocol of typer's completion scripts; silent where nothing can be offered."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from conftest import Database
from support import Generations
from typer._completion_shared import get_completion_script

from recstore import cli
from recstore.cli import completion

Offer = Callable[..., list[str]]


@pytest.fixture
def offered(shop: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Offer:
    """What zsh is offered at the end of a command line."""

    def ask(line: str, url: str | None = None) -> list[str]:
        monkeypatch.setenv("RECSTORE_DATABASE_URL", url or shop.url)
        monkeypatch.setenv("_RECSTORE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"recstore {line}")
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" "))))
        with pytest.raises(SystemExit) as ended:
            cli.run([])
        printed = capsys.readouterr()
        assert (ended.value.code, printed.err) == (0, "")
        return printed.out.split()

    return ask


def test_what_there_is_is_offered(shop: Database, offered: Offer) -> None:
    shop.create()
    made = Generations(shop)
    made.publish()
    made.publish()
    assert offered("show ") == ["retail"]
    assert offered("similar re") == ["retail"]
    assert offered("runs ") == ["retail"]
    assert offered("status x") == []
    assert offered("rollback retail --to ") == ["1"]
    assert offered("logs ") == ["retail", "2", "1"]
    assert offered("grant retail a") == ["application"]
    assert offered("doctor --reader a") == ["application"]
    assert offered("doctor ") == ["retail"]
    assert offered("create books --table shop.") == ["shop.products", "shop.views"]
    assert offered("create books --table shop.views --user ") == ["user_id", "product_id", "view_count"]
    assert offered("alter retail --trainer s") == ["spectral"]
    assert offered("alter retail --seen ") == ["live", "published"]
    assert offered("retrain retail --device g") == ["gpu"]
    assert offered("db up") == ["upgrade"]
    assert "--dry-run" in offered("drop retail --")


def test_without_a_database_nothing_is_offered_and_nothing_said(offered: Offer) -> None:
    for url in ("postgresql://nobody@127.0.0.1:1/x", "mysql://x", "what is this?"):
        assert offered("show ", url) == []
        assert offered("grant retail ", url) == []
        assert "retrain" in offered("re", url)


def test_a_server_that_does_not_answer_is_not_waited_for(offered: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a URL of several hosts, each of which may take its time."""
    answers = threading.Event()
    monkeypatch.setattr(completion, "SECONDS", 0.1)
    monkeypatch.setattr(completion, "_ask", lambda *_, **__: [("late", "")] * answers.wait(30))
    try:
        assert offered("show ") == []
        assert offered("logs ") == []
    finally:
        answers.set()


def test_each_shell_gets_its_script() -> None:
    environment = {"PATH": "/usr/bin:/bin", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "recstore", "--show-completion", "bash"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    for shell in ("bash", "zsh", "fish"):
        script = get_completion_script(prog_name="recstore", complete_var="_RECSTORE_COMPLETE", shell=shell)
        assert f"_RECSTORE_COMPLETE=complete_{shell}" in script
        if program := shutil.which(shell):
            subprocess.run([program, "-n"], input=script, text=True, check=True)
        assert (script.strip() == printed.strip()) is (shell == "bash")
