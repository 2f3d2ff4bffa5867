"""Files: into a table of the application (load), a generation out of the database and into another (export, import)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from recstore.api import texts
from recstore.api.arguments import Argument, Name, Option
from recstore.api.base import Part
from recstore.api.rows import Loaded
from recstore.errors import InvalidInput
from recstore.runs import Reporter, Silent

if TYPE_CHECKING:
    from recstore.files.archive.exporting import Written
    from recstore.operations.jobs import Outcome


class Loading(Part):
    """A file into a table."""

    dry = False

    def load(
        self,
        file: Annotated[Path | str, Argument("CSV, TSV or Parquet, plain or compressed; - is standard input.")],
        table: Annotated[str, Option("The table, created unless it exists.", "SCHEMA.TABLE")],
        *,
        append: Annotated[bool, Option("Add to the rows of a table that exists.")] = False,
        replace: Annotated[bool, Option("Replace the rows of a table that exists, in one transaction.")] = False,
        delimiter: Annotated[
            str | None, Option("Delimiter of fields, such as ';' or tab; otherwise detected.", "CHAR")
        ] = None,
        quote: Annotated[
            str | None, Option('Quote around fields, or none; otherwise detected, mostly ".', "CHAR")
        ] = None,
        escape: Annotated[
            str | None, Option("Escape before a literal character, or none; otherwise detected.", "CHAR")
        ] = None,
        encoding: Annotated[str | None, Option("Encoding of a text file; otherwise UTF-8.", "NAME")] = None,
        header: Annotated[bool | None, Option("The first line has the names or not; otherwise detected.")] = None,
        columns: Annotated[
            str | Sequence[str] | None,
            Option("Choose the header's columns, or name all of the file's; - leaves one out.", "A,B,C"),
        ] = None,
        type: Annotated[
            Mapping[str, str] | None,
            Option("Type of a column of a new table; repeatable.", "COLUMN=TYPE", read=texts.types, repeat=True),
        ] = None,
        null: Annotated[
            Sequence[str] | None,
            Option("Unquoted text that is NULL, otherwise the empty one; repeatable.", "TEXT", repeat=True),
        ] = None,
        primary_key: Annotated[
            str | Sequence[str],
            Option("Columns of the new table's primary key; duplicate keys are reported.", "A,B"),
        ] = (),
        max_bad: Annotated[
            str | float, Option("Bad lines to leave out: a number, or a share such as 1%.", "N|SHARE")
        ] = 0,
        bad: Annotated[Path | str | None, Option("Write all bad lines to this file, as CSV.", "FILE")] = None,
        reporter: Reporter | None = None,
        examined: Callable[..., object] | None = None,
    ) -> Loaded:
        """Load a file into a table: its columns are detected and shown first, bad lines are counted, then COPY.

        All of the file or nothing. `columns` and `primary_key` may be lists or texts, "id,title". `examined` is called with the
        plan before anything is written; an exception stops the load.

        Raises BadLinesFound, LoadRefused, TableExists, InvalidInput.
        """
        from recstore.files.load.bad_lines import allowed
        from recstore.files.load.examining import Wanted, examine
        from recstore.files.load.text import TextOptions
        from recstore.files.load.writing import write
        from recstore.files.opening import opened, refuse_to_overwrite

        if append and replace:
            raise InvalidInput("--append and --replace exclude each other.")
        wanted = Wanted(
            table=table,
            mode="append" if append else "replace" if replace else "create",
            text=TextOptions(delimiter, quote, escape, encoding, header),
            columns=texts.names(columns),
            nulls=tuple(null or [""]),
            types=dict(type or {}),
            primary_key=texts.names(primary_key) or (),
            max_bad=allowed(max_bad),
            keep_bad=bad is not None,
        )
        watch = reporter or Silent()
        refuse_to_overwrite(str(file), bad)
        with self._connection() as database, opened(str(file)) as found:
            plan = examine(database, found, wanted, watch)
            if bad is not None:
                plan.bad.write(Path(bad))
            refused = plan.refusal()
            loaded = Loaded(**plan.as_dict(), written=0, dry_run=self.dry, unit=plan.reader.unit, refused=refused)
            if examined:
                examined(loaded)
            if self.dry:
                return loaded
            if refused:
                raise refused
            return changed(loaded, written=write(database, plan, watch))


class Files(Loading):
    """Files in and out."""

    def export(
        self,
        name: Name,
        file: Annotated[Path | str, Argument("The file to write, for instance retail.npz.")],
        *,
        generation: Annotated[int | None, Option("This generation instead of the live one.", "N")] = None,
        no_users: Annotated[bool, Option("Leave out everything about people.")] = False,
        reporter: Reporter | None = None,
    ) -> "Written":
        """Write a generation to one file that NumPy alone can read: ids, vectors, hyperparameters.

        An existing file is replaced. Raises NotTrained, GenerationNotFound, ReportNotWritten.
        """
        from recstore.files.archive.exporting import export

        return export(self.url, name, Path(file), generation=generation, users=not no_users, reporter=reporter)

    def import_(
        self,
        name: Name,
        file: Annotated[Path | str, Argument("A file of recstore export.")],
        *,
        create: Annotated[bool, Option("Create the recommender as the file says, if it does not exist.")] = False,
        force: Annotated[
            bool, Option("Publish even a file that is far smaller than the live generation, or worse.")
        ] = False,
        reporter: Reporter | None = None,
    ) -> "Outcome":
        """Publish a file of `recstore export` as the next generation; the live one serves until the flip.

        Raises FileRefused, IdsDoNotConvert, NoRoom, ImportShrunk, ImportRefused.
        """
        from recstore.files.archive.importing import import_generation

        return import_generation(
            self.url, self.settings, name, Path(file), create=create, force=force, reporter=reporter
        )
