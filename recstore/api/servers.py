"""The embedded server: start and stop."""

from recstore import embedded
from recstore.api.base import Part
from recstore.api.rows import EmbeddedServer


class Servers(Part):
    """The embedded PostgreSQL of the setting `home`."""

    def start(self, version: int | None = None) -> EmbeddedServer:
        """Starts it, 18 or 16; it stays until `stop`. A `Recstore` without a URL finds it. Raises EmbeddedUnavailable,
        EmbeddedFailed."""
        home = self.settings.home
        server = embedded.start(home, version or embedded.version_in(home))
        return EmbeddedServer(server.url, server.pid, server.version, str(server.data))

    def stop(self) -> bool:
        """Stops it, its data stay; False where none ran."""
        return embedded.stop(self.settings.home)
