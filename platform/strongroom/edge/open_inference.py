"""The Open Inference Protocol's HTTP face, /v2: live, ready, metadata, infer in JSON.

An unmodified `tritonclient.http` predicts with an `authorization` header and binary_data=False. Binary input is
refused, a wish for binary output is answered in JSON. Knows that protocol's documents; what predicting is, core.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import simdjson
from django.conf import settings

from inference.errors import InputRefused
from inference.protocol import MAX_AXES, Array, datatype_of
from inference.signature import Tensor, from_json, nearest
from strongroom import __version__
from strongroom.deployments.served import Served
from strongroom.edge import arrays, core, health, http, limits, principals
from strongroom.errors import Invalid, Malformed, StrongroomError, Unavailable
from strongroom.rest import problem

MAX_BODY_BYTES = settings.ENVIRONMENT.number("max_body_bytes")
STATUSES = {409: 400, 410: 404, 412: 400, 415: 400, 422: 400}
BINARY = "binary tensors are not taken in this version: send the data as JSON (binary_data=False)"
BRIEF_CHARACTERS = 120
Document = dict[str, Any]


def failure(error: StrongroomError, request: http.Request) -> http.Answer:
    """This protocol's error: one sentence that names the tensor, what was given and what is expected."""
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers(error)]
    return http.Answer.of(STATUSES.get(error.status, error.status), {"error": error.detail}, headers)


async def server(request: http.Request) -> http.Answer:
    return http.Answer.of(200, {"name": "strongroom", "version": __version__, "extensions": []})


async def live(request: http.Request) -> http.Answer:
    return http.Answer.of(200, {"live": True})


async def ready(request: http.Request) -> http.Answer:
    is_ready = await health.can_predict()
    return http.Answer.of(200 if is_ready else 503, {"ready": is_ready})


async def metadata(request: http.Request, name: str, version: str | None = None) -> http.Answer:
    served = await core.resolve(await principals.of(request), name, version)
    signature = served.signature.to_json()
    document = {"name": served.name, "versions": [str(served.version)], "platform": "onnxruntime_onnx"}
    return http.Answer.of(200, document | {"inputs": signature["inputs"], "outputs": signature["outputs"]})


async def model_ready(request: http.Request, name: str, version: str | None = None) -> http.Answer:
    served = await core.resolve(await principals.of(request), name, version)
    if not core.ENGINES.is_ready(served.tenant, served.name, served.engine_version):
        raise Unavailable(f"the model of {name!r} is not loaded")
    return http.Answer.of(200, {"name": served.name, "ready": True})


async def infer(request: http.Request, name: str, version: str | None = None) -> http.Answer:
    principal = principals.known(request) or await principals.of(request)
    if b"inference-header-content-length" in request.headers:
        raise Malformed(BINARY)
    if request.header(b"content-encoding").lower() not in {"", "identity"}:
        raise Malformed("a compressed body is not taken in this version: send it as it is")
    body = await limits.body(request, principal.tenant_id, MAX_BODY_BYTES)
    asked = Asked(body)
    is_large = len(body) > core.LARGE_BYTES
    result = await core.predict(
        principal, name, asked.read, version=version, deadline_ms=asked.deadline_ms, is_large=is_large
    )
    return http.Answer(200, await core.written(result, asked.written))


class Asked:
    """One infer request: what it carries, and how its answer must look."""

    __slots__ = ("body", "deadline_ms", "document", "id", "wanted")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.document: Document | None = None  # the slow path's
        self.id: str | None = None
        self.wanted: list[str] | None = None
        self.deadline_ms: int | None = None
        if b'"timeout"' in body or b'"classification"' in body:  # rare: then the head is read before the core
            self._read_head(self._parsed())

    def read(self, served: Served) -> core.Inputs:
        found = self._fast(served) if self.document is None else None
        if found is None:
            found = self._thorough(served)
        if self.wanted is not None:
            self._check_wanted(served)
        core.check(served, found)
        return found

    def _check_wanted(self, served: Served) -> None:
        known = [tensor.name for tensor in served.signature.outputs]
        for name in self.wanted or ():
            if name not in known:
                raise Invalid(f"output '{_brief(name)}' is not one of the model's: {', '.join(known)}")

    def written(self, result: core.Result) -> bytes:
        return orjson.dumps(self.answer(result), option=orjson.OPT_SERIALIZE_NUMPY)

    def answer(self, result: core.Result) -> Document:
        outputs = result.tensors()
        names = self.wanted or list(outputs)
        document: Document = {"model_name": result.served.name, "model_version": str(result.served.version)}
        if self.id is not None:
            document["id"] = self.id
        document["outputs"] = [_output(name, outputs[name]) for name in names]
        return document

    # --- the common case: tensors of numbers, straight from simdjson

    def _fast(self, served: Served) -> dict[str, Array] | None:
        parsed = arrays.parse(self.body)
        if not isinstance(parsed, simdjson.Object):
            return None
        inputs = parsed.get("inputs")
        if not isinstance(inputs, simdjson.Array) or len(inputs) != len(served.signature.inputs):
            return None
        found: dict[str, Array] = {}
        seen = 1
        for given in inputs:
            if not isinstance(given, simdjson.Object):
                return None
            tensor = served.signature.by_name.get(str(given.get("name")))
            if tensor is None or given.get("datatype") != tensor.datatype:
                return None
            array, brackets = _numbers(given, tensor)
            if array is None:
                return None
            found[tensor.name] = array
            seen += brackets
        others = [key for key in parsed if key != "inputs"]
        if len(found) != len(served.signature.inputs) or self.body.count(b"[") != seen + ("outputs" in others):
            return None
        try:
            # asking simdjson for a key that is not there costs 7 µs, more than the tensor
            self._read_head({key: _plain(parsed[key]) for key in others})
        except KeyError:  # simdjson reads a name to its first null character
            return None
        return found

    # --- everything else, right or wrong

    def _parsed(self) -> Document:
        if self.document is None:
            document = http.parse(self.body)
            if not isinstance(document, dict):
                raise Malformed("the body must be a JSON object with 'inputs'")
            self.document = document
        return self.document

    def _read_head(self, document: Document) -> None:
        """id, parameters and wanted outputs."""
        given_id, outputs = (document.get(key) for key in ("id", "outputs"))
        if given_id is not None and not isinstance(given_id, str):
            raise Malformed("'id' must be text")
        self.id = given_id
        timeout_us = _parameters(document).get("timeout")
        if timeout_us is not None:
            if type(timeout_us) is not int or timeout_us < 0:
                raise Malformed("parameter 'timeout' must be a whole number of microseconds")
            self.deadline_ms = max(1, timeout_us // 1000) if timeout_us else None
        if outputs:
            self.wanted = _wanted(outputs)

    def _thorough(self, served: Served) -> dict[str, Array]:
        document = self._parsed()
        self._read_head(document)
        inputs = document.get("inputs")
        if not isinstance(inputs, list) or not all(isinstance(given, dict) for given in inputs):
            raise Malformed("'inputs' must be a list of tensors")
        found: dict[str, Array] = {}
        for given in inputs:
            name = given.get("name")
            tensor = served.signature.by_name.get(name) if isinstance(name, str) else None
            if tensor is None:
                hint = nearest(str(name), list(served.signature.by_name))
                raise Invalid(f"input '{_brief(name)}' is not an input of the model" + (f", {hint}" if hint else ""))
            if name in found:
                raise Invalid(f"input '{name}' is given twice")
            found[tensor.name] = _tensor(given, tensor)
        return found


def _wanted(outputs: Any) -> list[str]:
    if not isinstance(outputs, list) or not all(
        isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs
    ):
        raise Malformed("'outputs' must be a list of objects with a name")
    for output in outputs:
        if "classification" in _parameters(output):
            raise Malformed(
                f"output '{_brief(output['name'])}': the classification extension is not built in this version"
            )
    names = [output["name"] for output in outputs]
    if len(set(names)) < len(names):
        raise Malformed("'outputs' names an output twice")
    return names


def _brief(value: Any) -> str:
    """What the caller wrote, as far as a person reads it again."""
    return str(value)[:BRIEF_CHARACTERS]


def _parameters(given: Document) -> Document:
    parameters = given.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Malformed("'parameters' must be an object")
    return parameters


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _numbers(given: Any, tensor: Tensor) -> tuple[Array | None, int]:
    """A numeric tensor, flat or nested, of the shape it says, and the brackets it should be written with; None for the
    slow path."""
    shape, data = given.get("shape"), given.get("data")
    if not isinstance(shape, simdjson.Array) or not isinstance(data, simdjson.Array) or not len(data):
        return None, 0
    told: list[Any] = shape.as_list()
    if not all(type(size) is int for size in told) or not tensor.fits(told):
        return None, 0
    is_nested = isinstance(data[0], simdjson.Array)
    if is_nested and arrays.shape_of(data) != tuple(told):
        return None, 0
    flat = arrays.flat_numbers(data, tensor)
    if flat is None or flat.size != math.prod(told):
        return None, 0
    return flat.reshape(told), 1 + (arrays.brackets(told) if is_nested else 1)


def _tensor(given: Document, tensor: Tensor) -> Array:
    """One input, thoroughly: Invalid names the tensor, what was given and what is expected."""
    name = tensor.name
    parameters = _parameters(given)
    if "data" not in given:
        raise Malformed(BINARY if "binary_data_size" in parameters else f"input '{name}' has no data")
    if given.get("datatype") != tensor.datatype:
        raise Invalid(f"input '{name}' has datatype {_brief(given.get('datatype'))}, expected {tensor.datatype}")
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Invalid(f"input '{name}' has shape {_brief(shape)}, expected {list(tensor.shape)}")
    try:
        array = from_json(tensor, given["data"])
    except InputRefused as refusal:
        raise Invalid(refusal.message) from None
    if not tensor.fits(shape):
        raise Invalid(f"input '{name}' has shape {shape[: 2 * MAX_AXES]}, expected {list(tensor.shape)}")
    if not array.size:
        raise Invalid(f"input '{name}' has no items, expected at least one")
    if array.size != math.prod(shape):
        raise Invalid(f"input '{name}' has {array.size} elements, expected {math.prod(shape)} for shape {shape}")
    return array.reshape(shape)


def _output(name: str, array: Array) -> Document:
    flat = array.reshape(-1)
    data: Any = np.ascontiguousarray(flat)
    if array.dtype.kind in "OSU":
        data = [
            element.decode("utf-8", "replace") if isinstance(element, bytes) else element for element in flat.tolist()
        ]
    return {"name": name, "datatype": datatype_of(array), "shape": list(array.shape), "data": data}
