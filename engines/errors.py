"""What can go wrong between the bytes of a tilt and its ice map."""


class EngineError(Exception):
    """Base of everything that `engines` raises on purpose; the text is one clear sentence."""


class PixelsError(EngineError):
    """Raised when the pixels of an image cannot be had.

    `reason` is a short word from a closed list (`header`, `mode`, `truncated`, `section`,
    `missing`, `unreadable`, `changed`, `decode`, `bomb`, `gain`), so that callers can count by
    reason without reading the text.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class BundleError(EngineError):
    """Raised when a model bundle is damaged, foreign, of another version, or not there."""


class BackendError(EngineError):
    """Raised when a backend cannot be built or fails while it computes."""
