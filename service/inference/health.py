"""Health of the service: started and ready, with the reasons why not."""


class Health:
    """State for the probes. It belongs to the event loop's thread.

    A part of the service that prevents answers blocks under its name, and clears that name again.
    """

    def __init__(self) -> None:
        self.is_started = False  # a model was loaded and warm once. It never turns false again
        self.is_draining = False  # SIGTERM has come
        self._blocked: dict[str, str] = {"model": "The model is being loaded."}

    @property
    def is_ready(self) -> bool:
        """Return whether the service takes work."""
        return not self.reasons

    @property
    def is_blocked(self) -> bool:
        """Return whether a part prevents answers. A shutdown does not."""
        return bool(self._blocked)

    @property
    def reasons(self) -> tuple[str, ...]:
        """List why it is not ready, some sentences each. It is empty when ready."""
        draining = ("The service is shutting down.",) if self.is_draining else ()
        return (*draining, *self._blocked.values())

    def block(self, part: str, reason: str) -> None:
        """Set the reason of a part. It replaces an earlier one."""
        self._blocked[part] = reason

    def clear(self, part: str) -> None:
        """Remove the reason of a part."""
        self._blocked.pop(part, None)
