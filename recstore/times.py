"""Lengths of time in words."""

from datetime import timedelta


def duration(length: timedelta | float) -> str:
    """In two units at most: 0.4 s, 12 s, 3 min 5 s, 2 h 13 min, 4 d 3 h."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def age(length: timedelta) -> str:
    """In one unit: 119 s, 119 min, 47 h, 2 d."""
    seconds = max(length.total_seconds(), 0)
    for unit, size, least in (("d", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
