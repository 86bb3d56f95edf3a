"""Columns that hold sealed JSON: AES-GCM under the tenant's field key, bound to table, column, tenant and row.

In memory the attribute is plain JSON, opened when it is first read; the row's scope must still be entered then. A row
from `.values()` carries a `Sealed`, which `opened` opens; `sealed` makes one for `.update()`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core import checks
from django.core.exceptions import FieldError
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from strongroom.vault import keys

VERSION = 1
_HEAD_BYTES, _NONCE_BYTES = 5, 12


class ColumnCorrupt(Exception):
    """A sealed column is not what was sealed for this row; the text names table, column and row, never content."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the database holds: version (1), generation (4), nonce (12), ciphertext and tag."""

    stored: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value belongs. The same bytes in another place do not open."""

    column: str  # table.column
    tenant: UUID
    row: UUID

    def associated_data(self) -> bytes:
        return self.column.encode() + self.tenant.bytes + self.row.bytes


def sealed(model: type[models.Model], column: str, value: Any, *, tenant_id: UUID, row_id: UUID) -> Sealed | None:
    """For `.update(column=…)`, which knows no row. `row_id` is what the field is bound to, the row's id as a rule."""
    return _seal(Place(_column(model, column), tenant_id, row_id), value)


def opened(model: type[models.Model], column: str, value: Sealed | None, *, tenant_id: UUID, row_id: UUID) -> Any:
    """For what `.values()` gave."""
    return None if value is None else _open(Place(_column(model, column), tenant_id, row_id), value)


def _column(model: type[models.Model], column: str) -> str:
    field = model._meta.get_field(column)
    if not isinstance(field, SealedJSON):
        raise TypeError(f"{column} of {model.__name__} is not sealed")
    return f"{model._meta.db_table}.{field.column}"


def _seal(place: Place, value: Any) -> Sealed | None:
    if value is None:
        return None
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    generation, nonce = keys.current_generation(place.tenant), os.urandom(_NONCE_BYTES)
    key = AESGCM(keys.column_key(place.tenant, generation))
    head = bytes([VERSION]) + generation.to_bytes(4, "big")
    return Sealed(head + nonce + key.encrypt(nonce, plain, place.associated_data()))


def _open(place: Place, value: Sealed) -> Any:
    head, nonce = value.stored[:_HEAD_BYTES], value.stored[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES]
    corrupt = ColumnCorrupt(f"{place.column} of row {place.row} is corrupt")
    if len(nonce) != _NONCE_BYTES or head[0] != VERSION:
        raise corrupt
    key = AESGCM(keys.column_key(place.tenant, int.from_bytes(head[1:], "big")))
    try:
        plain = key.decrypt(nonce, value.stored[_HEAD_BYTES + _NONCE_BYTES :], place.associated_data())
    except InvalidTag:
        raise corrupt from None
    return json.loads(plain)


class _SealedAttribute(DeferredAttribute):
    """Opens what the database gave when somebody reads it, and keeps the plain value in its place."""

    field: SealedJSON

    def __get__(self, instance: models.Model | None, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if instance is None or not isinstance(value, Sealed):
            return value
        plain = instance.__dict__[self.field.attname] = _open(self.field.place(instance), value)
        return plain

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class SealedJSON(models.BinaryField[Any, Any]):
    """JSON in memory, AES-GCM under the tenant's field key in the database; None is NULL and is not sealed.

    `bound_to` names the UUID that the value is bound to, where the row's own id is given by the database only later.
    """

    descriptor_class = _SealedAttribute

    def __init__(self, *args: Any, bound_to: str = "id", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bound_to = bound_to

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        if self.bound_to != "id":
            kwargs["bound_to"] = self.bound_to
        return name, path, args, kwargs

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        attributes = {field.attname: field for field in self.model._meta.concrete_fields}
        bound = attributes.get(self.bound_to)
        target = bound.target_field if isinstance(bound, models.ForeignKey) else bound
        if "tenant_id" in attributes and isinstance(target, models.UUIDField):
            return super().check(**kwargs)
        hint = "Give the model a tenant and a UUID id, or name another UUID of the row by bound_to."
        return [checks.Error("a sealed column needs a tenant and a UUID to be bound to", hint=hint, obj=self)]

    def place(self, instance: models.Model) -> Place:
        tenant, row = getattr(instance, "tenant_id", None), getattr(instance, self.bound_to, None)
        if not isinstance(tenant, UUID) or not isinstance(row, UUID):
            raise TypeError(f"a row needs its tenant and its {self.bound_to} before {self.name} is sealed or opened")
        return Place(f"{instance._meta.db_table}.{self.column}", tenant, row)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Sealed | None:
        return None if value is None else Sealed(bytes(value))

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """A value that nobody opened goes back as it came."""
        value = model_instance.__dict__.get(self.attname)
        return value if isinstance(value, Sealed) else _seal(self.place(model_instance), value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None:
            return None
        if not isinstance(value, Sealed):
            raise TypeError(f"{self.name} is sealed: pass vault.services.sealed(…) to update()")
        return super().get_db_prep_value(value.stored, connection, prepared)

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != "isnull":
            raise FieldError(f"{self.name} is sealed; it can be asked for isnull only")
        return super().get_lookup(lookup_name)
