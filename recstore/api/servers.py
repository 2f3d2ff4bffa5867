"""The embedded server: start and stop."""

from typing import Annotated

from recstore import embedded
from recstore.api.arguments import Option
from recstore.api.base import Part
from recstore.api.rows import EmbeddedServer


class Servers(Part):
    """The embedded PostgreSQL of the setting `home`."""

    def start(
        self,
        version: Annotated[
            int | None, Option("Version of PostgreSQL, 18 or 16; by default the one in use here, or 18.", "N")
        ] = None,
    ) -> EmbeddedServer:
        """Start the embedded PostgreSQL with pgvector; it runs until `recstore stop`.

        A `Recstore` without a URL finds it. Raises EmbeddedUnavailable, EmbeddedFailed.
        """
        home = self.settings.home
        server = embedded.start(home, version or embedded.version_in(home))
        return EmbeddedServer(server.url, server.pid, server.version, str(server.data))

    def stop(self) -> bool:
        """Stop the embedded PostgreSQL; its data stay.

        False where none ran.
        """
        return embedded.stop(self.settings.home)
