"""Jobs: functions that take a run, called with a database and a recommender's name."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from recstore.config import Settings
from recstore.runs.reporter import Reporter
from recstore.runs.run import Run

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """A job as callers see it; `arguments` and `options` are its own."""

    def __call__(
        self,
        url: str,
        settings: Settings,
        name: str,
        *arguments: Any,
        reporter: Reporter | None = None,
        requested: bool = False,
        time_limit: float | None = None,
        **options: Any,
    ) -> T_co: ...


def job(kind: type[Run] = Run, **fixed: Any) -> Callable[[Callable[Concatenate[Any, P], T]], Job[T]]:
    """Make a job of a function that takes a run: a call begins a run of the recommender and works in it.

    The job's name is the function's. `kind` is the class of its runs, `fixed` are options of it.
    """

    def decorate(function: Callable[Concatenate[Any, P], T]) -> Job[T]:
        work: Callable[..., T] = function

        @wraps(function)
        def begin(
            url: str,
            settings: Settings,
            name: str,
            *arguments: Any,
            reporter: Reporter | None = None,
            requested: bool = False,
            time_limit: float | None = None,
            **options: Any,
        ) -> T:
            limits: dict[str, Any] = {"requested": requested, "time_limit": time_limit}
            with kind(url, settings, name, function.__name__.rstrip("_"), reporter, **limits, **fixed) as run:
                return work(run, *arguments, **options)

        return begin

    return decorate
