"""Whether what a method is given is what it takes, by its annotations: so a mistake is a sentence before anything begins."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from recstore.errors import InvalidInput
from recstore.wording import what_is_wrong


def checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which then raises InvalidInput for what its annotations do not allow, and takes what pydantic makes of the
    rest: a number that is written as text, NumPy's numbers."""

    @functools.cache
    def validated() -> Callable[..., Any]:  # made when it is called, since it takes a millisecond or two
        return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(method)

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
            given = ascii(first["input"])
            shortened = given if len(given) <= 80 else f"{given[:80]} .."
            raise InvalidInput(f"{method.__name__}(): {name} is {shortened}: {what_is_wrong(first)}.") from None

    return call


def _writable(text: str) -> bool:
    """Whether the database and the file system can take it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
