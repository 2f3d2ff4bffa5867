"""Recommenders: create, list, show, alter, grant, drop."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from recstore import registry, schedule
from recstore.api.options import laid_over, merge, read_toml
from recstore.api.progress import StageReporter
from recstore.background import watching
from recstore.cli import completion
from recstore.cli.context import (
    DryRun,
    Json,
    Name,
    Yes,
    at_terminal,
    confirm,
    current,
    say,
    show,
    show_rows,
    show_statements,
    state,
)
from recstore.cli.definitions import definition_options
from recstore.cli.screen import planned
from recstore.config import Settings
from recstore.definition import Definition
from recstore.operations import dry_run, jobs, recommenders
from recstore.postgres.connection import Connection
from recstore.publication.calibration import plan_words
from recstore.source import inspection
from recstore.source.plans import index_statement
from recstore.sql import objects
from recstore.wording import verdict_words

File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="A TOML file with the sections source, filters, ..", show_default=False),
]
TitlesOption = Annotated[
    str | None,
    typer.Option("--titles", help="Lookup table of titles, for lists at the command line.", metavar="TABLE:ID:TITLE"),
]


def register(app: typer.Typer) -> None:
    app.command("create")(definition_options()(create))
    app.command("list")(list_)
    app.command("show")(show_one)
    app.command("alter")(definition_options(without=("storage",))(alter))
    app.command("grant")(grant)
    app.command("drop")(drop)


def create(
    name: Annotated[str, typer.Argument(help="Its name, and that of its schema.", show_default=False)],
    file: File = None,
    titles: TitlesOption = None,
    dry: DryRun = False,
    yes: Yes = False,
    json: Json = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Create a recommender over a table or a query of view counts. Nothing is read or trained yet.

    Example: recstore create retail --table shop.views --item product_id --value view_count
    """
    base = read_toml(file, name) if file else {}
    definition = merge(base, given, titles)
    with current() as (opened, _, settings):
        if dry:
            recommenders.check_lists(opened, name, definition)
            show_statements(dry_run.create(opened, settings, name, definition))
            return
        warn_of_publications(opened, yes)
        recommender = recommenders.create(opened, settings, name, definition)
        lookup = inspection.check_lookup(opened, name)
        if json:
            show(recommenders.described(opened, recommender) | {"lookup": dataclasses.asdict(lookup)})
            return
        say(
            f"created {name}: {recommender.user_type.value} users, {recommender.item_type.value} items,"
            f" {recommender.vector_type} of {recommender.dimensions} dimensions"
        )
        if definition.schedule.cron:
            say(f"retrained by the workers {_planned(opened, name)}")
        _offer_seen_table(opened, settings, recommender, lookup)
        if definition.candidates.given:
            say(recommenders.candidates_words(opened, recommender))
        say(f"next: recstore retrain {name}")


def _offer_seen_table(
    opened: Connection, settings: Settings, recommender: objects.Registered, lookup: inspection.Lookup
) -> None:
    if lookup.problem:
        say(f"Reading it failed: {lookup.problem}. Mend the source before the first retrain.")
    if lookup.indexed or lookup.problem or recommender.definition.source.seen == "published":
        return
    index = index_statement(opened, recommender.name, "interactions", "user_id")
    say(
        f"Every recommend() looks up what the user has seen, and that reaches no index: {lookup.milliseconds:.1f} ms here."
        f" {'Have the owner make this one, or let' if index else 'Let'} each generation publish a table of seen items."
    )
    if index:
        say(f"  {index}")
    command = f"recstore alter {recommender.name} --seen published"
    if at_terminal() and typer.confirm("Publish that table?"):
        source = recommender.definition.source.model_copy(update={"seen": "published"})
        registry.alter(opened, settings, recommender, recommender.definition.model_copy(update={"source": source}))
    else:
        say(f"For that table: {command}")


def warn_of_publications(opened: Connection, yes: bool) -> None:
    """A publication FOR ALL TABLES carries every new generation to its subscribers, and stops where they lack it."""
    if names := ", ".join(recommenders.publications_of_everything(opened)):
        confirm(
            f"The publication {names} is FOR ALL TABLES: {recommenders.SUBSCRIBERS_LACK_THEM}."
            " Create the recommender all the same?",
            yes,
        )


def list_(json: Json = False) -> None:
    """List the recommenders, what is live and how the last run went.

    Example: recstore list
    """
    with current() as (opened, _, _settings):
        columns = [
            "recommender",
            "live_generation",
            "live_since",
            "users",
            "items",
            "ready_generation",
            "last_retrain_state",
            "schedule",
        ]
        show_rows(
            registry.overview(opened),
            columns,
            "There is no recommender yet. Make one with: recstore create NAME --table ..",
        )


def show_one(name: Name, json: Json = False) -> None:
    """Show a recommender: its configuration, what is live, how it was calibrated.

    Example: recstore show retail
    """
    with current() as (opened, _, _settings):
        described = recommenders.described(opened, registry.get(opened, name))
        schedule = _planned(opened, name)
    if json:
        show(described)
        return
    vectors = f"{described['vector_type']} of {described['dimensions']} dimensions"
    say(f"{name}: {described['user_type']} users, {described['item_type']} items, {vectors}")
    for section, values in described["definition"].items():
        told = {key: value for key, value in (values or {}).items() if value is not None}
        if section == "lists" and not (told.keys() & {"recommend_into", "similar_into"}):
            continue
        if told and section != "schedule":
            say(f"  {section}: " + ", ".join(f"{key} = {value}" for key, value in told.items()))
    say(f"  schedule: {schedule}")
    if described["last_error"]:
        say(f"  the last training failed: {described['last_error']}")
    live = described["live"]
    if live is None:
        say(f"  nothing is live yet. Run: recstore retrain {name}")
        return
    size = f"{live['users']:,} users, {live['items']:,} items, {live['factors']} factors"
    say(f"  live: generation {live['generation']} with {size}")
    read = live["snapshot"]
    if origin := read.get("imported"):
        say(
            f"  imported: {origin['file']}, generation {origin['generation']} of {origin['recommender']!r}, exported"
            f" {origin['exported_at']}"
        )
    else:
        say(
            f"  read: {read['rows']:,} rows at {read['taken_at']}, {read['nulls']} with NULL or NaN,"
            f" {read['nonpositive']} zero or negative, {read['duplicates']} duplicates"
        )
    if live["collapsed_items"]:
        say(f"  collapsed: {live['collapsed_items']} items have popularity but no vectors")
    if live["metrics"]:
        say(f"  held out: {verdict_words(live['metrics'])}")
    for kind, result in (live["calibration"] or {}).items():
        say(f"  {kind}: {plan_words(result['chosen'])}")
    for row in described["waiting"]:
        say(
            f"  ready: generation {row['generation']} {row['reason'] or ''}. Make it live with: recstore publish {name}"
        )


def _planned(opened: Connection, name: str) -> str:
    """When it is retrained, in words."""
    row = registry.overview_of(opened, name)
    return planned(row) if row["schedule"] else "none"


def _lists_words(definition: Definition) -> str:
    """Where lists are written to, and when."""
    lists = definition.lists
    tables = [table for table in (lists.recommend_into, lists.similar_into) if table]
    if not tables:
        return "no lists are written"
    when = schedule.words(lists.cron, definition.schedule.timezone) if lists.cron else "when asked to"
    return f"the workers write lists to {' and '.join(tables)} {when[0].lower()}{when[1:]}"


def alter(
    name: Name,
    file: File = None,
    titles: TitlesOption = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Make room for more factors than the dimensions fixed at creation.")
    ] = False,
    dry: DryRun = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Also candidates that roles with access may not read, who then get errors."),
    ] = False,
    json: Json = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Change a recommender's settings, from the next training on; candidates at once. Write none to unset one.

    Example: recstore alter retail --min-users-per-item 3
    """
    with current() as (opened, url, settings):
        recommender = registry.get(opened, name)
        base = laid_over(recommender.definition.model_dump(mode="json"), read_toml(file, name) if file else {})
        definition = merge(base, given, titles)
        if dry:
            recommenders.check_lists(opened, name, definition, recommender)
            recommenders.needs_resize(opened, recommender, definition, resize)
            show_statements(dry_run.alter(opened, settings, recommender, definition, readers_may_fail=yes))
            return
        with StageReporter(state.errors).showing() as reporter:
            altered = recommenders.alter(
                opened, url, settings, recommender, definition, resize=resize, readers_may_fail=yes, reporter=reporter
            )
        if json:
            show(recommenders.described(opened, altered))
        elif definition == recommender.definition:
            say(f"{name} is as it was")
            return
        if definition.schedule != recommender.definition.schedule:
            by = (
                f"the workers retrain it {_planned(opened, name)}" if definition.schedule.cron else "it has no schedule"
            )
            say(f"altered {name}: {by}")
        if definition.candidates != recommender.definition.candidates:
            say(f"altered {name}: " + recommenders.candidates_words(opened, altered))
        if definition.lists != recommender.definition.lists:
            say(f"altered {name}: {_lists_words(definition)}")
        live = {section: getattr(recommender.definition, section) for section in ("schedule", "candidates", "lists")}
        if definition.model_copy(update=live) != recommender.definition:
            say(f"altered {name}; the next training uses it: recstore retrain {name}")


def grant(
    name: Name,
    role: Annotated[
        str, typer.Argument(help="The application's role.", show_default=False, autocompletion=completion.roles)
    ],
    people: Annotated[
        bool, typer.Option("--people", help="Also what shows people: recommend(), user_vectors, interactions.")
    ] = False,
    dry: DryRun = False,
    json: Json = False,
) -> None:
    """Let an application's role read the recommender; prints the statements.

    For recommend() the role needs SELECT on the source too. Example: recstore grant retail webapp --people
    """
    with current() as (opened, _, _settings):
        grant_reader = dry_run.grant_reader if dry else registry.grant_reader
        show_statements(grant_reader(opened, registry.get(opened, name), role, people=people))


def drop(
    name: Name,
    cascade: Annotated[bool, typer.Option("--cascade", help="Also drop what depends on it.")] = False,
    dry: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Drop a recommender: its schema with all generations, its runs. Refused where other objects depend on it.

    Example: recstore drop retail --yes
    """
    with current() as (opened, _, settings):
        recommender = registry.get(opened, name)
        if dry:
            show_statements(dry_run.drop(opened, settings, recommender, cascade=cascade))
            return
        found = registry.dependents(opened, recommender)
        if cascade or not found:
            also = f", and with it {', '.join(found)}" if found else ""
            confirm(f"Drop the recommender {name} with all its generations{also}?", yes)
        asked = [row["request"] for row in watching.asked(opened, name, n=1000, open=True)]
        dropped = jobs.drop(opened, settings, recommender, cascade=cascade)
        if json:
            show({"dropped": name, "with": dropped})
        say(f"dropped {name}" + (f" and {', '.join(dropped)}" if dropped else ""))
        if asked:
            say(f"what was asked of the workers for it has ended: request {', '.join(map(str, sorted(asked)))}")
