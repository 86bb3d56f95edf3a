"""What a model takes and gives: names, datatypes, shapes, classes; a request is checked against it.

The JSON form is the contract's: it travels from training or import into the registry's row, from there in a load
frame into the cell, and the edge reads it too. Knows nothing of engines, files or how an input came.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from inference.errors import InputRefused as InputRefused
from inference.protocol import DTYPES, Array, datatype_of

TASKS = ("classification", "regression", "embedding", "other")
_NUMBER_KINDS = "iuf"
MAX_PROBLEMS, MAX_NAME, MAX_COMPARED = 20, 100, 256  # a request of a million unknown names must not cost a minute


class SignatureInvalid(ValueError):
    """The document is not a signature."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output; -1 in the shape is any size, on axis 0 the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def batched(self) -> bool:
        return bool(self.shape) and self.shape[0] == -1

    def fits(self, shape: Sequence[int]) -> bool:
        if len(shape) != len(self.shape):
            return False
        for have, want in zip(shape, self.shape, strict=True):  # noqa: SIM110  # all() of a generator costs thrice this
            if have != want and want != -1:
                return False
        return True


@dataclass(frozen=True)
class Signature:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    classes: tuple[str, ...] | None = None
    task: str = "other"
    columns: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Signature:
        classes, columns = (_names(document, field) for field in ("classes", "columns"))
        inputs, outputs = (_tensors(document, field) for field in ("inputs", "outputs"))
        task = document.get("task") or _task(outputs, classes)
        if task not in TASKS:
            raise SignatureInvalid(f"task {task!r} is none of {', '.join(TASKS)}")
        return cls(inputs, outputs, classes, task, columns)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"inputs": _described(self.inputs), "outputs": _described(self.outputs)}
        document |= {"classes": list(self.classes) if self.classes is not None else None, "task": self.task}
        if self.columns is not None:
            document["columns"] = list(self.columns)
        return document

    @cached_property
    def batched(self) -> bool:
        """Whether requests may be computed together: every tensor has an open first axis."""
        return all(tensor.batched for tensor in (*self.inputs, *self.outputs))

    @cached_property
    def by_name(self) -> Mapping[str, Tensor]:
        return {tensor.name: tensor for tensor in self.inputs}

    def check(self, inputs: Mapping[str, Array]) -> int:
        """The number of items in the batch, or InputRefused with every problem of the request."""
        return self.check_shapes({name: (datatype_of(array), array.shape) for name, array in inputs.items()})

    def check_shapes(self, given: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
        """The same from datatypes and shapes alone, as they stand in a frame's header."""
        problems = self._names_refused(given)
        for tensor in self.inputs:
            if tensor.name in given and (refusal := _refusal(tensor, *given[tensor.name])):
                problems.append(refusal)
        if problems:
            raise InputRefused.of(problems)
        return self._items(given)

    def arrays(self, document: Mapping[str, Any]) -> dict[str, Array]:
        """Inputs as JSON values, nested or flat in row-major order → arrays of the model's datatypes, checked."""
        arrays: dict[str, Array] = {}
        problems = self._names_refused(document)
        for tensor in self.inputs:
            if tensor.name in document:
                try:
                    arrays[tensor.name] = from_json(tensor, document[tensor.name])
                except InputRefused as refusal:
                    problems.append(refusal)
        if problems:
            raise InputRefused.of(problems)
        self.check(arrays)
        return arrays

    def _names_refused(self, given: Mapping[str, Any]) -> list[InputRefused]:
        known = [tensor.name for tensor in self.inputs]
        refused = [
            InputRefused(f"/inputs/{name}", "missing", "is missing", _expected(self.by_name[name]))
            for name in known
            if name not in given
        ]
        unknown = islice((name for name in given if name not in self.by_name), MAX_PROBLEMS)
        return refused + [
            InputRefused(f"/inputs/{_short(name)}", "extra_forbidden", "is not an input of the model", hint)
            for name, hint in [(name, nearest(name, known)) for name in unknown]
        ]

    def _items(self, given: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
        sizes = {tensor.name: given[tensor.name][1][0] for tensor in self.inputs if tensor.batched}
        if not sizes:
            return 1
        first, items = next(iter(sizes.items()))
        for name, size in sizes.items():
            if size != items:
                hint = f"expected {items}, as '{first}' has"
                raise InputRefused(f"/inputs/{name}", "shape", f"has {size} items", hint)
        if items == 0:
            raise InputRefused(f"/inputs/{first}", "shape", "has no items", "expected at least one")
        return items


def nearest(name: str, known: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(name, known[:MAX_COMPARED], 1) if len(name) <= MAX_NAME else []
    return f"did you mean '{close[0]}'?" if close else f"expected {', '.join(known[:8])}" if known else None


def cast(tensor: Tensor, array: Array) -> Array:
    """An array of another datatype as the model's, without loss: 300 is refused for UINT8, 0.5 for INT64."""
    path = f"/inputs/{tensor.name}"
    dtype = DTYPES[tensor.datatype]
    if tensor.datatype == "BYTES":
        if array.dtype.kind not in "OUS":
            raise InputRefused(path, "datatype", f"holds {_kind(array)}", "expected text")
        return array if array.dtype.kind == "O" else array.astype(object)
    if array.dtype == dtype:
        return array
    if array.dtype.kind == "b" or tensor.datatype == "BOOL" or array.dtype.kind not in _NUMBER_KINDS:
        raise InputRefused(path, "datatype", f"holds {_kind(array)}", f"expected {_wanted(tensor)}")
    if dtype.kind == "f":
        return _to_float(path, array, dtype)
    return _to_integer(path, array, tensor.datatype)


def from_json(tensor: Tensor, value: Any) -> Array:
    path = f"/inputs/{tensor.name}"
    if tensor.datatype != "BYTES" and _holds_text(value):
        raise InputRefused(path, "datatype", "holds text", f"expected {_wanted(tensor)}")
    try:
        array = np.array(value, dtype=object if tensor.datatype == "BYTES" else None)
    except ValueError:
        raise InputRefused(path, "ragged", "has rows of different lengths", _expected(tensor)) from None
    except OverflowError:
        raise InputRefused(path, "range", "holds a number out of range", _expected(tensor)) from None
    if array.dtype.kind == "O":
        array = _objects(path, tensor, array)
    elif not array.size and array.dtype.kind == "f":
        array = array.astype(DTYPES[tensor.datatype])  # an empty list has no kind of its own
    array = cast(tensor, array)
    return array if tensor.fits(array.shape) else _unflattened(tensor, array)


def _holds_text(value: Any) -> bool:
    """Asked before numpy sees it: there every element of an array takes the room of the longest text in it."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            return True
        if isinstance(found, list):
            waiting += [inner for inner in found if isinstance(inner, str | list)]
    return False


def _objects(path: str, tensor: Tensor, array: Array) -> Array:
    if tensor.datatype == "BYTES":
        for element in array.reshape(-1).tolist():
            if not isinstance(element, str | bytes):
                kind = "rows of different lengths" if isinstance(element, list) else _json_kind(element)
                raise InputRefused(path, "datatype", f"holds {kind}", "expected text")
        return array
    for element in array.reshape(-1).tolist():
        if isinstance(element, int) and not isinstance(element, bool):
            continue
        raise InputRefused(path, "datatype", f"holds {_json_kind(element)}", f"expected numbers ({tensor.datatype})")
    raise InputRefused(path, "range", "holds a number out of range", f"expected {tensor.datatype}")


def _unflattened(tensor: Tensor, array: Array) -> Array:
    """Flat row-major data of a whole number of items takes its shape from the signature; else check() refuses it."""
    item = math.prod(tensor.shape[1:])
    if array.ndim != 1 or not array.size or not tensor.batched or item < 1 or array.size % item:
        return array
    return array.reshape(-1, *tensor.shape[1:])


def _to_float(path: str, array: Array, dtype: np.dtype[Any]) -> Array:
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype)
    except FloatingPointError:
        limit = np.finfo(dtype).max
        raise InputRefused(
            path, "range", f"holds {np.abs(array).max():.6g}", f"expected at most {limit:.6g} ({_name(dtype)})"
        ) from None


def _to_integer(path: str, array: Array, datatype: str) -> Array:
    if not array.size:
        return array.astype(DTYPES[datatype])
    limits = np.iinfo(DTYPES[datatype])
    expected = f"expected {limits.min} to {limits.max} ({datatype})"
    if array.dtype.kind == "f":
        broken = array[~(np.isfinite(array) & (array == np.trunc(array)))]
        if broken.size:
            raise InputRefused(path, "datatype", f"holds {broken.flat[0]:.6g}", f"expected whole numbers ({datatype})")
    for extreme in (array.min(), array.max()):
        if not limits.min <= int(extreme) <= limits.max:
            raise InputRefused(path, "range", f"holds {int(extreme)}", expected)
    return array.astype(DTYPES[datatype])


def _refusal(tensor: Tensor, datatype: str, shape: tuple[int, ...]) -> InputRefused | None:
    path = f"/inputs/{tensor.name}"
    if datatype != tensor.datatype:
        return InputRefused(path, "datatype", f"has datatype {datatype}", f"expected {tensor.datatype}")
    if not tensor.fits(shape):
        return InputRefused(path, "shape", f"has shape {list(shape)}", f"expected {list(tensor.shape)}")
    return None


def _expected(tensor: Tensor) -> str:
    return f"expected {tensor.datatype} of shape {list(tensor.shape)}"


def _wanted(tensor: Tensor) -> str:
    return "true or false" if tensor.datatype == "BOOL" else f"numbers ({tensor.datatype})"


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def _name(dtype: np.dtype[Any]) -> str:
    return datatype_of(np.empty(0, dtype))


def _kind(array: Array) -> str:
    return {"b": "true or false", "U": "text", "S": "text", "O": "text"}.get(array.dtype.kind, f"{array.dtype} numbers")


def _json_kind(element: object) -> str:
    return {type(None): "null", bool: "true or false", dict: "an object", str: "text", list: "a list"}.get(
        type(element), "numbers"
    )


def _names(document: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
    names = document.get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SignatureInvalid(f"{field} is not a list of names")
    return tuple(names)


def _tensors(document: Mapping[str, Any], field: str) -> tuple[Tensor, ...]:
    described = document.get(field)
    if not isinstance(described, list) or not described:
        raise SignatureInvalid(f"{field} is not a list of tensors")
    tensors = tuple(_tensor(fields, field) for fields in described)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise SignatureInvalid(f"{field} has two tensors of one name")
    return tensors


def _tensor(fields: Mapping[str, Any], field: str) -> Tensor:
    name, datatype, shape = (fields.get(key) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str) or not name or not isinstance(datatype, str) or datatype not in DTYPES:
        raise SignatureInvalid(f"{field} has a tensor without a name or a known datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= -1 for size in shape):
        raise SignatureInvalid(f"{field}: the shape of '{name}' is not a list of sizes")
    return Tensor(name, datatype, tuple(shape))


def _task(outputs: Sequence[Tensor], classes: Sequence[str] | None) -> str:
    if classes is not None or outputs[0].name == "probabilities":
        return "classification"
    return "regression" if outputs[0].name == "value" else "other"


def _described(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [{"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)} for tensor in tensors]
