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
from pydantic.fields import FieldInfo

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
        asks: bool = False,
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
        replaces the call; with `asks` it has a --yes, too. `rehearsed` prints the result of --dry-run, whose help is `dry_run`.
        """
        method, rehearsal = getattr(self.part, name), getattr(self.rehearsal, name, None)
        options = _declared(method) | _declared(shown) | (_declared(call) if call else {})
        if rehearsal:
            options["dry_run"] = _option("dry_run", Annotated[bool, Option(dry_run)])
        if (ask or asks) and "yes" not in options:
            options["yes"] = _option("yes", Yes)

        def run(**typed: Any) -> None:
            values = _read(typed, options)
            if rehearsal and values["dry_run"]:
                assert self.rehearsal
                result = _call(getattr(self.rehearsal(settings()), name), values, reporter)
                if state.json:
                    show(result)
                rehearsed(result, **_wanted(rehearsed, values))
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
                show(data(result, **_wanted(data, values)) if data else result)
            shown(result, **_wanted(shown, values))

        made = [parameter for option in options.values() for parameter in _typed(option)]
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
    for name, parameter in parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return arguments


def _wanted(function: Function, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in inspect.signature(function).parameters if name in values}


def _note(parameter: Parameter) -> Any:
    return next(
        (n for n in getattr(parameter.annotation, "__metadata__", ()) if isinstance(n, Option | Sections)), None
    )


def _declared(function: Function) -> dict[str, Parameter]:
    return {p.name: p for p in inspect.signature(function).parameters.values() if _note(p)}


def _option(name: str, annotation: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _read(typed: dict[str, Any], options: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of the options; settings of a definition are one value, a dict by their flat names."""
    values: dict[str, Any] = {}
    for name, parameter in options.items():
        note = _note(parameter)
        if isinstance(note, Sections):
            flat = {flag(s, n).replace("-", "_"): typed[f"{s}__{n}"] for s, n, _ in _settings(note)}
            values[name] = {key: _unset(value) for key, value in flat.items() if value is not None}
        else:
            values[name] = note.read(typed[name]) if note.read and typed[name] else typed[name]
            choices = _choices(parameter)
            if choices and values[name] not in (None, *choices):
                raise InvalidInput(f"--{name} is {values[name]!r}: choose one of {', '.join(choices)}.")
    return values


def _unset(value: Any) -> Any:
    """Return None, a setting's default, for the word none."""
    return None if isinstance(value, str) and value.lower() == "none" else value


def _typed(parameter: Parameter) -> Iterator[Parameter]:
    """Yield the parameters from which typer makes the option, or one for each setting."""
    note = _note(parameter)
    if isinstance(note, Sections):
        for section, name, info in _settings(note):
            yield Parameter(
                f"{section}__{name}", Parameter.KEYWORD_ONLY, default=None, annotation=_setting(section, name, info)
            )
        return
    default, kind = parameter.default, _kind(get_args(parameter.annotation)[0], note)
    if isinstance(default, tuple):
        default = ",".join(map(str, default)) or None
    elif kind is str and default not in (None, Parameter.empty):
        default = str(default)
    choices = _choices(parameter)
    metavar = note.metavar or "|".join(choices) or None
    completer = getattr(completion, note.complete) if note.complete else None
    if choices:
        completer = completion.choosing(*choices)
    common: Any = {"help": note.help, "metavar": metavar, "min": note.min, "max": note.max, "autocompletion": completer}
    if isinstance(note, Argument):
        made = typer.Argument(**common)
    else:
        flags = note.flags or "--" + parameter.name.rstrip("_").replace("_", "-")
        made = typer.Option(
            *(f"{flags}/--no-{flags[2:]}" if kind is bool and default is not False else flags).split(), **common
        )
    kind = kind | None if default is None else kind
    yield Parameter(parameter.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made])


def _kind(annotation: Any, note: Option) -> Any:
    """Return the type that typer parses: the first of a union, or text for the option's `read` or for the method."""
    if note.repeat:
        return list[str]
    first = next(part for part in _parts(annotation) if part is not NoneType)
    return first if first in (bool, int, float, Path) and not note.read else str


def _choices(parameter: Parameter) -> list[str]:
    """Return the words of a Literal."""
    return next((list(get_args(p)) for p in _parts(get_args(parameter.annotation)[0]) if get_origin(p) is Literal), [])


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _settings(note: Sections) -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield section, name and field of each setting that is an option; a table of its own is in TOML files only."""
    for section, model in SECTIONS.items():
        for name, info in model.model_fields.items():
            if section not in note.without and get_origin(info.annotation) is not dict:
                yield section, name, info


def _setting(section: str, name: str, info: FieldInfo) -> Any:
    kind = _plain_type(info.annotation)
    text = f"--{flag(section, name)}"
    default = info.get_default()
    help = (info.description or "") + ("" if default is None else f" [default: {default}]")
    common: Any = {"help": help, "rich_help_panel": section.capitalize(), "show_default": False}
    if kind is bool:
        return Annotated[bool | None, typer.Option(f"{text}/--no-{flag(section, name)}", **common)]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    common["autocompletion"] = completion.choosing(*choices) if choices else completion.SETTINGS.get((section, name))
    metavar = "|".join(choices) if choices else {int: "N", float: "X"}.get(kind, "TEXT")
    return Annotated[str | None, typer.Option(text, metavar=metavar, **common)]


def _plain_type(annotation: Any) -> Any:
    """Return int for `int | None` and for `Annotated[int, ..]`."""
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    parts = [part for part in _parts(annotation) if part is not NoneType]
    return parts[0] if parts == [annotation] else _plain_type(parts[0])
