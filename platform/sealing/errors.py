"""What can go wrong with a sealed artefact. None of these ever carries a key, content or a path."""

from uuid import UUID


class SealingError(Exception):
    """Any of the failures below."""


class ArtefactCorrupt(SealingError):
    """The bytes are not what was sealed under this identity and this key; `segment` is None for the header."""

    def __init__(self, artefact: UUID, segment: int | None = None) -> None:
        super().__init__(artefact, segment)
        self.artefact, self.segment = artefact, segment

    def __str__(self) -> str:
        place = "header" if self.segment is None else f"segment {self.segment}"
        return f"artefact {self.artefact} is corrupt: {place}"


class WrongKey(SealingError):
    """A wrapped data key that this tenant key does not open for this tenant, artefact and generation."""

    def __init__(self, artefact: UUID) -> None:
        super().__init__(artefact)
        self.artefact = artefact

    def __str__(self) -> str:
        return f"the data key of artefact {self.artefact} does not open with this key"
