"""What bodies and queries are made of: strict fields, and `StrictSerializer`, which refuses what it does not know.

All problems at once, each with its JSON pointer (`/scopes/0`, `?limit` for a query), its value's fault and the remedy.
A field takes its own JSON type only: no number for a text, no text for a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Self
from uuid import UUID

from django.http import QueryDict
from django.urls import register_converter
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from rest_framework import serializers

from strongroom import ids
from strongroom.errors import FieldError, Invalid
from strongroom.rest.bodies import moment
from strongroom.rest.problem import MAX_NAME, MAX_PROBLEMS, nearest

ID_PATTERN = f"[{ids.ALPHABET}]{{26}}"
_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})"  # RFC 3339 with its offset
)


class Text(serializers.CharField):
    """A JSON string; as the caller wrote it, no spaces cut off."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"trim_whitespace": False} | kwargs))

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Whole(serializers.IntegerField):
    """A JSON whole number, no boolean and no text."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class Many(serializers.ListField):
    """A JSON list of at most `max_length` entries, counted before any of them is read."""

    def __init__(self, **kwargs: Any) -> None:
        self.max_length: int
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        if isinstance(data, list) and len(data) > self.max_length:
            raise serializers.ValidationError("too many entries", code="max_length")
        return list(super().to_internal_value(data))


class Flag(serializers.BooleanField):
    """A JSON boolean, no text and no number."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class QueryFlag(serializers.BooleanField):
    """`?dry_run=1`: 1, true, 0, false."""


class Moment(serializers.DateTimeField):
    """RFC 3339 with its offset in; UTC with milliseconds out."""

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str) or not _MOMENT.fullmatch(value):
            self.fail("invalid", format="RFC 3339")
        try:
            return super().to_internal_value(value.upper())
        except (OverflowError, ValueError):  # the year 1 or 9999, moved out of the calendar by its offset
            self.fail("invalid", format="RFC 3339")

    def to_representation(self, value: datetime | str) -> str:
        return value if isinstance(value, str) else moment(value)


class PrefixedId(serializers.Field[UUID, Any, str, Any]):
    """`job_01k9…` outside, the UUID inside."""

    default_error_messages = {"invalid": "is no id of this kind"}

    def __init__(self, prefix: str, **kwargs: Any) -> None:
        self.prefix = prefix
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> UUID:
        found = ids.parse(self.prefix, data) if isinstance(data, str) else None
        if found is None:
            self.fail("invalid")
        return found

    def to_representation(self, value: UUID | str) -> str:
        return value if isinstance(value, str) else ids.text(self.prefix, value)


class PrefixedIdSchema(OpenApiSerializerFieldExtension):
    target_class = PrefixedId

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.target.prefix}_{ID_PATTERN}$"}


class StrictSerializer(serializers.Serializer[Any]):
    """A document whose unknown fields are refused, the nearest known name in the hint."""

    @classmethod
    def read(cls, data: Any, **context: Any) -> dict[str, Any]:
        """The validated document, or Invalid with every problem."""
        serializer = cls(data=data, context=context)
        problems = list(islice(serializer.unknown(data, ""), MAX_PROBLEMS))
        if not serializer.is_valid():
            problems += islice(_problems(serializer, serializer.errors, ""), MAX_PROBLEMS)
        if problems:
            raise Invalid.all(problems)
        return dict(serializer.validated_data)

    def unknown(self, data: Any, path: str) -> Iterator[FieldError]:
        """A problem for each field, here and in what is nested, that is not known or that only answers hold."""
        if not isinstance(data, Mapping):
            return
        known = {name: field for name, field in self.fields.items() if not field.read_only}
        for name, value in data.items():
            field = known.get(name)
            here = f"{path}/{_escape(str(name))}"
            if field is None:
                yield FieldError(here, "extra_forbidden", "is not a known field", nearest(str(name), known))
            elif isinstance(field, StrictSerializer):
                yield from field.unknown(value, here)
            elif isinstance(field, serializers.ListSerializer) and isinstance(field.child, StrictSerializer):
                for position, item in enumerate(value if isinstance(value, list) else ()):
                    yield from field.child.unknown(item, f"{here}/{position}")


class Query(StrictSerializer):
    """The query of a GET: its fields by name, each at most once; `?name` in errors."""

    @classmethod
    def read(cls, data: Any, **context: Any) -> dict[str, Any]:
        repeated = [
            FieldError(f"/{name}", "repeated", "is given more than once", "give it once")
            for name, values in (data.lists() if isinstance(data, QueryDict) else ())
            if len(values) > 1
        ]
        try:
            found = super().read(dict(data.items()), **context)
        except Invalid as error:
            repeated += error.errors
        else:
            if not repeated:
                return found
        problems = [FieldError(f"?{p.path[1:]}", p.code, p.message, p.hint) for p in repeated]
        raise Invalid.all(problems)


class PageQuery(Query):
    """What every list takes."""

    limit = serializers.IntegerField(min_value=1, max_value=200, default=50)
    cursor = serializers.CharField(default=None, max_length=64)


def _escape(name: str) -> str:
    """One part of a JSON pointer; of a name that is absurdly long, its beginning."""
    name = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
    return name.replace("~", "~0").replace("/", "~1")


def _problems(field: Any, errors: Any, path: str) -> Iterator[FieldError]:
    """DRF's tree of errors as a flat list; `field` goes down with it for its bounds and choices."""
    if isinstance(errors, Mapping):
        for name, inner in errors.items():
            if name == "non_field_errors":
                yield from _problems(field, inner, path)
            else:
                yield from _problems(_child(field, name), inner, f"{path}/{_escape(str(name))}")
        return
    for position, error in enumerate(errors):
        if isinstance(error, Mapping):
            yield from _problems(getattr(field, "child", field), error, f"{path}/{position}")
        else:
            message, hint = _words(field, error)
            yield FieldError(path, error.code, message, hint)


def _child(field: Any, name: str | int) -> Any:
    fields = getattr(field, "fields", None)
    return fields.get(name, field) if fields is not None else getattr(field, "child", field)


def _words(field: Any, error: Any) -> tuple[str, str | None]:
    """What follows the path, and the remedy."""
    match error.code:
        case "required":
            return "is required", None
        case "null":
            return "must not be null", None
        case "blank":
            return "must not be empty", None
        case "empty":
            return "must have at least one entry", None
        case "max_length":
            return f"must have at most {field.max_length} {_unit(field)}", None
        case "min_value" | "max_value":
            return "is out of range", _range(field)
        case "invalid_choice":
            return "is none of its choices", f"one of: {', '.join(map(str, field.choices))}"
        case "not_a_list":
            return "must be a list", None
        case "null_characters_not_allowed":
            return "must not hold a null character", None
        case "invalid" | "overflow" if (kind := _kind(field)) is not None:
            return f"must be {kind[0]}", kind[1]
    return str(error), None


def _unit(field: Any) -> str:
    return "entries" if isinstance(field, serializers.ListField | serializers.ListSerializer) else "characters"


def _range(field: Any) -> str:
    if field.max_value is None:
        return f"at least {field.min_value}"
    return f"at most {field.max_value}" if field.min_value is None else f"{field.min_value} to {field.max_value}"


def _kind(field: Any) -> tuple[str, str | None] | None:
    kinds: list[tuple[type, str, str | None]] = [
        (serializers.DateTimeField, "a time", "RFC 3339 with its offset, for example '2026-11-24T22:40:00.123Z'"),
        (serializers.IntegerField, "a whole number", None),
        (serializers.BooleanField, "true or false", None),
        (serializers.CharField, "a text", None),
        (serializers.BaseSerializer, "an object", None),
    ]
    return next(((words, hint) for kind, words, hint in kinds if isinstance(field, kind)), None)


class _PathId:
    """`<key_id:id>` in a route: the UUID for the view. Text that is no such id is another address: 404."""

    prefix: str
    regex: str

    def to_python(self, value: str) -> UUID:
        found = ids.parse(self.prefix, value)
        if found is None:
            raise ValueError(value)
        return found

    def to_url(self, value: UUID) -> str:
        return ids.text(self.prefix, value)

    @classmethod
    def of(cls, prefix: str) -> type[Self]:
        return type(f"{prefix.capitalize()}Id", (cls,), {"prefix": prefix, "regex": f"{prefix}_{ID_PATTERN}"})


PATH_IDS = {f"{prefix}_id": _PathId.of(prefix) for prefix in sorted(ids.PREFIXES)}
for _name, _converter in PATH_IDS.items():
    register_converter(_converter, _name)
