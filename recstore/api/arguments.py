"""The parameters of the methods: how the command line shows them, and the check of values before anything begins.

A method's signature declares a command once: a parameter annotated with an `Argument` or an `Option` is one of the command line
and of docs/cli.md, too; any other exists in Python only.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, ValidationError, validate_call

from recstore.errors import InvalidInput
from recstore.wording import what_is_wrong


@dataclass(frozen=True)
class Option:
    """An option of a command."""

    help: str
    metavar: str | None = None
    """Placeholder of its value; by default the name, or the choices of a Literal."""
    _: KW_ONLY
    flags: str = ""
    """Names, where they are not just the parameter's: "--file -f"."""
    min: float | None = None
    max: float | None = None
    complete: str | None = None
    """Name of what Tab offers: recommenders, roles, tables, .."""
    read: Callable[[Any], Any] | None = None
    """Parser of the command line's text (a list of texts with `repeat`), where Python takes a value."""
    repeat: bool = False
    panel: str | None = None
    """Section of a definition, for one of its settings; the heading in --help."""


class Argument(Option):
    """A positional argument of a command."""


@dataclass(frozen=True)
class Sections:
    """Annotation of `**settings`: each setting of a definition is an option, except those of some sections."""

    without: tuple[str, ...] = ()


Name = Annotated[str, Argument("The recommender.", complete="recommenders")]
SomeName = Annotated[str | None, Argument("Only this recommender.", complete="recommenders")]
Role = Annotated[str, Argument("The role.", complete="roles")]
Yes = Annotated[bool, Option("Don't ask.", flags="--yes -y")]
Force = Annotated[bool, Option("Publish even what the gate or the source guard would refuse.")]
Device = Annotated[Literal["auto", "cpu", "gpu"] | None, Option("Processor that trains.")]
Threads = Annotated[int | None, Option("Number of threads; 0: all cores.", "N")]
Newest = Annotated[int, Option("Number of rows, the newest.", "N", flags="-n", min=1)]


def checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method with its arguments validated by their annotations.

    Numbers may come as text or from NumPy. Raises InvalidInput for what an annotation does not allow.
    """

    @functools.cache
    def validated() -> Callable[..., Any]:  # made on the first call, since it takes a millisecond or two
        return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(_without_result(method))

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        for value in (*arguments, *options.values()):
            if isinstance(value, str | Path) and not _writable(str(value)):
                raise InvalidInput(f"{method.__name__}(): {str(value)!a} is no text that can be written.")
        try:
            return validated()(*arguments, **options)
        except ValidationError as error:
            if error.title not in (method.__name__, method.__qualname__):
                raise
            first = error.errors()[0]
            place = first["loc"][0]
            name = list(inspect.signature(method).parameters)[place] if isinstance(place, int) else place
            value = ascii(first["input"])
            shortened = value if len(value) <= 80 else f"{value[:80]} .."
            raise InvalidInput(f"{method.__name__}(): {name} is {shortened}: {what_is_wrong(first)}.") from None

    return call


def _without_result(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy without the annotation of the result, whose class may not be imported yet."""
    assert isinstance(method, FunctionType)
    copy = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    copy.__kwdefaults__, copy.__qualname__ = method.__kwdefaults__, method.__qualname__
    copy.__annotations__ = {name: kind for name, kind in method.__annotations__.items() if name != "return"}
    return copy


def _writable(text: str) -> bool:
    """Return whether the database and the file system can store the text."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
