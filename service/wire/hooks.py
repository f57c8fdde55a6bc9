"""The service as the wire sees it."""

from collections.abc import Sequence
from typing import Protocol

from service.errors import FlowersError

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields in their order, names in lower case."""


class Hooks(Protocol):
    """The service behind the wire. It makes whole HTTP/1.1 answers without a Connection field."""

    def refuse(self, kind: type[FlowersError], detail: str, fields: Fields) -> bytes:
        """Make and count the answer to a request that the app never sees. Its fields may be incomplete."""

    def admit(self, method: str, target: bytes, fields: Fields) -> bytes | None:
        """Make the answer to a plain request that there is no room for, or return None."""

    def is_draining(self) -> bool:
        """Return whether the service is shutting down."""
