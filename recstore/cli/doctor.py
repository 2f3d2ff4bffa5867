"""`recstore doctor`: what stands in the way, before anything fails."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from recstore.api.arguments import Option
from recstore.api.watch import Watching
from recstore.cli.commands import Commands
from recstore.cli.context import state
from recstore.cli.screen import say, say_wrapped
from recstore.wording import counted

if TYPE_CHECKING:
    from recstore.doctor import Finding

EXIT_CODES = {"ok": 0, "note": 0, "warning": 6, "error": 1}
"""Exit codes by the worst finding; 3 where the database could not be reached."""

PLUGIN_CODES = {"ok": 0, "note": 0, "warning": 1, "error": 2}
"""Exit codes of a plugin of Nagios or Icinga: OK, WARNING, CRITICAL, the last also without a connection."""

MARKS = {"ok": ("✓", "green"), "note": ("•", "cyan"), "warning": ("!", "bold yellow"), "error": ("✗", "bold red")}
"""Marks before findings at a terminal; elsewhere the level in words."""

Found = tuple["list[Finding]", int]
"""Findings, the worst first, and the number of checks."""

Nagios = Annotated[bool, Option("Exit as a plugin of Nagios or Icinga: 0, 1 for a warning, 2 for an error.")]


def register(app: typer.Typer) -> None:
    Commands(app, Watching).add(
        "doctor",
        _print,
        call=_examine,
        data=_data,
        notes="""\
It prints the findings, the worst first: what each means, and the statement or setting that fixes it. It changes nothing. Run it
where the worker runs, as the worker's role; also before the first `recstore db upgrade`.

Exit code by the worst finding: 0 none, or notes; 6 a warning; 1 an error; 3 no connection to the database. With --nagios: 0, 1,
2, 2.""",
        example="recstore doctor retail",
    )


def _examine(part: Watching, name: str | None, reader: list[str] | None) -> Found:
    ran = set()

    def begins(check: str) -> None:
        ran.add(check)
        status.update(f"looking at {check}")

    with state.errors.status("") as status:
        return part.doctor(name, reader=reader or (), begins=begins), len(ran)


def _exit_code(findings: "list[Finding]", nagios: bool) -> int:
    worst = findings[0]
    if nagios:
        return PLUGIN_CODES[worst.level]
    return 3 if (worst.check, worst.level) == ("connection", "error") else EXIT_CODES[worst.level]


def _data(found: Found, nagios: bool) -> dict[str, object]:
    findings, _ = found
    return {"worst": findings[0].level, "exit_code": _exit_code(findings, nagios), "findings": findings}


def _print(
    found: Found,
    all: Annotated[bool, Option("Also show what is in order.", flags="--all -v")] = False,
    nagios: Nagios = False,
) -> None:
    """Print the findings, what is in order only with `all`, and how many there are: first where a plugin's first line counts."""
    findings, ran = found
    counts = {one: sum(finding.level == one for finding in findings) for one in ("error", "warning", "note")}
    summary = f"{ran} checks: {', '.join(counted(count, one) for one, count in counts.items())}"
    if nagios:
        say(summary)
    for finding in findings:
        if all or finding.level != "ok":
            _print_one(finding)
    if not nagios:
        say(summary)
    raise typer.Exit(_exit_code(findings, nagios))


def _print_one(finding: "Finding") -> None:
    (mark, style), plain = MARKS[finding.level], finding.level.upper() if finding.level == "error" else finding.level
    if not state.output.is_terminal:
        mark = f"{plain}:"
    elif not state.output.encoding.startswith("utf"):
        mark = plain
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_row(Text(mark, style), Text(finding.title))
    say(line if state.output.is_terminal else f"{mark} {finding.title}")
    if finding.means:
        say_wrapped(f"    {finding.means}")
    for remedy in finding.remedies:
        say(Text(f"      {remedy}", style="bold"))
