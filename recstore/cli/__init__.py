"""The command line: one module per kind of command, each a thin call into the library."""

import io
import json
import sys

import typer
from rich.text import Text

from recstore.cli import (
    ask,
    benchmark,
    evaluate,
    health,
    history,
    jobs,
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

__all__ = ["app", "run"]

INTERRUPTED = 130
"""Exit code of Ctrl-C and of SIGTERM."""

for module in (
    schema,
    manage,
    jobs,
    evaluate,
    tune,
    studies,
    benchmark,
    request,
    status,
    history,
    ask,
    server,
    up,
    health,
):
    module.register(app)


def run(arguments: list[str]) -> int:
    """Runs one command line; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a title may have letters that this locale has not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        _check_text(arguments)
        code = int(app(arguments, prog_name="recstore", standalone_mode=False) or 0)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code
    except RecstoreError as error:
        _complain(error.message, type(error).__name__)
        return error.exit_code
    except typer.Abort:
        state.errors.print("Nothing was changed.")
        return 1
    except typer.TyperException as error:
        if not error.format_message():  # no arguments: the help was shown
            return 0
        _complain(error.format_message(), "Usage", hint=_usage(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("Interrupted. What was live stays live; the next run cleans up.", "Interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except typer.Exit as error:
        return error.exit_code


def _check_text(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"The argument {argument!r} is not text in this locale. Use a UTF-8 locale, for instance LC_ALL=C.UTF-8."
            ) from None


def _usage(error: typer.TyperException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"Try: {context.command_path} --help" if context is not None else None


def _complain(message: str, kind: str, hint: str | None = None) -> None:
    if state.json:
        state.errors.print(json.dumps({"error": message, "kind": kind}), markup=False)
        return
    state.errors.print(Text.assemble(("Error: ", "bold red"), message))
    if hint:
        state.errors.print(hint, markup=False)
