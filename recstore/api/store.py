"""recstore as a library: everything of the command line, with the same names.

`Recstore` has a method for every command but those for people alone (`up`, `psql`, the demos). A space of a command is a dot
(`recstore db upgrade` is `store.db.upgrade()`), a dash an underscore, and a Python keyword has an underscore behind it
(`import_`); options keep their names. Results are the rows of `recstore.rows`; nothing is printed. Each module here is a group of
commands; the work is done below them, in the modules that the command line calls, too.
"""

import sqlalchemy as sa

from recstore.api.ask import Asking
from recstore.api.base import settings_of
from recstore.api.begin import Beginning
from recstore.api.files import Files
from recstore.api.groups import Requesting, Schema
from recstore.api.jobs import Jobs
from recstore.api.manage import Managing
from recstore.api.measure import Measuring
from recstore.api.rehearse import Rehearsal
from recstore.api.servers import Servers
from recstore.api.watch import Watching

__all__ = ["Recstore"]


class Recstore(Managing, Jobs, Measuring, Watching, Asking, Files, Beginning, Servers):
    """The recommenders of a database.

        store = Recstore("postgresql://..")
        store.create("retail", table="shop.views", item="product_id", value="view_count")
        print(store.retrain("retail").generation)

    Without a URL the database is RECSTORE_DATABASE_URL's, or that of the embedded server. Other settings of the process are
    keywords (`device="cpu"`, `flip_wait=10`: docs/settings.md) over its environment variables. Each call opens a connection
    of its own and closes it, so one object serves many threads. Raises InvalidInput for a wrong setting; methods raise
    `recstore.RecstoreError` with a sentence, and its data in attributes.
    """

    def __init__(self, url: str | sa.URL | None = None, **settings: object) -> None:
        super().__init__(settings_of(url, settings))
        self.db = Schema(self.settings)
        """`recstore db ..`: recstore's own schema, and who may watch and ask."""
        self.request = Requesting(self.settings)
        """`recstore request ..`: asks the workers for a job."""
        self.dry_run = Rehearsal(self.settings)
        """`recstore .. --dry-run`: what would be done, as SQL."""
