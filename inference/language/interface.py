"""What a version that is a language model takes and gives: the counterpart of an array model's Signature.

Stored with the version, read by the edge and the cell. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inference.signature import SignatureInvalid

KIND = "language"
TASK = "generation"


@dataclass(frozen=True, slots=True)
class LanguageInterface:
    """`chat`: it has a chat template; `tools`: the template writes tools and calls as Hermes and Qwen do. An `adapter`
    changes the weights whose hash is `base_sha256`, and takes the rest from there."""

    context_length: int
    vocabulary: int
    chat: bool
    tools: bool
    weights_sha256: str | None = None
    adapter: bool = False
    base_sha256: str | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LanguageInterface:
        try:
            found = cls(**{key: value for key, value in document.items() if key != "kind"})
        except TypeError as error:
            raise SignatureInvalid(f"the language interface has other fields: {error}") from None
        counts = (found.context_length, found.vocabulary)
        if not all(type(count) is int and 0 < count < 1 << 31 for count in counts):
            raise SignatureInvalid("the language interface has no sizes")
        if type(found.chat) is not bool or type(found.tools) is not bool:
            raise SignatureInvalid("the language interface does not say whether it chats")
        if type(found.adapter) is not bool or not isinstance(found.base_sha256, str | None):
            raise SignatureInvalid("the language interface does not say whether it is an adapter")
        if not isinstance(found.weights_sha256, str | None):
            raise SignatureInvalid("the language interface has no hash of its weights")
        return found

    def to_json(self) -> dict[str, Any]:
        return {"kind": KIND, **asdict(self)}


def is_language(document: Mapping[str, Any] | None) -> bool:
    return document is not None and document.get("kind") == KIND
