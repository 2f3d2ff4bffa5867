"""Cron expressions: what they say, and when they are due next. Pure; the dispatcher keeps the time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


def checked_cron(text: str) -> str:
    """The expression with single spaces. Five fields, or six with the seconds first; what Debian's cron understands.
    Raises ValueError with a sentence."""
    fields = " ".join(text.split()).upper()
    if len(fields.split()) not in (5, 6):
        raise ValueError(
            "a schedule has five fields: minute, hour, day of the month, month, weekday (and seconds before them, if"
            ' wanted), for instance "0 3 * * *" for three every night'
        )
    try:
        next(CronSim(fields, datetime.now(UTC)))
    except CronSimError as error:
        raise ValueError(f"the schedule's {str(error).removeprefix('Bad ')} can not be understood") from None
    except StopIteration:
        raise ValueError("the schedule names a day that does not come in the next 50 years") from None
    return fields


def checked_timezone(name: str) -> str:
    """The name of a time zone that there is. Raises ValueError with a sentence."""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("there is no such time zone; write it as Area/City, for instance Europe/Madrid") from None
    return name


def next_time(cron: str, timezone: str, after: datetime) -> datetime | None:
    """The first time later than `after` (aware); None if none comes in 50 years. At changes of the clock as Debian's cron:
    a time that is skipped comes at once, one that comes twice counts once."""
    return next(CronSim(cron, after.astimezone(ZoneInfo(timezone))), None)


def words(cron: str, timezone: str) -> str:
    """The schedule in English."""
    return f"{CronSim(cron, datetime.now(UTC)).explain()} ({timezone})"


def next_in_zone(cron: str | None, timezone: str, after: datetime) -> datetime | None:
    """Return `next_time` in the schedule's zone; None without a schedule."""
    due = next_time(cron, timezone, after) if cron else None
    return due and due.astimezone(ZoneInfo(timezone))
