"""Recommenders: create, list, show, alter, grant, drop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from recstore import registry
from recstore.api.arguments import Argument, Name, Option, Role, Sections, Yes
from recstore.api.base import Given, Part, check_publications, definition_of
from recstore.api.rows import Altered, Created, Described, Dropped, Generation, Id, Listed, Statements
from recstore.operations import jobs, readers, recommenders
from recstore.publication import erasing
from recstore.publication.erasing import Forgotten
from recstore.runs import Reporter
from recstore.source import inspection
from recstore.source.plans import index_statement

D = TypeVar("D", bound=Described)
Listing = list[Listed]
Names = list[str]

NewName = Annotated[str, Argument("Name of the recommender and of its schema.")]
File = Annotated[
    Path | str | None, Option("A TOML file with the sections source, filters, ..", "FILE", flags="--file -f")
]
Titles = Annotated[
    str | None, Option("Lookup table of titles, for lists that people read.", "TABLE:ID:TITLE[:PICTURE]")
]
Resize = Annotated[bool, Option("Change the dimensions fixed at creation to fit --factors.")]
Unreadable = Annotated[
    bool,
    Option(
        "Also candidates, exclusions or a fallback that roles with access may not read, who get errors.",
        flags="--yes -y",
    ),
]
People = Annotated[bool, Option("Also what shows people: recommend(), user_vectors, interactions.")]
User = Annotated[Id, Option("The user's id.", "ID")]
Forget = Annotated[bool, Option("Also forget_user(), which erases people.")]
Cascade = Annotated[bool, Option("Also drop what depends on it.")]
Settings = Annotated[Any, Sections()]
Alterable = Annotated[Any, Sections(without=("storage",))]


class Managing(Part):
    """Recommenders."""

    def create(
        self,
        name: NewName,
        definition: Given = None,
        *,
        file: File = None,
        titles: Titles = None,
        yes: Yes = False,
        **settings: Settings,
    ) -> Created:
        """Create a recommender over a table or a query of view counts. Nothing is read or trained yet.

            store.create("retail", table="shop.views", item="product_id", value="view_count", factors=64)

        `settings` are the options of `recstore create` (docs/settings.md), with underscores; `definition` and a TOML `file`
        have sections. With `yes`, also where a publication FOR ALL TABLES would replicate its tables.

        Raises InvalidInput, InvalidName, RecommenderExists, SourceInvalid, PermissionDenied, PublicationOfEverything.
        """
        from recstore import doctor

        wanted = definition_of(name, None, definition, file, titles, settings)
        with self._current() as opened:
            check_publications(opened, yes)
            recommender = recommenders.create(opened, self.settings, name, wanted)
            lookup = inspection.check_lookup(opened, name)
            row = recommenders.described(opened, recommender)
            return _described(Created, row, lookup=lookup, warnings=tuple(doctor.problems(self.settings, name)))

    def list(self) -> Listing:
        """List the recommenders, what is live and how the last run went."""
        with self._current() as opened:
            return [Listed.of(row) for row in registry.overview(opened)]

    def show(self, name: Name) -> Described:
        """Show a recommender: its configuration, what is live, how it was calibrated.

        Raises RecommenderNotFound.
        """
        with self._current() as opened:
            return _described(Described, recommenders.described(opened, registry.get(opened, name)))

    def alter(
        self,
        name: Name,
        definition: Given = None,
        *,
        file: File = None,
        titles: Titles = None,
        resize: Resize = False,
        yes: Unreadable = False,
        reporter: Reporter | None = None,
        **settings: Alterable,
    ) -> Altered:
        """Change a recommender's settings, from the next training on; candidates, exclusions and fallback at once. Write none
        to unset one.

        Settings are given as in `create`; None unsets one, titles="none" the titles. With `resize`, readers of the views may
        wait a moment.

        Raises RecommenderNotFound, InvalidInput, AlteredMeanwhile, ReadersLackRights.
        """
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
            row = recommenders.described(opened, altered)
            before: Mapping[str, Any] = recommender.definition.model_dump(mode="json")
            changed = tuple(section for section, values in row["definition"].items() if values != before.get(section))
            return _described(Altered, row, changed=changed)

    def grant(self, name: Name, role: Role, *, people: People = False, forget: Forget = False) -> Statements:
        """Let an application's role read the recommender; prints the statements.

        Remarks among them are statements that others have to run.

        Raises RecommenderNotFound, InvalidInput, PermissionDenied.
        """
        with self._current() as opened:
            recommender = registry.get(opened, name)
            return Statements(tuple(readers.grant_reader(opened, recommender, role, people=people, forget=forget)))

    def forget(self, name: Name, *, user: User) -> Forgotten:
        """Remove a user from every kept generation and from the lists of all users.

        What was read of the source before, and files, bring the user back no more. A later training does if the source still
        has rows: delete these first. An application calls forget_user() in its own transaction. Raises RecommenderNotFound,
        InvalidInput, PermissionDenied.
        """
        with self._current() as opened:
            recommender = registry.get(opened, name)
            return erasing.forget(opened, recommender, recommender.user_type.parse(str(user), "user id"))

    def drop(self, name: Name, *, cascade: Cascade = False) -> Dropped:
        """Drop a recommender: its schema with all generations, its runs. Refused where other objects depend on it.

        Raises RecommenderNotFound, RunInProgress, DependentObjects.
        """
        with self._current() as opened:
            dropped = jobs.drop(opened, self.settings, registry.get(opened, name), cascade=cascade)
            return Dropped(name, dropped)

    def dependents(self, name: str) -> Names:
        """Return the objects of others that depend on a recommender's schema. Raises RecommenderNotFound."""
        with self._current() as opened:
            return registry.dependents(opened, registry.get(opened, name))

    def candidates(self, name: str) -> str:
        """Return in words which items are recommended. Raises RecommenderNotFound."""
        with self._current() as opened:
            return recommenders.candidates_words(opened, self.settings, registry.get(opened, name))

    def exclusions(self, name: str) -> str:
        """Return in words what is left out for a user. Raises RecommenderNotFound."""
        with self._current() as opened:
            return recommenders.exclusions_words(opened, registry.get(opened, name))

    def lookup_index(self, name: str) -> str | None:
        """Return the statement that makes a missing index on a user's rows of the source, if the source is a table."""
        with self._current() as opened:
            return index_statement(opened, name, "interactions", "user_id")


def _described(kind: type[D], row: dict[str, Any], **more: Any) -> D:
    live = Generation.of(row["live"]) if row["live"] else None
    return kind.of(row, live=live, waiting=[Generation.of(waiting) for waiting in row["waiting"]], **more)
