"""Recommenders: create, list, show, alter, grant, drop."""

from pathlib import Path
from typing import Any, TypeVar

from recstore import registry
from recstore.api.base import Given, Part, check_publications, definition_of
from recstore.api.rows import Created, Described, Dropped, Generation, Listed, Statements
from recstore.operations import jobs, recommenders
from recstore.runs import Reporter
from recstore.source import inspection

D = TypeVar("D", bound=Described)
Listing = list[Listed]


class Managing(Part):
    """Recommenders."""

    def create(
        self,
        name: str,
        definition: Given = None,
        *,
        file: str | Path | None = None,
        titles: str | None = None,
        yes: bool = False,
        **settings: Any,
    ) -> Created:
        """Makes a recommender over a table or a query of view counts; nothing is read or trained yet.

            store.create("retail", table="shop.views", item="product_id", value="view_count", factors=64)

        `settings` are the options of `recstore create` (docs/settings.md), with underscores; `definition` and a TOML `file`
        have sections. `titles` is "table:id_column:title_column". With `yes`, also where a publication FOR ALL TABLES would
        carry its tables along. Raises InvalidInput, InvalidName, RecommenderExists, SourceInvalid, PermissionDenied, ..
        """
        wanted = definition_of(name, None, definition, file, titles, settings)
        with self._current() as opened:
            check_publications(opened, yes)
            recommender = recommenders.create(opened, self.settings, name, wanted)
            lookup = inspection.check_lookup(opened, name)
            return _described(Created, recommenders.described(opened, recommender), lookup=lookup)

    def list(self) -> Listing:
        """Every recommender, with what is live and how the last run went."""
        with self._current() as opened:
            return [Listed.of(row) for row in registry.overview(opened)]

    def show(self, name: str) -> Described:
        """A recommender's configuration, what is live, how it was calibrated. Raises RecommenderNotFound."""
        with self._current() as opened:
            return _described(Described, recommenders.described(opened, registry.get(opened, name)))

    def alter(
        self,
        name: str,
        definition: Given = None,
        *,
        file: str | Path | None = None,
        titles: str | None = None,
        resize: bool = False,
        yes: bool = False,
        reporter: Reporter | None = None,
        **settings: Any,
    ) -> Described:
        """Changes settings, as `create` takes them, from the next training on; None unsets one, titles="none" those. With
        `resize`, makes room for more factors than the dimensions fixed at creation: readers of the views may wait a moment.
        With `yes`, also to candidates that a role with access may not read. Raises RecommenderNotFound, InvalidInput,
        AlteredMeanwhile, ReadersLackRights, .."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            wanted = definition_of(name, recommender.definition, definition, file, titles, settings)
            altered = recommenders.alter(
                opened,
                self.url,
                self.settings,
                recommender,
                wanted,
                resize=resize,
                readers_may_fail=yes,
                reporter=reporter,
            )
            return _described(Described, recommenders.described(opened, altered))

    def grant(self, name: str, role: str, *, people: bool = False) -> Statements:
        """Lets an application's role read the recommender, with `people` also what shows people. What its owner has to grant
        besides is among the statements, as remarks. Raises RecommenderNotFound, InvalidInput, PermissionDenied."""
        with self._current() as opened:
            return Statements(tuple(registry.grant_reader(opened, registry.get(opened, name), role, people=people)))

    def drop(self, name: str, *, cascade: bool = False) -> Dropped:
        """Drops a recommender: its schema with all generations, its runs. Nobody is asked. Raises RecommenderNotFound,
        RunInProgress, and DependentObjects where other objects depend on it, unless `cascade` drops them too."""
        with self._current() as opened:
            dropped = jobs.drop(opened, self.settings, registry.get(opened, name), cascade=cascade)
            return Dropped(name, dropped)


def _described(kind: type[D], row: dict[str, Any], **more: Any) -> D:
    live = Generation.of(row["live"]) if row["live"] else None
    return kind.of(row, live=live, waiting=[Generation.of(waiting) for waiting in row["waiting"]], **more)
