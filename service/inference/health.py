"""Started, alive, ready - and why not."""


class Health:
    """What the probes ask. Written and read on the event loop's thread only.

    Alive needs no field: whoever answers at all is alive. Each part of the service that can stand in the way
    of an answer blocks under its own name and clears that name again; `model` blocks from the beginning.
    """

    def __init__(self) -> None:
        self.is_started = False
        """A model has been loaded and warmed up once; never false again."""
        self.is_draining = False
        """SIGTERM has come: not ready from now on."""
        self._blocked: dict[str, str] = {"model": "the model is being loaded"}

    @property
    def is_ready(self) -> bool:
        """Whether to send work here."""
        return not self.reasons

    @property
    def is_blocked(self) -> bool:
        """Whether some part stands in the way of an answer; a shutdown does not, yet."""
        return bool(self._blocked)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready, each one clause for people; empty when it is."""
        draining = ("the service is shutting down",) if self.is_draining else ()
        return (*draining, *self._blocked.values())

    def block(self, part: str, reason: str) -> None:
        """Not ready while `part` says so; a later reason replaces its earlier one."""
        self._blocked[part] = reason

    def clear(self, part: str) -> None:
        """`part` stands in the way no longer."""
        self._blocked.pop(part, None)
