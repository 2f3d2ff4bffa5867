"""A planned load as data for programs, and the refusal where too many of its lines are bad."""

from typing import Any

from recstore.errors import BadLinesFound
from recstore.files.load.examining import Plan

SHOWN_BAD = 10
"""Bad lines that are told with their reason."""


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan, ready for JSON."""
    return {
        "file": plan.file.name,
        "what": plan.reader.what,
        "table": str(plan.target),
        "mode": plan.target.mode,
        "rows": plan.rows,
        "columns": [
            {
                "name": column.match.name,
                "in_the_file": column.match.file_name,
                "type": column.type,
                "nulls": column.nulls,
                "examples": column.examples,
                "note": column.note,
            }
            for column in plan.columns
        ],
        "bad": len(plan.bad),
        "bad_allowed": plan.allowed,
        "bad_lines": plan.bad.lines(),
        "reasons": [{plan.reader.unit: line, "reason": reason} for line, reason in plan.bad.first(SHOWN_BAD)],
        "complete": not plan.stopped,
        "statements": plan.statements(),
    }


def refusal(plan: Plan) -> BadLinesFound:
    """Why a plan that is `refused` is not carried out."""
    given_up = (
        f"Nothing was written: of the first {plan.rows:,} {plan.reader.unit}s of {plan.file.name} more than {plan.bad.most:,} are"
        f" bad, so the rest was not looked at. It was taken as: {plan.reader.what}. Say what it is with --delimiter, --quote,"
        " --escape, --encoding and --no-header."
    )
    return BadLinesFound(
        given_up if plan.stopped else None,
        bad=len(plan.bad),
        rows=plan.rows,
        unit=plan.reader.unit,
        file=plan.file.name,
        allowed=plan.allowed,
    )
