"""Recommenders: create, list, show, alter, grant, drop."""

from typing import Any

import typer

from recstore import schedule
from recstore.api.manage import Managing
from recstore.api.rehearse import Rehearsal
from recstore.api.rows import Altered, Created, Described, Dropped, Listed
from recstore.api.watch import Watching
from recstore.cli.commands import Commands, statements
from recstore.cli.context import at_terminal
from recstore.cli.screen import picked, planned, say, say_wrapped, table, warn
from recstore.definition import Definition
from recstore.publication.calibration import plan_words
from recstore.publication.erasing import Forgotten
from recstore.registry import ROOM
from recstore.wording import counted, verdict_words


def register(app: typer.Typer) -> None:
    commands = Commands(app, Managing, Rehearsal)
    commands.add(
        "create",
        _created,
        example="recstore create retail --table shop.views --item product_id --value view_count",
    )
    commands.add("list", _listed, example="recstore list")
    commands.add("show", _shown, example="recstore show retail")
    commands.add("alter", _altered, example="recstore alter retail --min-users-per-item 3")
    commands.add(
        "grant",
        statements,
        notes="For recommend() the role needs SELECT on the source, too.",
        example="recstore grant retail webapp --people",
    )
    commands.add(
        "forget",
        _forgotten,
        ask=_erases,
        example="recstore forget retail --user 42 --yes",
    )
    commands.add(
        "drop",
        _dropped,
        call=_drop,
        data=lambda done: done[0],
        ask=_sure,
        example="recstore drop retail --yes",
    )


def _created(made: Created, part: Managing) -> None:
    for problem in made.warnings:
        warn(problem)
    vectors = f"{made.vector_type} of {made.dimensions} dimensions"
    say(f"created {made.name}: {made.user_type} users, {made.item_type} items, {vectors}")
    if made.definition["schedule"]["cron"]:
        say(f"retrained by the workers {_planned(made)}")
    _offer_seen_table(made, part)
    if made.definition["candidates"]["table"] or made.definition["candidates"]["query"]:
        say(part.candidates(made.name))
    if made.definition["exclusions"]["query"]:
        say(part.exclusions(made.name))
    say(f"next: recstore retrain {made.name}")


def _offer_seen_table(made: Created, part: Managing) -> None:
    lookup = made.lookup
    if lookup.problem:
        say(f"Reading it failed: {lookup.problem}. Fix the source before the first retrain.")
    if lookup.indexed or lookup.problem or made.definition["source"]["seen"] == "published":
        return
    index = part.lookup_index(made.name)
    say(
        f"Every recommend() looks up what the user has seen, and no index serves that: {lookup.milliseconds:.1f} ms here."
        f" {'Have the owner create this one, or let' if index else 'Let'} each generation publish a table of seen items."
    )
    if index:
        say(f"  {index}")
    if at_terminal() and typer.confirm("Publish that table?"):
        part.alter(made.name, seen="published")
    else:
        say(f"For that table: recstore alter {made.name} --seen published")


def _listed(rows: list[Listed]) -> None:
    shown = picked(
        rows, "recommender live_generation live_since users items ready_generation last_retrain_state schedule"
    )
    table(shown, "There is no recommender yet. Make one with: recstore create NAME --table ..")


def _shown(found: Described) -> None:
    name = found.name
    vectors = f"{found.vector_type} of {found.dimensions} dimensions"
    say_wrapped(f"{name}: {found.user_type} users, {found.item_type} items, {vectors}")
    for section, values in found.definition.items():
        set_ = {key: value for key, value in (values or {}).items() if value is not None}
        if section == "lists" and not (set_.keys() & {"recommend_into", "similar_into"}):
            continue
        if set_ and section != "schedule":
            say_wrapped(f"  {section}: " + ", ".join(f"{key} = {value}" for key, value in set_.items()))
    say_wrapped(f"  schedule: {_planned(found)}")
    if found.last_error:
        say_wrapped(f"  the last training failed: {found.last_error}")
    if found.live is None:
        say_wrapped(f"  nothing is live yet. Run: recstore retrain {name}")
        return
    live, read = found.live, found.live.snapshot or {}
    say_wrapped(
        f"  live: generation {live.generation} with {live.users:,} users, {live.items:,} items, {live.factors} factors"
    )
    if live.factors and (least := -(-live.factors // ROOM) * ROOM) < found.dimensions:
        share = 1 - least / found.dimensions
        say_wrapped(
            f"  storage: {live.factors} factors in {found.dimensions} dimensions, so {share:.0%} of each vector is padding."
            f" For smaller tables, from the next training on: recstore alter {name} --factors {live.factors} --resize"
        )
    if origin := read.get("imported"):
        say_wrapped(
            f"  imported: {origin['file']}, generation {origin['generation']} of {origin['recommender']!r}, exported"
            f" {origin['exported_at']}"
        )
    else:
        say_wrapped(
            f"  read: {read['rows']:,} rows at {read['taken_at']}, {read['nulls']} with NULL or NaN,"
            f" {read['nonpositive']} zero or negative, {read['duplicates']} duplicates"
        )
    if live.collapsed_items:
        say_wrapped(f"  collapsed: {live.collapsed_items} items have popularity but no vectors")
    if "refreshed" in read:
        users, items = counted(read["refreshed"]["users"], "user"), counted(read["refreshed"]["items"], "item")
        say_wrapped(f"  refreshed: {users} and {items} since the training")
    if live.erased:
        say_wrapped(f"  erased: {counted(live.erased, 'user')} since the training")
    if live.metrics:
        say_wrapped(f"  held out: {verdict_words(live.metrics)}")
    for kind, result in (live.calibration or {}).items():
        say_wrapped(f"  {kind}: {plan_words(result['chosen'])}")
    for row in found.waiting:
        how = "" if row.state == "withheld" else f". Make it live with: recstore publish {name}"
        say_wrapped(f"  {row.state}: generation {row.generation} {row.reason or ''}{how}")


def _planned(found: Described) -> str:
    """Return in words when it is retrained."""
    times = found.definition["schedule"]
    return planned(times["cron"], times["timezone"], found.next_retrain) if times["cron"] else "none"


def _lists_words(definition: dict[str, Any]) -> str:
    """Return where lists are written to, and when."""
    lists, timezone = definition["lists"], definition["schedule"]["timezone"]
    tables = [each for each in (lists["recommend_into"], lists["similar_into"]) if each]
    if not tables:
        return "no lists are written"
    when = schedule.words(lists["cron"], timezone) if lists["cron"] else "when asked to"
    return f"the workers write lists to {' and '.join(tables)} {when[0].lower()}{when[1:]}"


def _refresh_words(definition: dict[str, Any]) -> str:
    """Return how known users are answered, and when the live generation is refreshed."""
    cron, timezone = definition["refresh"]["cron"], definition["schedule"]["timezone"]
    when = schedule.words(cron, timezone) if cron else "when asked to"
    rows = "their current rows" if definition["refresh"]["fresh"] else "the live generation"
    return f"known users are answered from {rows}; the workers refresh the generation {when[0].lower()}{when[1:]}"


def _altered(found: Altered, part: Managing) -> None:
    name = found.name
    if not found.changed:
        say(f"{name} is as it was")
    if "schedule" in found.changed:
        scheduled = found.definition["schedule"]["cron"]
        say(f"altered {name}: " + (f"the workers retrain it {_planned(found)}" if scheduled else "it has no schedule"))
    if "candidates" in found.changed:
        say(f"altered {name}: {part.candidates(name)}")
    if "exclusions" in found.changed:
        say(f"altered {name}: {part.exclusions(name)}")
    if "lists" in found.changed:
        say(f"altered {name}: {_lists_words(found.definition)}")
    if "titles" in found.changed:
        titles = found.definition["titles"]
        say(f"altered {name}: lists show " + (f"the titles of {titles['table']}" if titles else "no titles"))
    if "fallback" in found.changed:
        steps = Definition.model_validate(found.definition).steps
        say(f"altered {name}: a user without recommendations gets, from now on, {', then '.join(steps)}")
    if "refresh" in found.changed:
        say(f"altered {name}: {_refresh_words(found.definition)}")
    if "source" in found.changed:
        say(f"altered {name}: seen items and users who came after the training follow the source from now on")
    if set(found.changed) - {"schedule", "candidates", "exclusions", "fallback", "refresh", "lists", "titles"}:
        say(f"altered {name}; the next training uses it: recstore retrain {name}")


def _erases(name: str, user: str) -> str:
    return f"Remove user {user} from every generation and every list of {name}? Only a training can undo that."


def _forgotten(done: Forgotten, name: str, user: str) -> None:
    for warning in done.warnings:
        warn(warning)
    say(f"removed {counted(done.rows, 'row')} of user {user} from {name}")


def _sure(part: Managing, name: str, cascade: bool) -> str | None:
    found = part.dependents(name)
    if found and not cascade:
        return None  # refused
    also = f", and with it {', '.join(found)}" if found else ""
    return f"Drop the recommender {name} with all its generations{also}?"


def _drop(part: Managing, name: str, cascade: bool) -> tuple[Dropped, list[int]]:
    asked = [row.request for row in Watching(part.settings).requests(name, n=1000, open=True)]
    return part.drop(name, cascade=cascade), sorted(asked)


def _dropped(done: tuple[Dropped, list[int]]) -> None:
    dropped, asked = done
    say(f"dropped {dropped.dropped}" + (f" and {', '.join(dropped.with_)}" if dropped.with_ else ""))
    if asked:
        say(f"what was asked of the workers for it has ended: request {', '.join(map(str, asked))}")
