"""recstore as a library: everything of the command line, with the same names.

`Recstore` has a method for every command but those for people alone (`up`, `explore`, `psql`, the demos). A space of a command
is a dot (`recstore db upgrade` is `store.db.upgrade()`), a dash an underscore, and a Python keyword has an underscore behind it
(`import_`); options keep their names. Results are the rows of `recstore.rows`; nothing is printed. Each module of this package
is a group of commands, and declares them.
"""

import sqlalchemy as sa

from recstore.api.apply import Applying, ApplyRehearsal
from recstore.api.ask import Asking
from recstore.api.begin import Beginning
from recstore.api.files import Files
from recstore.api.jobs import Jobs, Listing
from recstore.api.measure import Measuring
from recstore.api.request import Requesting
from recstore.api.schema import Schema
from recstore.api.servers import Servers
from recstore.api.watch import Watching
from recstore.config import load_settings

__all__ = ["Recstore"]


class Recstore(Applying, Jobs, Listing, Measuring, Watching, Asking, Files, Beginning, Servers):
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
        text = url.render_as_string(hide_password=False) if isinstance(url, sa.URL) else url
        super().__init__(load_settings(database_url=text, **settings))
        self.db = Schema(self.settings)
        """`recstore db ..`: recstore's own schema, and who may watch and ask."""
        self.request = Requesting(self.settings)
        """`recstore request ..`: asks the workers for a job."""
        self.dry_run = ApplyRehearsal(self.settings)
        """`recstore .. --dry-run`: what would be done, as SQL."""
