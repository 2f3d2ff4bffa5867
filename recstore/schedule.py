"""Check cron expressions and compute when they are due. Pure; the dispatcher keeps the time."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


def checked_cron(text: str) -> str:
    """Return the expression with single spaces: five fields, or six with seconds first, in the syntax of Debian's cron.

    Raises ValueError with a message for the user."""
    fields = " ".join(text.split()).upper()
    if len(fields.split()) not in (5, 6):
        raise ValueError(
            "a schedule has five fields: minute, hour, day of the month, month, weekday (optionally with seconds in front),"
            ' for example "0 3 * * *" for 3:00 every night'
        )
    try:
        next(CronSim(fields, datetime.now(UTC)))
    except CronSimError as error:
        raise ValueError(f"the schedule's {str(error).removeprefix('Bad ')} is not valid") from None
    except StopIteration:
        raise ValueError("the schedule has no date in the next 50 years") from None
    return fields


def checked_timezone(name: str) -> str:
    """Return the name of an existing time zone. Raises ValueError with a message for the user."""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("this time zone does not exist; write it as Area/City, for example Europe/Madrid") from None
    return name


def next_time(cron: str, timezone: str, after: datetime) -> datetime | None:
    """Return the first time after `after` (aware), or None if there is none within 50 years.

    Changes of the clock are handled like in Debian's cron: a skipped time is due at once, a repeated one only once."""
    return next(CronSim(cron, after.astimezone(ZoneInfo(timezone))), None)


def words(cron: str, timezone: str) -> str:
    """Describe the schedule in English: "Every 5 minutes", "At 03:00 every day"."""
    said = CronSim(cron, datetime.now(UTC)).explain()
    for pattern, unit, whole in ((r"\*/(\d+)( \*){4}", "minutes", 60), (r"0 \*/(\d+)( \*){3}", "hours", 24)):
        step = re.fullmatch(pattern, cron)
        if step and int(step[1]) > 1 and whole % int(step[1]) == 0:
            said = f"Every {step[1]} {unit}"
    return f"{re.sub('very second', 'very 2nd', said)} ({timezone})"


def next_in_zone(cron: str | None, timezone: str, after: datetime) -> datetime | None:
    """Return `next_time` in the schedule's zone; None without a schedule."""
    due = next_time(cron, timezone, after) if cron else None
    return due and due.astimezone(ZoneInfo(timezone))
