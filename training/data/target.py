"""What a target means: classes or numbers, as the task says or, before any task is known, as the values suggest.

Knows raw values and names only. Class names are sorted by number where all of them are whole numbers, else as text.
"""

from __future__ import annotations

import numpy as np

from training.data.limits import LIMITS
from training.data.rows import Array
from training.errors import DataRefused, DatasetContradictsSpec

MOST_GUESSED_CLASSES = 100  # whole numbers in a column of numbers: more values than this are taken for a quantity


def interpret(name: str, raw: Array, task: str | None) -> tuple[Array, list[str] | None]:
    """The target as training takes it. Without a task: texts and few whole numbers are classes."""
    _refuse_missing(name, raw)
    if task == "regression":
        return _numbers(name, raw), None
    if task == "classification":
        return _classes(name, raw)
    if raw.dtype == object or _looks_like_classes(raw):
        return _codes(name, raw)
    return _numbers(name, raw), None


def class_order(names: list[str]) -> list[str]:
    """`2` before `10` where all are whole numbers, else by text."""
    if all(_is_whole(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _is_whole(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18


def _refuse_missing(name: str, raw: Array) -> None:
    if raw.dtype == object:
        bad = np.flatnonzero(raw == "")
    elif raw.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(raw))
    else:
        return
    if len(bad):
        raise DataRefused(
            f"row {bad[0] + 1}: the target {name!r} is missing or not a finite number; {len(bad)} rows in all",
            "leave out the rows without a target",
            code="target_missing",
        )


def _looks_like_classes(raw: Array) -> bool:
    if raw.dtype.kind == "f":
        whole = (raw == np.round(raw)).all() and _names_whole_numbers(raw)
        return bool(whole) and len(np.unique(raw)) <= MOST_GUESSED_CLASSES
    return len(np.unique(raw)) <= LIMITS.classes


def _names_whole_numbers(raw: Array) -> bool:
    """Whether its whole numbers are all told apart, and are in int64."""
    return bool((np.abs(raw) <= 2**53).all())


def _numbers(name: str, raw: Array) -> Array:
    if raw.dtype == object:
        raise DatasetContradictsSpec(
            f"the target {name!r} holds texts, regression needs a column of numbers",
            "choose another target, or the task classification",
        )
    return raw.astype(np.float32)


def _classes(name: str, raw: Array) -> tuple[Array, list[str]]:
    if raw.dtype.kind == "f" and not (raw == np.round(raw)).all():
        raise DatasetContradictsSpec(
            f"the target {name!r} holds fractions, classification needs classes",
            "choose another target, or the task regression",
        )
    if raw.dtype.kind == "f" and not _names_whole_numbers(raw):
        raise DatasetContradictsSpec(
            f"the target {name!r} holds numbers over 2**53, which are not told apart as classes",
            "write the classes as texts, or choose the task regression",
        )
    codes, names = _codes(name, raw)
    if len(names) < 2:
        raise DatasetContradictsSpec(
            f"the target {name!r} has the one class {names[0]!r}, classification needs at least two",
            "add rows of another class",
        )
    return codes, names


def _codes(name: str, raw: Array) -> tuple[Array, list[str]]:
    if raw.dtype.kind in "fb":
        raw = raw.astype(np.int64)
    values, positions = np.unique(raw, return_inverse=True)
    found = [str(value) for value in values]
    if len(found) > LIMITS.classes:
        raise DataRefused(
            f"the target {name!r} has {len(found)} classes, {LIMITS.classes} are the most",
            "choose another target",
            code="too_many_classes",
        )
    for one in found:
        if len(one) > LIMITS.name_characters:
            raise DataRefused(
                f"a class of the target {name!r} has a name of {len(one)} characters",
                f"{LIMITS.name_characters} are the most",
                code="class_name_too_long",
            )
    names = class_order(found)
    place = {one: position for position, one in enumerate(names)}
    order = np.array([place[one] for one in found], dtype=np.int64)
    return order[positions.reshape(-1)], names
