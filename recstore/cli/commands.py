"""Commands made from the methods of `Recstore`, whose signatures declare arguments and options.

    parse -> ask for confirmation -> call the method, or its rehearsal -> print the result as JSON, or show it

A function that asks, calls or shows gets by name what its parameters want: the values of arguments and options, `part`, and the
values of options that it declares itself with an `Option`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from recstore.api.arguments import Argument, Option, Sections, Yes
from recstore.api.base import Part
from recstore.api.options import SECTIONS, flag
from recstore.api.progress import StageReporter
from recstore.api.rows import Statements
from recstore.cli import completion
from recstore.cli.context import Json, confirm, settings, state
from recstore.cli.screen import say, show
from recstore.errors import InvalidInput, PublicationOfEverything

Function = Callable[..., Any]

DRY_RUN = "Print the SQL that would be executed, and change nothing."


def statements(found: Statements) -> None:
    """Print SQL, the result of most rehearsals."""
    for statement in found.statements or ("-- nothing to do",):
        say(statement)


class Commands:
    """The commands of a part of `Recstore`; `rehearsal` has those methods of it that have a --dry-run."""

    def __init__(self, app: typer.Typer, part: type[Part], rehearsal: type[Part] | None = None) -> None:
        self.app, self.part, self.rehearsal = app, part, rehearsal

    def add(
        self,
        name: str,
        shown: Function,
        *,
        example: str,
        notes: str = "",
        ask: Function | None = None,
        call: Function | None = None,
        data: Function | None = None,
        reporter: Function = StageReporter,
        rehearsed: Function = statements,
        dry_run: str = DRY_RUN,
        epilog: str | None = None,
        negative_ids: bool = False,
    ) -> None:
        """Make the command of a method.

        `shown` prints the result for people, `data` returns what --json prints of it. `ask` returns a question, or None. `call`
        replaces the call. `rehearsed` prints the result of --dry-run, whose help is `dry_run`.
        """
        method, rehearsal = getattr(self.part, name), getattr(self.rehearsal, name, None)
        options = _declared(method) | _declared(shown) | (_declared(call) if call else {})
        if rehearsal:
            options["dry_run"] = _option("dry_run", Annotated[bool, Option(dry_run)])
        if ask and "yes" not in options:
            options["yes"] = _option("yes", Yes)

        def run(**typed: Any) -> None:
            values = _read(typed, options)
            if rehearsal and values["dry_run"]:
                assert self.rehearsal
                result = _call(getattr(self.rehearsal(settings()), name), values, reporter)
                if state.json:
                    show(result)
                _print(rehearsed, result, values)
                return
            part = values["part"] = self.part(settings())
            if ask and (question := ask(**_wanted(ask, values))):
                confirm(question, values["yes"])
            if call:
                values["arguments"] = _arguments(method, values)
                result = call(**_wanted(call, values))
            else:
                result = _agreed(getattr(part, name), values, reporter)
            if state.json:
                show(_print(data, result, values) if data else result)
            _print(shown, result, values)

        made = [_typed(option) for option in options.values()]
        made.append(Parameter("json", Parameter.KEYWORD_ONLY, default=False, annotation=Json))
        run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in made}
        first = inspect.cleandoc(method.__doc__ or "").split("\n\n")[0]
        run.__doc__ = f"{first}\n\n{notes}\nExample: {example}"
        ids: Any = {"ignore_unknown_options": True} if negative_ids else None
        self.app.command(name.rstrip("_").replace("_", "-"), epilog=epilog, context_settings=ids)(run)


def _agreed(method: Function, values: Mapping[str, Any], reporter: Function) -> Any:
    """Call a method; ask first where a publication FOR ALL TABLES would send its tables to subscribers without them."""
    try:
        return _call(method, values, reporter)
    except PublicationOfEverything as refused:
        confirm(f"{refused.message.partition(' Nothing was')[0]} Create the recommender all the same?", False)
        return _call(method, {**values, "yes": True}, reporter)


def _call(method: Function, values: Mapping[str, Any], reporter: Function) -> Any:
    """Call a method with its arguments, and a reporter on standard error."""
    parameters = inspect.signature(method).parameters
    arguments = _arguments(method, values)
    with ExitStack() as stack:
        if "reporter" in parameters:
            arguments["reporter"] = stack.enter_context(reporter(state.errors).showing())
            if "watch" in parameters:
                arguments["watch"] = arguments["reporter"]
        return method(**arguments)


def _arguments(method: Function, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that a method takes; what was not typed has the method's default."""
    parameters = inspect.signature(method).parameters
    arguments = {name: value for name, value in values.items() if name in parameters and value is not None}
    settings: dict[str, Any] = arguments.pop("settings", {})
    return arguments | settings


def _print(function: Function, result: Any, values: Mapping[str, Any]) -> Any:
    """Call a function with a result, its first parameter, and the values that the others want."""
    first = next(iter(inspect.signature(function).parameters))
    return function(result, **{name: value for name, value in _wanted(function, values).items() if name != first})


def _wanted(function: Function, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in inspect.signature(function).parameters if name in values}


def _note(parameter: Parameter) -> Any:
    return next(
        (n for n in getattr(parameter.annotation, "__metadata__", ()) if isinstance(n, Option | Sections)), None
    )


def _declared(function: Function) -> dict[str, Parameter]:
    """Return the parameters that are arguments and options; of `**settings`, one for each setting."""
    declared: dict[str, Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        note = _note(parameter)
        if isinstance(note, Sections):
            declared |= {setting.name: setting for setting in _settings(note)}
        elif note:
            declared[parameter.name] = parameter
    return declared


def _option(name: str, annotation: Any, default: Any = False) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _read(typed: dict[str, Any], options: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of the options; settings of a definition are one value, a dict by their flat names."""
    values: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, parameter in options.items():
        note, value = _note(parameter), typed[name]
        if note.panel:
            if value is not None:
                settings[note.flags[2:].replace("-", "_")] = _unset(value)
            continue
        values[name] = note.read(value) if note.read and value else value
        choices = _choices(get_args(parameter.annotation)[0])
        if choices and value not in (None, *choices):
            raise InvalidInput(f"--{name} is {value!r}: choose one of {', '.join(choices)}.")
    return values | {"settings": settings}


def _unset(value: Any) -> Any:
    """Return None, a setting's default, for the word none."""
    return None if isinstance(value, str) and value.lower() == "none" else value


def _typed(parameter: Parameter) -> Parameter:
    """Return the parameter from which typer makes the argument or the option."""
    note, default = _note(parameter), parameter.default
    kind = _kind(get_args(parameter.annotation)[0], note)
    if isinstance(default, tuple):
        default = ",".join(map(str, default)) or None
    elif kind is str and default not in (None, Parameter.empty):
        default = str(default)
    choices = _choices(get_args(parameter.annotation)[0])
    completer = getattr(completion, note.complete) if note.complete else None
    common: Any = {
        "help": note.help,
        "metavar": note.metavar or "|".join(choices) or None,
        "min": note.min,
        "max": note.max,
        "autocompletion": completion.choosing(*choices) if choices else completer,
        "rich_help_panel": note.panel,
    }
    if isinstance(note, Argument):
        made = typer.Argument(**common)
    else:
        flags = note.flags or "--" + parameter.name.rstrip("_").replace("_", "-")
        made = typer.Option(
            *(f"{flags}/--no-{flags[2:]}" if kind is bool and default is not False else flags).split(), **common
        )
    return _option(parameter.name, Annotated[kind | None if default is None else kind, made], default)


def _kind(annotation: Any, note: Option) -> Any:
    """Return the type that typer parses: the first of a union, or text for the option's `read` or for the method."""
    if note.repeat:
        return list[str]
    first = next(part for part in _parts(annotation) if part is not NoneType)
    return first if first in (bool, int, float, Path) and not note.read else str


def _choices(annotation: Any) -> list[str]:
    """Return the words of a Literal."""
    return next((list(get_args(part)) for part in _parts(annotation) if get_origin(part) is Literal), [])


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _settings(sections: Sections) -> Iterator[Parameter]:
    """Yield each setting of a definition as an option, read as text; a table of its own is in TOML files only."""
    for section, model in SECTIONS.items():
        for name, info in model.model_fields.items():
            kind, default = _plain_type(info.annotation), info.get_default()
            if section in sections.without or get_origin(kind) is dict:
                continue
            note = Option(
                (info.description or "") + ("" if default is None else f" [default: {default}]"),
                None if _choices(kind) else {bool: None, int: "N", float: "X"}.get(kind, "TEXT"),
                flags=f"--{flag(section, name)}",
                complete=completion.SETTINGS.get((section, name)),
                panel=section.capitalize(),
            )
            text = kind if kind is bool or _choices(kind) else str
            yield _option(f"{section}__{name}", Annotated[text, note], None)


def _plain_type(annotation: Any) -> Any:
    """Return int for `int | None` and for `Annotated[int, ..]`."""
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    parts = [part for part in _parts(annotation) if part is not NoneType]
    return parts[0] if parts == [annotation] else _plain_type(parts[0])
