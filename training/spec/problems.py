"""What is wrong with a document, in the document's own words: {path, code, message, hint}, the path a JSON pointer.

pydantic finds the faults; here its errors get the user's path (no union tags), one manner of speech, the nearest valid
name for misspelt keys and values, and `not_implemented` for what the contract names and this version leaves out. The
rules across fields are in rules.py.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

PlannedFields: TypeAlias = tuple[str, ...]
MAX_PROBLEMS, MAX_NAME = 50, 100  # a document of a hundred thousand unknown fields must not cost a minute


class Planned:
    """Stands in a field's annotation beside its values: what the contract knows and this version does not do."""

    def __init__(self, *values: str | int) -> None:
        self.values = values


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `path` is a JSON pointer into the document that was sent, "" for the whole."""

    path: str
    code: str
    message: str
    hint: str | None = None


class SpecProblems(ValueError):
    """All faults of one document at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems; the first"
        super().__init__(f"{count}: {first.path} {first.message}".replace("  ", " "))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Node:
    """One place of the schema: the types that may stand there."""

    members: tuple[Any, ...]
    planned: tuple[str | int, ...] = ()
    discriminator: str | None = None

    @classmethod
    def of(cls, annotation: Any, metadata: Iterable[Any] = (), discriminator: str | None = None) -> Node:
        planned = tuple(value for item in metadata if isinstance(item, Planned) for value in item.values)
        while True:
            origin = get_origin(annotation)
            if origin is Annotated:
                annotation, *extra = get_args(annotation)
                planned += tuple(value for item in extra if isinstance(item, Planned) for value in item.values)
                named = [item.discriminator for item in extra if isinstance(item, FieldInfo) and item.discriminator]
                discriminator = str(named[0]) if named else discriminator
            elif origin in (Union, types.UnionType):
                members = tuple(member for member in get_args(annotation) if member is not type(None))
                if len(members) > 1:
                    return cls(members, planned, discriminator)
                annotation = members[0]
            else:
                return cls((annotation,), planned, discriminator)

    def tagged(self, value: object) -> Node | None:
        """The alternative of a discriminated union that carries this tag."""
        if self.discriminator is None:
            return None
        for member in self.members:
            if value in get_args(member.model_fields[self.discriminator].annotation):
                return Node((member,))
        return None

    def child(self, key: str | int) -> Node | None:
        """What may stand under this key or index."""
        member = self.members[0]
        if get_origin(member) is list:
            return Node.of(get_args(member)[0]) if isinstance(key, int) else None
        if len(self.members) == 1 and isinstance(member, type) and issubclass(member, BaseModel):
            info = fields(member).get(str(key))
            return None if info is None else Node.of(info.annotation, info.metadata, _tag_of(info))
        return None

    def values(self) -> tuple[Any, ...]:
        """The closed list of values that may stand here; empty where any may."""
        if self.discriminator is not None:
            found = (get_args(member.model_fields[self.discriminator].annotation) for member in self.members)
            return tuple(value for values in found for value in values)
        return get_args(self.members[0]) if get_origin(self.members[0]) is Literal else ()


def _tag_of(info: FieldInfo) -> str | None:
    return info.discriminator if isinstance(info.discriminator, str) else None


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields under the names that documents use."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def pointer(keys: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def nearest(word: object, names: Iterable[object]) -> str | None:
    """The name that was probably meant."""
    known = [str(name) for name in names]
    written = str(word)[: MAX_NAME + 1].lower()
    if len(written) > MAX_NAME:
        return None
    for name in known:
        if written and (name.endswith("/" + written) or _letters(name) == _letters(written)):
            return name
    found = difflib.get_close_matches(written, known, 1) if len(written) > 1 else []
    return found[0] if found else None


def _letters(word: str) -> list[str]:
    return sorted(word.replace("_", ""))


def choice_problem(path: str, value: object, values: Sequence[object], planned: Sequence[object] = ()) -> Problem:
    """A value that is not in a closed list: not implemented, misspelt, or simply wrong."""
    listed = ", ".join(str(name) for name in values)
    if value in planned:
        return Problem(path, "not_implemented", f"{_shown(value)} is not implemented", f"implemented: {listed}")
    meant = nearest(value, values)
    hint = f"did you mean '{meant}'?" if meant else f"one of {listed}"
    return Problem(path, "literal_error", f"{_shown(value)} is not a known value", hint)


def translate(errors: Iterable[ErrorDetails], root: type[BaseModel]) -> list[Problem]:
    """pydantic's errors in our manner; the first of them where a document has more than a person would read."""
    return [_translate(error, Node((root,))) for error in islice(errors, MAX_PROBLEMS)]


def _translate(error: ErrorDetails, node: Node) -> Problem:
    keys: list[str | int] = []
    parent = node
    for key in error["loc"]:
        tagged = node.tagged(key)
        if tagged is not None:  # a union's tag: in pydantic's path, not in the user's document
            node = tagged
            continue
        keys.append(key)
        parent, node = node, node.child(key) or Node((object,))
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_field(pointer(keys), str(keys[-1]), parent)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_tag(pointer([*keys, str(node.discriminator)]), value, node)
    if kind == "literal_error":
        return choice_problem(pointer(keys), value, node.values(), node.planned)
    if kind == "missing":
        values = ", ".join(str(name) for name in node.values())
        return Problem(pointer(keys), kind, "is missing", f"one of {values}" if values else None)
    return Problem(pointer(keys), kind, _message(kind, value, context, error["msg"]), _hint(context))


def _unknown_field(path: str, name: str, parent: Node) -> Problem:
    model = parent.members[0]
    known = list(fields(model))
    if name in getattr(model, "planned", ()):
        return Problem(path, "not_implemented", "is not implemented", "implemented: " + ", ".join(known))
    meant = nearest(name, known)
    hint = f"did you mean '{meant}'?" if meant else "known: " + ", ".join(known)
    return Problem(path, "extra_forbidden", "is not a known field", hint)


def _wrong_tag(path: str, value: object, node: Node) -> Problem:
    name = str(node.discriminator)
    if isinstance(value, dict) and name in value:
        return choice_problem(path, value[name], node.values(), node.planned)
    return Problem(path, "missing", "is missing", "one of " + ", ".join(str(item) for item in node.values()))


_COMPARISONS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
}
_JSON_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _message(kind: str, value: object, context: dict[str, Any], fallback: str) -> str:
    if kind in _COMPARISONS:
        words, key = _COMPARISONS[kind]
        return f"must be {words} {context[key]:g}, is {_shown(value)}"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, is {_JSON_NAMES.get(type(value), _shown(value))}"
    if kind == "finite_number":
        return f"must be a finite number, is {value}"
    if kind in ("too_short", "too_long"):
        words, key = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return f"must have {words} {context[key]} entries, has {context['actual_length']}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(value)} is not of the right form"
    return fallback[:1].lower() + fallback[1:]


_PATTERN_HINTS = {
    r"^[a-z][a-z0-9-]{0,62}$": "a small letter, then at most 62 small letters, digits and hyphens",
    r"^sha256:[0-9a-f]{64}$": "sha256: and 64 hexadecimal digits",
    r"^file_[0-9a-hjkmnp-tv-z]{26}$": "the file's id, file_ and 26 characters",
    r"^art_[0-9a-hjkmnp-tv-z]{26}$": "the artefact that the upload answered, art_ and 26 characters",
}


def _hint(context: dict[str, Any]) -> str | None:
    return _PATTERN_HINTS.get(str(context.get("pattern")))


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
