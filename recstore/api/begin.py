"""The first step with one's own tables: discovery of tables of views, and a file of settings to begin with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from recstore import registry
from recstore.api import options, toml
from recstore.api.arguments import Argument, Option
from recstore.api.base import Part
from recstore.api.rows import Initialized
from recstore.atomic import write_bytes
from recstore.definition import Definition
from recstore.errors import InvalidInput
from recstore.postgres.connection import role_of
from recstore.source import discovery
from recstore.source.discovery import Table
from recstore.sql import schema_revision


@dataclass(frozen=True)
class Surroundings:
    """The tables that this role may read, and whether recstore's schema is there."""

    role: str
    tables: list[Table]
    upgraded: bool


class Beginning(Part):
    """The time before there is a recommender."""

    def init(
        self,
        file: Annotated[Path | str, Argument("The file to write.")] = "recstore.toml",
        *,
        table: Annotated[str | None, Option("The table of views.", "SCHEMA.TABLE", complete="tables")] = None,
        user: Annotated[str | None, Option("Its column of user ids.", "COLUMN", complete="columns")] = None,
        item: Annotated[str | None, Option("Its column of item ids.", "COLUMN", complete="columns")] = None,
        value: Annotated[
            str | None,
            Option("Its column of view counts; none: every row counts 1.", "COLUMN|none", complete="columns"),
        ] = None,
        last_at: Annotated[
            str | None, Option("Its column with the time of the last view.", "COLUMN|none", complete="columns")
        ] = None,
        titles: Annotated[str | None, Option("Lookup table of titles.", "TABLE:ID:TITLE[:PICTURE]|none")] = None,
        candidates_table: Annotated[
            str | None, Option("Recommend items of this table only.", "SCHEMA.TABLE", complete="tables")
        ] = None,
        candidates_column: Annotated[str | None, Option("That table's column of item ids.", "COLUMN")] = None,
        candidates_condition: Annotated[
            str | None, Option("Condition on its rows, for instance visible; none: all.", "SQL|none")
        ] = None,
    ) -> Initialized:
        """Look at your tables, ask which one has the views, and write a commented file of settings for recstore create.

        From Python nothing is asked: without a `table`, `candidates` lists tables that may have the views. An existing file is
        replaced.

        Raises InvalidInput, SourceInvalid, CandidatesInvalid, UnsupportedIdType, ReportNotWritten.
        """
        if table is None:
            found = discovery.candidates(self.look().tables)
            return Initialized([candidate.as_dict() for candidate in found], None, None)
        definition = definition_for(
            self,
            titles,
            {"table": table, "user": user, "item": item, "value": value, "last_at": last_at}
            | {"candidates_table": candidates_table, "candidates_column": candidates_column}
            | {"candidates_condition": candidates_condition},
        )
        write_bytes(Path(file), toml.settings_file(definition, Path(file).name).encode())
        return Initialized([], str(file), definition.model_dump(mode="json"))

    def look(self) -> Surroundings:
        """Return the tables that this role may read."""
        with self._connection() as opened:
            tables = discovery.readable_tables(opened)
            return Surroundings(role_of(opened), tables, schema_revision.current(opened) is not None)


def definition_for(part: Part, titles: str | None, flat: dict[str, str | None]) -> Definition:
    """Return a definition, checked against the database. Raises InvalidInput, SourceInvalid, CandidatesInvalid."""
    if not all(flat[name] for name in ("table", "user", "item")):
        raise InvalidInput("Say which table and columns have the views: table, user, item, and value if there is one.")
    chosen = {name: value for name, value in flat.items() if value is not None}
    definition = options.merge({}, options.by_section(chosen), titles)
    with part._connection() as opened:
        registry.inspect(opened, definition)  # refused here as create would refuse it
    return definition
