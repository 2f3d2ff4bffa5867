"""The command line, a client of `recstore.Recstore`: one module per group of commands, which shows results and asks."""

import importlib
import io
import json
import os
import sys
import tempfile
import traceback
from functools import cache
from importlib.metadata import version
from typing import Any

import typer
from pydantic import ValidationError
from rich.text import Text

from recstore.cli.context import new_application, state
from recstore.errors import InvalidInput, RecstoreError, installed_parts
from recstore.wording import what_is_wrong

INTERRUPTED = 130
"""Exit code of Ctrl-C and of SIGTERM."""

DEFECT = 70
"""Exit code of an error in recstore itself."""

PANELS = {
    "Begin": {"init": ["init"], "load": ["load"], "schema": ["db"], "doctor": ["doctor"]},
    "Recommenders": {
        "manage": ["create", "list", "show", "alter", "grant", "forget", "drop"],
        "apply": ["apply"],
        "jobs": ["retrain", "refresh", "reindex", "publish", "generations", "rollback", "release", "cancel", "prune"],
    },
    "How good it is": {"measure": ["evaluate", "benchmark"], "tune": ["tune", "studies"]},
    "Answers": {
        "ask": ["similar", "recommend", "explain", "popular", "compare"],
        "explore": ["explore"],
        "lists": ["recommend-all", "similar-all", "lists"],
        "exchange": ["export", "import"],
    },
    "Background work": {
        "up": ["worker", "up"],
        "request": ["request"],
        "status": ["status"],
        "history": ["requests", "runs", "logs", "health"],
    },
    "Servers of its own": {"server": ["start", "stop", "psql", "demo", "worker-demo"]},
}
"""The commands as `recstore --help` shows them: headings, and the modules under each with their commands. A command line imports
only its command's module."""


@cache
def application(*commands: str) -> typer.Typer:
    """Return the command line with the modules of these commands, by default with all."""
    app = new_application()
    for panel, modules in PANELS.items():
        for name, its_commands in modules.items():
            if commands and not set(commands) & set(its_commands):
                continue
            importlib.import_module(f"recstore.cli.{name}").register(app)
            found: list[Any] = [*app.registered_commands, *app.registered_groups]
            for registered in found:
                if not isinstance(registered.rich_help_panel, str):
                    registered.rich_help_panel = panel
    return app


def command_of(arguments: list[str]) -> str | None:
    """Return the command in a command line, or before the cursor when Tab is pressed; None where all commands are needed, and
    --version where none is."""
    if "_RECSTORE_COMPLETE" in os.environ:  # variables of typer's completion scripts
        typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
        words = typed.split()[1:] if typed[-1:].isspace() else typed.split()[1:-1]
    else:
        words = arguments
    following = iter(words)
    for word in following:
        if word == "--database":
            next(following, None)
        elif word == "--version":
            return word
        elif not word.startswith("-"):
            known = {command for modules in PANELS.values() for commands in modules.values() for command in commands}
            return word if word in known else None
    return None


@cache
def command_line(command: str | None) -> Any:
    """Return the command line to run, with one command or all, and import its modules."""
    return typer.main.get_command(application(command) if command else application())


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a title may have letters that are missing in this locale
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    state.json = "--json" in arguments  # for mistakes in the command line itself
    try:
        _check_text(arguments)
        with installed_parts():
            code = int(command_line(command_of(arguments))(arguments, prog_name="recstore", standalone_mode=False) or 0)
        if code == INTERRUPTED:  # typer's result of Ctrl-C
            raise KeyboardInterrupt
        return code
    except RecstoreError as error:
        data = {key: value for key, value in vars(error).items() if key != "message" and key[0] != "_"}
        _complain(error.message, type(error).__name__, data=data)
        return error.exit_code
    except typer.TyperException as error:
        if not error.format_message():  # no arguments: the help was shown
            return 0
        context = getattr(error, "ctx", None)
        _complain(_words(error), "Usage", hint=f"Try: {context.command_path} --help" if context else "")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort) as stopped:
        if isinstance(stopped, typer.Abort) and not isinstance(stopped.__context__, KeyboardInterrupt | EOFError):
            _complain("Nothing was changed.", "Aborted", label="")  # a question was answered with no
            return 1
        _complain("Interrupted. What was live stays live; the next run cleans up.", "Interrupted")
        return INTERRUPTED
    except MemoryError:
        _complain("There is not enough memory for this. What was live stays live.", "MemoryError")
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest of the output is dropped
        _complain(f"The output cannot be written: {error.strerror}. The command itself is done.", "NotWritten")
        return 1
    except typer.Exit as error:
        return error.exit_code


def report_defect(error: Exception) -> int:
    """Report an unknown error, with its traceback in a file, and return the exit code."""
    with tempfile.NamedTemporaryFile("w", prefix="recstore-", suffix=".txt", delete=False) as report:
        report.write(f"recstore {version('recstore')}, Python {sys.version}\n")
        report.writelines(traceback.format_exception(error))
    _complain(
        f"recstore has a defect: {type(error).__name__}: {error}. What was live stays live. To have it fixed, report it with"
        f" the content of {report.name}.",
        "Defect",
        data={"report": report.name},
    )
    return DEFECT


def _check_text(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"The argument {argument!r} is not text in this locale. Use a UTF-8 locale, for instance LC_ALL=C.UTF-8."
            ) from None


def _words(error: typer.TyperException) -> str:
    """Return typer's message; for a value, the option and what it must be."""
    wrong, part = error.__cause__, getattr(error, "param", None)
    if not (isinstance(wrong, ValidationError) and part is not None):
        return error.format_message()
    first = wrong.errors()[0]
    names = " / ".join(part.opts) if part.param_type_name == "option" else part.name
    return f"{names} is {first['input']!r}: {what_is_wrong(first)}."


def _complain(
    message: str, kind: str, hint: str = "", data: dict[str, Any] | None = None, label: str = "Error: "
) -> None:
    """Print an error on standard error; with --json as one line, the last one."""
    if state.json:
        line = json.dumps({"error": message, "kind": kind, "data": data or {}}, default=str)
        state.errors.print(line)
        return
    state.errors.print(Text.assemble((label, "bold red"), message))
    if hint:
        state.errors.print(hint)
