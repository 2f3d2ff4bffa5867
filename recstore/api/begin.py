"""The first step with tables of one's own: which may tell who viewed what, and a file of settings to begin with."""

from pathlib import Path

from recstore import registry
from recstore.api import options, toml
from recstore.api.base import Part
from recstore.api.rows import Initialized
from recstore.atomic import write_bytes
from recstore.definition import Definition
from recstore.errors import InvalidInput
from recstore.source import discovery


def definition_for(part: Part, titles: str | None, given: dict[str, str | None]) -> Definition:
    """Checked against the database. Raises InvalidInput, SourceInvalid, CandidatesInvalid, UnsupportedIdType, .."""
    if not all(given[name] for name in ("table", "user", "item")):
        raise InvalidInput(
            "Say which table and columns tell who viewed what: table, user, item, and value if there is one."
        )
    flat = {name: value for name, value in given.items() if value is not None}
    definition = options.merge({}, options.by_section(flat), titles)
    with part._connection() as opened:
        registry.inspect(opened, definition)
    return definition


class Beginning(Part):
    """Before there is a recommender."""

    def init(
        self,
        file: str | Path = "recstore.toml",
        *,
        table: str | None = None,
        user: str | None = None,
        item: str | None = None,
        value: str | None = None,
        last_at: str | None = None,
        titles: str | None = None,
        candidates_table: str | None = None,
        candidates_column: str | None = None,
        candidates_condition: str | None = None,
    ) -> Initialized:
        """Writes a commented file of settings for `create(file=..)`, replacing what is there; `value` None: every row counts 1.
        Without a `table` only tells, in `candidates`, which tables may hold who viewed what. Raises InvalidInput, SourceInvalid,
        ReportNotWritten, .."""
        if table is None:
            with self._connection() as opened:
                found = discovery.candidates(discovery.readable_tables(opened))
            return Initialized([candidate.as_dict() for candidate in found], None, None)
        given = {"table": table, "user": user, "item": item, "value": value, "last_at": last_at}
        limits = {"table": candidates_table, "column": candidates_column, "condition": candidates_condition}
        given |= {f"candidates_{name}": limit for name, limit in limits.items()}
        definition = definition_for(self, titles, given)
        write_bytes(Path(file), toml.settings_file(definition, file).encode())
        return Initialized([], str(file), definition.model_dump(mode="json"))
