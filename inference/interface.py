"""What a version takes and gives: arrays by a Signature, or words by a LanguageInterface. One reader for both.

Stored with the version, read by the edge and the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.language.interface import LanguageInterface, is_language
from inference.signature import Signature

Interface = Signature | LanguageInterface


def read_interface(document: Mapping[str, Any]) -> Interface:
    """As the version has it; SignatureInvalid."""
    return LanguageInterface.from_json(document) if is_language(document) else Signature.from_json(document)
