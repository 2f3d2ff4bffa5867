"""The base of every part of `Recstore`: the settings, the database they name, a connection per call."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from inspect import isfunction
from pathlib import Path
from typing import Any

from pydantic import BaseModel, InstanceOf

from recstore.api import options
from recstore.api.arguments import checked
from recstore.background.watching import watching
from recstore.config import Settings, load_settings
from recstore.definition import Definition
from recstore.embedded.configured import database_url
from recstore.errors import PublicationOfEverything
from recstore.operations import recommenders
from recstore.postgres.connection import Connection
from recstore.sql import schema_revision

Given = InstanceOf[Definition] | Mapping[str, Any] | None
"""A definition, or some of its sections, as a TOML file has them."""


class Part:
    """A database, and the settings of this process for it. Public methods check their arguments first."""

    def __init_subclass__(cls) -> None:
        for name, member in list(vars(cls).items()):
            if isfunction(member) and not name.startswith("_"):
                setattr(cls, name, checked(member))

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def url(self) -> str:
        """The database's URL: the configured one, else that of the embedded server if it runs. Raises ConnectionFailed."""
        return database_url(self.settings)

    def require_current(self) -> None:
        """Raise SchemaMissing, SchemaOutdated or SchemaTooNew unless the database's schema is this version's."""
        with self._current():
            pass

    def _settings(self, **overrides: object) -> Settings:
        """Return the settings with those overrides that are not None. Raises InvalidInput."""
        chosen = {name: value for name, value in overrides.items() if value is not None}
        return load_settings(**self.settings.model_dump(exclude_unset=True) | chosen)

    def _connection(self) -> AbstractContextManager[Connection]:
        """Open a connection, with errors in plain words."""
        return schema_revision.opened(self.url)

    def _current(self) -> AbstractContextManager[Connection]:
        """Open a connection to a database whose schema is this version's."""
        return schema_revision.ready(self.url)

    def _watching(self) -> AbstractContextManager[Connection]:
        """Open a connection that reads recstore's views only."""
        return watching(self.url)


def definition_of(
    name: str, base: Given, given: Given, file: str | Path | None, titles: str | None, flat: Mapping[str, Any]
) -> Definition:
    """Return `base` overridden by the sections of a file, by those of `given`, by flat options. Raises InvalidInput."""
    sections = options.laid_over(_sections(base), options.read_toml(Path(file), name) if file is not None else {})
    return options.merge(options.laid_over(sections, _sections(given)), options.by_section(flat), titles)


def _sections(given: Given) -> dict[str, Any]:
    if isinstance(given, Definition):
        return given.model_dump(mode="json")
    dumped: Any = {"mode": "json", "exclude_unset": True}
    return {k: v.model_dump(**dumped) if isinstance(v, BaseModel) else v for k, v in (given or {}).items()}


def check_publications(opened: Connection, yes: bool) -> None:
    """Raise PublicationOfEverything where a publication FOR ALL TABLES would replicate generations, unless `yes`."""
    names = recommenders.publications_of_everything(opened)
    if names and not yes:
        raise PublicationOfEverything(publications=", ".join(names))
