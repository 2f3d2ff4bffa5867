"""Files: into a table of the application (load), a generation out of the database and into another (export, import)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from recstore.api.base import Part
from recstore.api.rows import Loaded
from recstore.files.archive.exporting import Written, export
from recstore.files.archive.importing import import_generation
from recstore.files.load import telling
from recstore.files.load.examining import Wanted, examine, wanted_of
from recstore.files.load.layout import Given
from recstore.files.load.opening import opened, refuse_to_overwrite
from recstore.files.load.writing import write
from recstore.operations.jobs import Outcome
from recstore.runs import Reporter, Silent


def names(given: Sequence[str] | str | None) -> Sequence[str] | None:
    """In a text as the command line takes them, "id,title"."""
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


def lines(max_bad: float | str) -> float | str:
    """A whole number of lines may come as 1.0, which as a share would be all of them."""
    return int(max_bad) if isinstance(max_bad, float) and max_bad >= 1 and max_bad.is_integer() else max_bad


def run_load(
    part: Part,
    file: str | Path,
    wanted: Wanted,
    bad: str | Path | None,
    reporter: Reporter | None,
    *,
    dry: bool,
) -> Loaded:
    """Looks at the whole file, then writes it, unless it is a dry run. Raises BadLinesFound, LoadRefused, .."""
    watch = reporter or Silent()
    refuse_to_overwrite(str(file), bad)
    with part._connection() as database, opened(str(file)) as found:
        plan = examine(database, found, wanted, watch)
        if bad is not None:
            plan.bad.write(Path(bad))
        if plan.refused and not dry:
            raise telling.refusal(plan)
        written = 0 if dry else write(database, plan, watch)
        return Loaded(**telling.as_dict(plan), written=written, dry_run=dry)


class Files(Part):
    """Files in and out."""

    def load(
        self,
        file: str | Path,
        table: str,
        *,
        append: bool = False,
        replace: bool = False,
        delimiter: str | None = None,
        quote: str | None = None,
        escape: str | None = None,
        encoding: str | None = None,
        header: bool | None = None,
        columns: Sequence[str] | str | None = None,
        type: Mapping[str, str] | None = None,
        null: Sequence[str] | None = None,
        primary_key: Sequence[str] | str = (),
        max_bad: float | str = 0,
        bad: str | Path | None = None,
        reporter: Reporter | None = None,
    ) -> Loaded:
        """Loads CSV, TSV or Parquet, plain or compressed, into a table (schema.table) by COPY, all of it or nothing; the table
        is made unless it exists, or with `append` or `replace` added to or replaced. What is not said about the file is found
        out; `columns` and `primary_key` may be lists or texts, "id,title". `max_bad` lines (a number, or a share below 1) may be
        left out; `bad` is a file to write them to. Raises
        BadLinesFound, LoadRefused, TableExists, InvalidInput."""
        text = Given(delimiter, quote, escape, encoding, header)
        wanted = wanted_of(
            table, append, replace, text, names(columns), type, null, names(primary_key) or (), lines(max_bad), bad
        )
        return run_load(self, file, wanted, bad, reporter, dry=False)

    def export(
        self,
        name: str,
        file: str | Path,
        *,
        generation: int | None = None,
        no_users: bool = False,
        reporter: Reporter | None = None,
    ) -> Written:
        """Writes the live generation, or another, to a file that NumPy alone can read, replacing what is there; with
        `no_users` nothing about people. Raises NotTrained, GenerationNotFound, ReportNotWritten."""
        return export(
            self.url,
            name,
            Path(file),
            generation=generation,
            users=not no_users,
            reporter=reporter,
        )

    def import_(
        self,
        name: str,
        file: str | Path,
        *,
        create: bool = False,
        force: bool = False,
        reporter: Reporter | None = None,
    ) -> Outcome:
        """Publishes a file of `export` as the next generation; with `create` makes the recommender as the file says, if it is
        not there. Raises FileRefused, IdsDoNotConvert, NoRoom, ImportShrunk, ImportRefused, .."""
        return import_generation(
            self.url, self.settings, name, Path(file), create=create, force=force, reporter=reporter
        )
