"""`recstore doctor`: what stands in the way, before anything fails."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from recstore.cli import completion
from recstore.cli.context import Json, say, settings, show, state

if TYPE_CHECKING:
    from recstore.doctor import Finding

EXIT_CODES = {"ok": 0, "note": 0, "warning": 6, "error": 1}
"""By the worst finding; 3 where the database could not be reached."""

MARKS = {"ok": ("✓", "green"), "note": ("•", "cyan"), "warning": ("!", "bold yellow"), "error": ("✗", "bold red")}
"""At a terminal, before what was found."""

PLAIN = {"ok": "ok", "note": "note", "warning": "warning", "error": "ERROR"}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    name: Annotated[
        str | None,
        typer.Argument(help="One recommender only.", show_default=False, autocompletion=completion.recommenders),
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(
            "--reader",
            metavar="ROLE",
            help="An application's role that calls recommend(); repeatable. Without it, the roles with grants on the schema.",
            show_default=False,
            autocompletion=completion.roles,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-v", help="Tell what is well, too.")] = False,
    json: Json = False,
) -> None:
    """Look for what stands in the way before anything fails: server, rights, source, index builds, sessions, leftovers, GPU.

    For each finding it prints what it means, and the statement or setting that mends it. It changes nothing. Run it where the
    worker runs, as the worker's role; also before the first `recstore db upgrade`.

    Exit code by the worst finding: 0 all is well, or notes; 6 a warning; 1 an error; 3 no connection to the database.
    Example: recstore doctor retail
    """
    from recstore.doctor import examine, worst

    ran = set()

    def begins(check: str) -> None:
        ran.add(check)
        status.update(f"looking at {check}")

    with state.errors.status("") as status:
        findings = examine(settings(), name, reader or (), begins)
    level = worst(findings)
    unreachable = any(finding.check == "connection" and finding.level == "error" for finding in findings)
    code = 3 if unreachable else EXIT_CODES[level]
    if json:
        show({"worst": level, "exit_code": code, "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        _tell(findings, everything)
        counts = {one: sum(finding.level == one for finding in findings) for one in ("error", "warning", "note")}
        told = (f"{count} {one}{'' if count == 1 else 's'}" for one, count in counts.items())
        say(f"{len(ran)} checks: {', '.join(told)}")
    raise typer.Exit(code)


def _tell(findings: "Sequence[Finding]", everything: bool) -> None:
    """Print the groups, the worst first. A group without problems is one line, unless `everything` is printed."""
    ranked = sorted(findings, key=lambda finding: list(EXIT_CODES).index(finding.level), reverse=True)
    for group in dict.fromkeys(finding.group for finding in ranked):
        members = [finding for finding in ranked if finding.group == group]
        well = sum(finding.level == "ok" for finding in members)
        state.output.print(Text(group, style="bold"))
        for finding in members:
            if everything or finding.level != "ok":
                _tell_one(finding)
        if well and not everything:
            _line("ok", f"{well} more looked at, all well" if well < len(members) else f"{well} looked at, all well")


def _tell_one(finding: "Finding") -> None:
    whose = f" of {finding.recommender}" if finding.recommender else ""
    whose += f" for {finding.reader}" if finding.reader else ""
    _line(finding.level, f"{finding.check}{whose}: {finding.found}")
    if finding.means:
        say(f"      {finding.means}")
    for remedy in finding.remedies:
        state.output.print(Text(f"        {remedy}", style="bold"))


def _line(level: str, words: str) -> None:
    mark, style = MARKS[level]
    if not state.output.is_terminal:
        say(f"  {PLAIN[level]}: {words}")
    elif state.output.encoding.startswith("utf"):
        state.output.print(Text.assemble("  ", (mark, style), " ", words))
    else:
        state.output.print(Text.assemble("  ", (PLAIN[level], style), " ", words))
