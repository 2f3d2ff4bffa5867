"""A definition from the command line: one option per setting, made from `recstore.definition`."""

import inspect
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from recstore.api.options import SECTIONS, flag
from recstore.cli.completion import SETTINGS, choosing


def definition_options(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds an option per setting; the command gets those that were given as `given`: {section: {name: value}}."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        fields = {
            f"{section}__{name}": (section, name, info)
            for section, model in SECTIONS.items()
            if section not in without
            for name, info in model.model_fields.items()
            if get_origin(info.annotation) is not dict  # a table of its own, in TOML files only
        }

        def wrapper(**arguments: Any) -> Any:
            given: dict[str, dict[str, Any]] = {}
            for parameter, (section, name, info) in fields.items():
                value = arguments.pop(parameter)
                if value is not None:
                    none = isinstance(value, str) and value.lower() == "none"
                    given.setdefault(section, {})[name] = info.get_default() if none else value
            return command(**arguments, given=given)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]
        made = [
            inspect.Parameter(
                parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(section, name, info)
            )
            for parameter, (section, name, info) in fields.items()
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        wrapper.__signature__ = inspect.Signature(own + made)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in own + made}
        wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
        return wrapper

    return decorate


def _option(section: str, name: str, info: FieldInfo) -> Any:
    kind = _plain_type(info.annotation)
    text = f"--{flag(section, name)}"
    default = info.get_default()
    help = (info.description or "") + ("" if default is None else f" [default: {default}]")
    common: Any = {"help": help, "rich_help_panel": section.capitalize(), "show_default": False}
    if kind is bool:
        return Annotated[bool | None, typer.Option(f"{text}/--no-{flag(section, name)}", **common)]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    common["autocompletion"] = choosing(*choices) if choices else SETTINGS.get((section, name))
    metavar = "|".join(choices) if choices else {int: "N", float: "X"}.get(kind, "TEXT")
    return Annotated[str | None, typer.Option(text, metavar=metavar, **common)]


def _plain_type(annotation: Any) -> Any:
    """int of `int | None` and of `Annotated[int, ..]`."""
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _plain_type(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation
