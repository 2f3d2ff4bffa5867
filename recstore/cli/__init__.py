"""The command line: one module per kind of command, each a thin call into the library."""

import io
import json
import sys
from functools import cache
from typing import Any

import typer
from pydantic import ValidationError
from rich.text import Text

from recstore.cli import (
    ask,
    benchmark,
    doctor,
    evaluate,
    exchange,
    health,
    history,
    init,
    jobs,
    lists,
    load,
    manage,
    request,
    schema,
    server,
    status,
    studies,
    tune,
    up,
)
from recstore.cli.context import app, state
from recstore.errors import InvalidInput, RecstoreError
from recstore.wording import what_is_wrong

__all__ = ["app", "run"]

INTERRUPTED = 130
"""Exit code of Ctrl-C and of SIGTERM."""

PANELS = {
    "Begin": (init, load, schema, doctor),
    "Recommenders": (manage, jobs),
    "How good it is": (evaluate, tune, studies, benchmark),
    "Answers": (ask, lists, exchange),
    "Background work": (up, request, status, history, health),
    "Servers of its own": (server,),
}
"""The commands as `recstore --help` shows them: a heading, and the modules whose commands stand under it."""

for panel, modules in PANELS.items():
    for module in modules:
        commands, groups = len(app.registered_commands), len(app.registered_groups)
        module.register(app)
        for command in app.registered_commands[commands:]:
            command.rich_help_panel = panel
        for group in app.registered_groups[groups:]:
            group.rich_help_panel = panel


def run(arguments: list[str]) -> int:
    """Runs one command line; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a title may have letters that this locale has not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    state.json = "--json" in arguments  # for mistakes in the command line itself
    try:
        _check_text(arguments)
        code = int(_command()(arguments, prog_name="recstore", standalone_mode=False) or 0)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code
    except RecstoreError as error:
        data = {key: value for key, value in vars(error).items() if key != "message" and key[0] != "_"}
        _complain(error.message, type(error).__name__, data=data)
        return error.exit_code
    except typer.Abort:
        _complain("Nothing was changed.", "Aborted", label="")
        return 1
    except typer.TyperException as error:
        if not error.format_message():  # no arguments: the help was shown
            return 0
        _complain(_words(error), "Usage", hint=_usage(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("Interrupted. What was live stays live; the next run cleans up.", "Interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except typer.Exit as error:
        return error.exit_code


@cache
def _command() -> Any:
    """All commands with their options, which take a twelfth of a second to make."""
    return typer.main.get_command(app)


def _check_text(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"The argument {argument!r} is not text in this locale. Use a UTF-8 locale, for instance LC_ALL=C.UTF-8."
            ) from None


def _words(error: typer.TyperException) -> str:
    """What typer says of the command line; of a value, which option has it and what it must be."""
    wrong, part = error.__cause__, getattr(error, "param", None)
    if not (isinstance(wrong, ValidationError) and part is not None):
        return error.format_message()
    first = wrong.errors()[0]
    names = " / ".join(part.opts) if part.param_type_name == "option" else part.name
    return f"{names} is {first['input']!r}: {what_is_wrong(first)}."


def _usage(error: typer.TyperException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"Try: {context.command_path} --help" if context is not None else None


def _complain(
    message: str, kind: str, hint: str | None = None, data: dict[str, Any] | None = None, label: str = "Error: "
) -> None:
    """On standard error, also with --json: there it is one line, the last one, and standard output stays empty or data."""
    if state.json:
        line = json.dumps({"error": message, "kind": kind, "data": data or {}}, default=str)
        state.errors.print(line, markup=False)
        return
    state.errors.print(Text.assemble((label, "bold red"), message))
    if hint:
        state.errors.print(hint, markup=False)
