"""The service as the wire sees it."""

from collections.abc import Sequence
from typing import Protocol

from service.errors import FlowersError

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields in their order, names in lower case."""


class Hooks(Protocol):
    """Questions of the wire to the service behind it."""

    def refuse(self, kind: type[FlowersError], detail: str, fields: Fields) -> bytes:
        """Make and count the answer to a request that the app never sees.

        Args:
            kind: What is wrong with the request.
            detail: Message about this occurrence.
            fields: The request's fields as far as they were read.

        Returns:
            A whole HTTP/1.1 answer without a Connection field.
        """

    def admit(self, method: str, target: bytes, fields: Fields) -> bytes | None:
        """Return such an answer where there is no room for a plain request, or None."""

    def is_draining(self) -> bool:
        """Return whether the service is shutting down."""
