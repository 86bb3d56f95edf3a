"""What can go wrong on the way into the sandbox. Nothing here knows how the walls are built."""


class SandboxError(Exception):
    """Something about the sandbox, so that a caller can catch all of it at once."""


class UnknownProfile(SandboxError, ValueError):
    """A profile was named that the table in profiles.py does not have."""


class NotSingleThreaded(SandboxError):
    """The process has more than one thread: those made before entry would stay outside the walls."""

    def __init__(self, threads: int) -> None:
        super().__init__(
            f"{threads} threads run already; Landlock would bind only the calling one: enter before importing numpy, "
            "torch or onnxruntime, or fork first"
        )
        self.threads = threads


class SandboxUnavailable(SandboxError):
    """The mode is `require` and this kernel does not offer every wall."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(
            f"this kernel does not offer: {', '.join(missing)}; STRONGROOM_SANDBOX=auto goes on with what there is"
        )
        self.missing = missing
