"""`recstore db ..`: recstore's own schema in the database, and who may watch and ask."""

from typing import Annotated

from recstore import registry
from recstore.api.arguments import Argument, Option, Role
from recstore.api.base import Part
from recstore.api.rows import Revision, Statements, Upgraded
from recstore.operations import schema
from recstore.postgres import grants
from recstore.sql import objects, schema_revision


class Schema(Part):
    """recstore's own schema in the database, and who may watch and ask."""

    def upgrade(self) -> Upgraded:
        """Bring the database to this version: recstore's schema, then every recommender's functions and views.

        Idempotent. Raises MigrationBlocked, UpgradeIncomplete, ExtensionMissing.
        """
        with self._connection() as opened:
            done = schema.upgrade(opened, self.url, self.settings)
            missing = [each.name for each in registry.all_registered(opened) if objects.missing(opened, each)]
            return Upgraded(done, schema_revision.current(opened), missing)

    def downgrade(
        self,
        revision: Annotated[
            str,
            Argument('The revision to go back to; "base" removes all but the version table.', complete="revisions"),
        ],
    ) -> Revision:
        """Go back to an earlier revision; to base, where no recommender is left.

        Raises InvalidInput, RecstoreError.
        """
        with self._connection() as opened:
            schema.downgrade(self.url, revision)
            return Revision(schema_revision.current(opened), schema_revision.head())

    def current(self) -> Revision:
        """Print the database's revision and the one this version needs."""
        with self._connection() as opened:
            return Revision(schema_revision.current(opened), schema_revision.head())

    def check(self) -> Revision:
        """Compare the database with what this version declares.

        Raises SchemaMissing, SchemaOutdated, SchemaTooNew, RecstoreError.
        """
        with self._current() as opened:
            schema.check(self.url)
            return Revision(schema_revision.current(opened), schema_revision.head())

    def grant(
        self, role: Role, *, requests: Annotated[bool, Option("Also ask for retrains and reindexes.")] = True
    ) -> Statements:
        """Let a role watch all recommenders, and ask the workers for jobs; prints the statements.

        Raises InvalidInput.
        """
        with self._current() as opened:
            return Statements(tuple(grants.grant_watcher(opened, role, requests=requests)))

    def revoke(self, role: Role) -> Statements:
        """Take back what recstore db grant gave a role.

        Raises InvalidInput.
        """
        with self._current() as opened:
            return Statements(tuple(grants.revoke_watcher(opened, role)))
