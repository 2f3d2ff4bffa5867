"""Write `sentences.txt`: each sentence of the code that users read, one a line. Run it by `make sentences`."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from recstore import cli, errors
from recstore.config import Settings

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_suffix(".txt")
SAYING = {
    "doctor": ("ok", "note", "warning", "error"),
    "print": ("say", "print"),
    "warning": ("warn",),
    "log": ("debug", "info", "warning", "error", "exception"),
}
"""Kind of sentence -> the functions whose arguments are such; `doctor`'s count in its own room, `log`'s as methods."""


def error_messages() -> Iterator[str]:
    for name, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, errors.RecstoreError) and error.__doc__:
            yield f"error {name}: {error.__doc__}"


def settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        yield f"setting RECSTORE_{name.upper()}: {field.description}"


def help_texts() -> Iterator[str]:
    def walk(name: str, command: Any) -> Iterator[str]:
        yield f"help {name}: {command.help}"
        for option in command.params:
            if text := getattr(option, "help", None):
                yield f"help {name} {max(option.opts, key=len)}: {text}"
        for part, found in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {part}", found)

    return walk("recstore", typer.main.get_command(cli.application()))


def text_of(node: ast.AST) -> str:
    """A string as the code writes it, with the source of each inserted expression; empty for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) for part in parts)
        case ast.FormattedValue(value=value):
            return f"{{{ast.unparse(value)}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=body, orelse=other):
            return f"{text_of(body)} | {text_of(other)}"
    return ""


def in_the_code() -> Iterator[str]:
    """The sentences of raised errors, findings, warnings, printed and logged lines."""
    for path in sorted([*ROOT.glob("recstore/**/*.py"), *ROOT.glob("worker/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                kind, call = f"raise {ast.unparse(node.exc.func)}", node.exc
            elif isinstance(node, ast.Call):
                name, method = getattr(node.func, "attr", getattr(node.func, "id", "")), hasattr(node.func, "attr")
                kinds = [kind for kind, names in SAYING.items() if name in names and (kind != "log" or method)]
                kinds = [kind for kind in kinds if kind != "doctor" or path.parent.name == "doctor"]
                if not kinds:
                    continue
                kind, call = kinds[0], node
            else:
                continue
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                if text_of(argument).count(" ") > 1:
                    yield f"{kind}: {text_of(argument)}"


def sentences() -> str:
    found = {" ".join(line.split()) for line in [*error_messages(), *settings(), *help_texts(), *in_the_code()]}
    return "\n".join(sorted(found)) + "\n"


if __name__ == "__main__":
    FILE.write_text(sentences())
