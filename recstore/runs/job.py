"""Jobs: functions that take a run, called with a database and a recommender's name."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Concatenate, Generic, TypeVar

from recstore.config import Settings
from recstore.runs.reporter import Reporter
from recstore.runs.run import Run

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Job(Generic[T_co]):
    """A function of a run as callers see it: a call begins a run of the recommender and works in it."""

    def __init__(self, work: Callable[..., T_co], name: str, kind: type[Run], fixed: dict[str, Any]) -> None:
        update_wrapper(self, work)
        self.work, self.name, self.kind, self.fixed = work, name, kind, fixed

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
    ) -> T_co:
        limits: dict[str, Any] = {"requested": requested, "time_limit": time_limit}
        with self.kind(url, settings, name, self.name, reporter, **limits, **self.fixed) as run:
            return self.work(run, *arguments, **options)


def job(
    name: str | None = None, *, kind: type[Run] = Run, **fixed: Any
) -> Callable[[Callable[Concatenate[Any, ...], T]], Job[T]]:
    """Make a job of a function that takes a run.

    The job's name is by default the function's. `kind` is the class of its runs, `fixed` are options of it.
    """
    return lambda work: Job(work, name or work.__name__.rstrip("_"), kind, fixed)
