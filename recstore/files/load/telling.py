"""A planned load as data for programs, and the error if too many of its lines are bad."""

from typing import Any

from recstore.errors import BadLinesFound
from recstore.files.load.examining import Plan

SHOWN_BAD = 10
"""Bad lines that are printed with their reason."""


def as_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan, ready for JSON."""
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
    """Return the error of a plan that is `refused`."""
    unit, bad = plan.reader.unit, plan.bad
    given_up = (
        f"Nothing was written: of the first {plan.rows:,} {unit}s of {plan.file.name} more than {bad.most:,} are bad, so the"
        f" rest was not read. It was read as: {plan.reader.what}. Describe it with --delimiter, --quote, --escape, --encoding and"
        " --no-header."
    )
    data: dict[str, Any] = {
        "bad": len(bad),
        "rows": plan.rows,
        "unit": unit,
        "file": plan.file.name,
        "allowed": plan.allowed,
    }
    message = given_up if plan.stopped else BadLinesFound(**data).message
    if any("-8 text" in reason for reason in bad.reasons.values()):
        message += " Some are not UTF-8: name the file's encoding, for instance --encoding latin-1."
    return BadLinesFound(message, **data)
