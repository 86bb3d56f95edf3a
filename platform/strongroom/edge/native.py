"""POST /api/v1/deployments/{name}/predict: rows, tensors in JSON, or a raw file; predictions in the model's own words.

Reads and writes JSON. What a prediction may do and where it is computed is core.py; a raw file and rows are decoded in
the cell, never here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from django.conf import settings

from inference.protocol import ROWS
from strongroom.deployments.served import Served
from strongroom.edge import arrays, core, http, limits, principals
from strongroom.errors import FieldError, Invalid

RAW = ("image/png", "image/jpeg", "text/csv", "application/x-npy")
FIELDS = ("rows", "inputs")
MAX_BODY_BYTES = settings.ENVIRONMENT.number("max_body_bytes")


async def predict(request: http.Request, name: str) -> http.Answer:
    principal = principals.known(request) or await principals.of(request)
    body = await limits.body(request, principal.tenant_id, MAX_BODY_BYTES)
    is_json = request.headers.get(b"content-type") == http.JSON
    read: Callable[[Served], core.Inputs] = partial(read_json, body) if is_json else partial(_read, request, body)
    result = await core.predict(principal, name, read, is_large=len(body) > core.LARGE_BYTES)
    return http.Answer(200, await core.written(result, _written))


def _written(result: core.Result) -> bytes:
    return orjson.dumps(document(result), option=orjson.OPT_SERIALIZE_NUMPY)


def _read(request: http.Request, body: bytes, served: Served) -> core.Inputs:
    media_type = request.media_type
    if media_type in RAW:
        return core.Raw(media_type, body)
    if media_type in {"application/json", ""}:
        return read_json(body, served)
    raise http.unsupported(media_type, ["application/json", *RAW])


def read_json(body: bytes, served: Served) -> core.Inputs:
    """`{"inputs": …}` or `{"rows": …}`; every problem at once."""
    found = arrays.inputs(body, served.signature.inputs)
    if found is None:
        return _thorough(http.parse(body), served)
    if len(found) > 1 or not next(iter(found.values())).size:
        core.check(served, found)  # as many items in each; one alone was seen to fit
    return found


def _thorough(document: Any, served: Served) -> core.Inputs:
    if not isinstance(document, dict):
        raise Invalid.field("", "must be a JSON object with 'rows' or 'inputs'")
    rows, inputs = check_fields(document)
    if rows is not None:
        return core.Raw(ROWS, orjson.dumps(rows))
    return core.arrays(served, inputs)


def check_fields(document: dict[str, Any], others: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Exactly one of rows and inputs (of those and `others`), of the right kind; Invalid with every problem."""
    choice = (*FIELDS, *others)
    problems = http.forbidden_fields(document, choice)
    given = [field for field in choice if document.get(field) is not None]
    if len(given) != 1 and not problems:
        which = "none of them" if not given else " and ".join(given)
        problems.append(FieldError("", "one_of", f"must have exactly one of {', '.join(choice)}, has {which}"))
    rows, inputs = document.get("rows"), document.get("inputs")
    if rows is not None and not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        problems.append(FieldError("/rows", "rows", "must be a list of at least one object", '[{"column": value}]'))
    if inputs is not None and not isinstance(inputs, dict):
        problems.append(FieldError("/inputs", "inputs", "must be an object of arrays by input name"))
    if problems:
        raise Invalid.all(problems)
    return rows, inputs


def document(result: core.Result) -> dict[str, Any]:
    served = result.served
    return {
        "deployment": served.name,
        "model": served.model,
        "version": served.version,
        "predictions": result.predictions(),
        "usage": {
            "items": result.items,
            "queue_ms": result.queue_us / 1000,
            "compute_ms": result.compute_us / 1000,
        },
    }
