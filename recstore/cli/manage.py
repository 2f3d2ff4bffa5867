"""Recommenders: create, list, show, alter, grant, drop."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from recstore import objects, pipeline, registry, sources
from recstore.cli.context import Json, Name, Yes, confirm, current, say, show, show_rows, state, use_json
from recstore.cli.definitions import definition_options, merge, read_toml
from recstore.cli.screen import next_retrain, planned
from recstore.config import Settings
from recstore.database import Connection
from recstore.errors import InvalidInput
from recstore.progress import StageReporter, gate_words, plan_words

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
    yes: Yes = False,
    json: Json = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Create a recommender over a table or a query of view counts. Nothing is read or trained yet.

    Example: recstore create retail --table shop.views --item product_id --value view_count
    """
    use_json(json)
    base = read_toml(file, name) if file else {}
    definition = merge(base, given, titles)
    with current() as (opened, _, settings):
        warn_of_publications(opened, yes)
        recommender = pipeline.create(opened, settings, name, definition)
        lookup = sources.check_lookup(opened, name)
        if json:
            show(_described(opened, recommender) | {"lookup": dataclasses.asdict(lookup)})
            return
        say(
            f"created {name}: {recommender.user_type.value} users, {recommender.item_type.value} items,"
            f" {recommender.vector_type} of {recommender.dimensions} dimensions"
        )
        if definition.schedule.cron:
            say(f"retrained by the workers {_planned(opened, name)}")
        _offer_seen_table(opened, settings, recommender, lookup)
        say(f"next: recstore retrain {name}")


def _offer_seen_table(
    opened: Connection, settings: Settings, recommender: objects.Registered, lookup: sources.Lookup
) -> None:
    if lookup.problem:
        say(f"Reading it failed: {lookup.problem}. Mend the source before the first retrain.")
    if lookup.indexed or lookup.problem or recommender.definition.source.seen == "published":
        return
    say(
        f"Every recommend() looks up what the user has seen, and that does not reach an index: {lookup.milliseconds:.1f} ms"
        " here. Add an index on the source's user column, or let each generation publish a table of seen items."
    )
    command = f"recstore alter {recommender.name} --seen published"
    if state.output.is_terminal and typer.get_text_stream("stdin").isatty() and typer.confirm("Publish that table?"):
        source = recommender.definition.source.model_copy(update={"seen": "published"})
        registry.alter(opened, settings, recommender, recommender.definition.model_copy(update={"source": source}))
    else:
        say(f"The latter by: {command}")


def warn_of_publications(opened: Connection, yes: bool) -> None:
    """A publication FOR ALL TABLES carries every new generation to its subscribers, and stops where they lack it."""
    rows = opened.execute("SELECT p.pubname FROM pg_publication p WHERE p.puballtables ORDER BY p.pubname").fetchall()
    if rows:
        names = ", ".join(row["pubname"] for row in rows)
        confirm(
            f"The publication {names} is FOR ALL TABLES: it would send every generation's tables to subscribers that lack"
            " them, and the application's own replication would stop. Create the recommender all the same?",
            yes,
        )


def list_(json: Json = False) -> None:
    """List the recommenders, what is live and how the last run went.

    Example: recstore list
    """
    use_json(json)
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
    use_json(json)
    with current() as (opened, _, _settings):
        described = _described(opened, registry.get(opened, name))
        schedule = _planned(opened, name)
    if json:
        show(described)
        return
    vectors = f"{described['vector_type']} of {described['dimensions']} dimensions"
    say(f"{name}: {described['user_type']} users, {described['item_type']} items, {vectors}")
    for section, values in described["definition"].items():
        told = {key: value for key, value in (values or {}).items() if value is not None}
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
    say(
        f"  read: {read['rows']:,} rows at {read['taken_at']}, {read['nulls']} with NULL or NaN,"
        f" {read['nonpositive']} zero or negative, {read['duplicates']} duplicates"
    )
    if live["collapsed_items"]:
        say(f"  collapsed: {live['collapsed_items']} items have popularity but no vectors")
    if live["metrics"]:
        say(f"  held out: {gate_words(live['metrics'])}")
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


def _described(opened: Connection, recommender: objects.Registered) -> dict[str, Any]:
    rows = opened.execute(
        "SELECT * FROM recstore.generations g WHERE g.recommender = %s ORDER BY g.generation", [recommender.name]
    ).fetchall()
    overview = registry.overview_of(opened, recommender.name)
    return {
        "name": recommender.name,
        "user_type": recommender.user_type.value,
        "item_type": recommender.item_type.value,
        "vector_type": recommender.vector_type,
        "dimensions": recommender.dimensions,
        "definition": recommender.definition.model_dump(mode="json"),
        "live": next((row for row in rows if row["state"] == "live"), None),
        "last_error": overview["last_error"],
        "next_retrain": next_retrain(overview),
        "waiting": [row for row in rows if row["state"] == "ready"],
    }


def alter(
    name: Name,
    file: File = None,
    titles: TitlesOption = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Make room for more factors than the dimensions fixed at creation.")
    ] = False,
    json: Json = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Change a recommender's settings, from the next training on. Write none to unset one.

    Example: recstore alter retail --factors 96 --min-users-per-item 2
    """
    use_json(json)
    with current() as (opened, url, settings):
        recommender = registry.get(opened, name)
        base = recommender.definition.model_dump(mode="json")
        for section, values in (read_toml(file, name) if file else {}).items():
            base[section] = (base.get(section) or {}) | values
        definition = merge(base, given, titles)
        if definition.storage != recommender.definition.storage:
            raise InvalidInput(
                "The vectors' type and dimensions are fixed at creation; more factors make room with --resize."
            )
        factors = definition.hyperparameters.factors or 0
        if factors > recommender.dimensions:
            registry.check_definition(opened, recommender, definition)  # a refused definition resizes nothing
            if not resize:
                raise InvalidInput(
                    f"{name!r} has room for {recommender.dimensions} factors, not {factors}. Add --resize to make more: readers"
                    " of the views may wait a moment, and the next training is published into the new tables."
                )
            with StageReporter(state.errors).showing() as reporter:
                pipeline.resize(url, settings, name, factors, reporter=reporter)
            recommender = registry.get(opened, name)
        altered = registry.alter(opened, settings, recommender, definition)
        if json:
            show(_described(opened, altered))
        elif definition == recommender.definition:
            say(f"{name} is as it was")
            return
        if definition.schedule != recommender.definition.schedule:
            by = (
                f"the workers retrain it {_planned(opened, name)}" if definition.schedule.cron else "it has no schedule"
            )
            say(f"altered {name}: {by}")
        if definition.model_copy(update={"schedule": recommender.definition.schedule}) != recommender.definition:
            say(f"altered {name}; the next training uses it: recstore retrain {name}")


def grant(
    name: Name,
    role: Annotated[str, typer.Argument(help="The application's role.", show_default=False)],
    people: Annotated[
        bool, typer.Option("--people", help="Also what shows people: recommend(), user_vectors, interactions.")
    ] = False,
    json: Json = False,
) -> None:
    """Let an application's role read the recommender; prints the statements.

    For recommend() the role needs SELECT on the source too. Example: recstore grant retail webapp --people
    """
    use_json(json)
    with current() as (opened, _, _settings):
        statements = registry.grant_reader(opened, registry.get(opened, name), role, people=people)
        if json:
            show({"statements": statements})
        for statement in statements:
            say(statement)


def drop(
    name: Name,
    cascade: Annotated[bool, typer.Option("--cascade", help="Also drop what depends on it.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Drop a recommender: its schema with all generations, its runs. Refused where other objects depend on it.

    Example: recstore drop retail --yes
    """
    use_json(json)
    with current() as (opened, _, settings):
        recommender = registry.get(opened, name)
        found = registry.dependents(opened, recommender)
        if cascade or not found:
            also = f", and with it {', '.join(found)}" if found else ""
            confirm(f"Drop the recommender {name} with all its generations{also}?", yes)
        dropped = pipeline.drop(opened, settings, recommender, cascade=cascade)
        if json:
            show({"dropped": name, "with": dropped})
        say(f"dropped {name}" + (f" and {', '.join(dropped)}" if dropped else ""))
