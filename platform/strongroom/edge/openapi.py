"""The edge's operations for the OpenAPI document; rest/schema.py adds them to what Django's views show.

Registers itself when it is imported (strongroom/urls.py). Knows the contract's bodies, no code of the routes; what a
view of Django's shows, too, is named and not drawn again.
"""

from __future__ import annotations

from typing import Any

from strongroom.datasets import services as datasets
from strongroom.registry import services as registry
from strongroom.rest.schema import EDGE_ROUTES, EdgeRoute

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
ANYTHING: Schema = {"type": "object", "additionalProperties": True}


def _optional(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(said: str, schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": said, "content": {media_type: {"schema": schema}}}


def _query(name: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _header(name: str, said: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": said, "schema": TEXT}


PREFER = _header("Prefer", "`wait=N`, N ≤ 60: holds the answer until it is done or N seconds passed")
BYTES: Schema = {"type": "string", "format": "binary"}
INPUTS: Schema = {"type": "object", "additionalProperties": {"type": "array"}, "description": "arrays by input name"}
ROWS: Schema = {"type": "array", "minItems": 1, "items": ANYTHING}
STATES = ["queued", "running", "succeeded", "failed", "cancelled"]

ERROR = _object(code=TEXT, message=TEXT, hint=_optional(TEXT))
ONE_PREDICTION: Schema = {
    "type": "object",
    "description": "`label`, `score`, `scores`; or `value`; or `vector`; or `outputs`, by the model's task",
    "additionalProperties": True,
}
PREDICTION = _object(
    id=TEXT,
    state={"type": "string", "enum": STATES},
    deployment=TEXT,
    model=_optional(TEXT),
    version=_optional(WHOLE),
    progress=_optional(ANYTHING),
    output=_optional(
        _object(predictions=_optional(_list(ONE_PREDICTION)), rows=WHOLE, download=_optional(TEXT)),
    ),
    error=_optional(ERROR),
    created_at=MOMENT,
    finished_at=_optional(MOMENT),
    expires_at=_optional(MOMENT),
)
CHECKS = ("database", "broker", "store", "root_keys", "sandbox", "row_security", "swap")

EDGE_ROUTES += [
    EdgeRoute(
        method="post",
        path="/api/v1/deployments/{name}/predict",
        operation_id="predict",
        summary="Predict now: rows, tensors, or a raw file",
        tag="deployments",
        scope="predict",
        request={
            "application/json": {"oneOf": [_object(rows=ROWS), _object(inputs=INPUTS)]},
            "image/png": BYTES,
            "image/jpeg": BYTES,
            "text/csv": BYTES,
            "application/x-npy": BYTES,
        },
        responses={200: _answer("The predictions, in order", _named("Predicted"))},
        schemas={
            "Predicted": _object(
                deployment=TEXT,
                model=TEXT,
                version=WHOLE,
                predictions=_list(ONE_PREDICTION),
                usage=_object(items=WHOLE, queue_ms=NUMBER, compute_ms=NUMBER),
            )
        },
    ),
    EdgeRoute(
        method="post",
        path="/api/v1/predictions",
        operation_id="predictions_create",
        summary="Predict as a job",
        tag="predictions",
        scope="predict",
        request={
            "application/json": {
                "type": "object",
                "description": "exactly one of rows, inputs and dataset is set",
                "required": ["deployment"],
                "properties": {
                    "deployment": TEXT,
                    "rows": _optional(ROWS),
                    "inputs": _optional(INPUTS),
                    "dataset": _optional(TEXT),
                },
                "additionalProperties": False,
            }
        },
        parameters=[PREFER, _header("Idempotency-Key", "1 to 255 visible ASCII characters, kept for 24 hours")],
        responses={
            201: _answer("Done within the wait", _named("Prediction")),
            202: _answer("Waits or runs; `Location` names it", _named("Prediction")),
        },
        schemas={"Prediction": PREDICTION},
    ),
    EdgeRoute(
        method="get",
        path="/api/v1/predictions",
        operation_id="predictions_list",
        summary="Predictions that have not expired, newest first",
        tag="predictions",
        scope="predict",
        parameters=[
            _query("state", {"type": "string", "enum": STATES}),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
            _query("cursor", TEXT),
        ],
        responses={
            200: _answer(
                "A page",
                _object(data=_list(_named("Prediction")), next_cursor=_optional(TEXT), has_more={"type": "boolean"}),
            )
        },
    ),
    EdgeRoute(
        method="get",
        path="/api/v1/predictions/{id}",
        operation_id="predictions_read",
        summary="One prediction",
        tag="predictions",
        scope="predict",
        parameters=[PREFER],
        responses={200: _answer("The prediction", _named("Prediction"))},
    ),
    EdgeRoute(
        method="post",
        path="/api/v1/predictions/{id}/cancel",
        operation_id="predictions_cancel",
        summary="Cancel a prediction",
        tag="predictions",
        scope="predict",
        parameters=[PREFER],
        responses={202: _answer("Asked to end", _named("Prediction"))},
    ),
    EdgeRoute(
        method="get",
        path="/api/v1/predictions/{id}/output",
        operation_id="predictions_output",
        summary="The output over a data set, in its order",
        tag="predictions",
        scope="predict",
        responses={200: _answer("JSON Lines, one prediction a line", TEXT, "application/jsonl")},
    ),
    EdgeRoute(
        method="put",
        path="/api/v1/datasets/{name}/content",
        operation_id="datasets_upload",
        summary="Upload a data set, sealed as it arrives",
        tag="datasets",
        scope="datasets:write",
        request={"application/octet-stream": BYTES},
        parameters=[
            _query("format", {"type": "string", "enum": list(datasets.FORMATS)}, required=True),
            _query("target", {"type": "string", "default": "label", "minLength": 1, "maxLength": 128}),
            _query("modality", {"type": "string", "enum": list(datasets.MODALITIES), "default": "auto"}),
            PREFER,
        ],
        responses={
            200: _answer("The newest version has these bytes already", _named("DatasetBody")),
            201: _answer("Checked within the wait", _named("DatasetBody")),
            202: _answer("Is being checked; `Location` names it", _named("DatasetBody")),
        },
    ),
    EdgeRoute(
        method="put",
        path="/api/v1/models/{name}/content",
        operation_id="models_upload",
        summary="Upload a model's file, to be imported by a job within 24 hours",
        tag="models",
        scope="models:write",
        request={"application/octet-stream": BYTES},
        parameters=[_query("format", {"type": "string", "enum": list(registry.FORMATS), "default": "onnx"})],
        responses={201: _answer("Sealed", _named("UploadedModel"))},
        schemas={
            "UploadedModel": _object(
                artefact=TEXT, model=TEXT, format=TEXT, size_bytes=WHOLE, fingerprint=TEXT, expires_at=MOMENT
            )
        },
    ),
    EdgeRoute(
        method="get",
        path="/api/v1/jobs/{id}/events",
        operation_id="jobs_events",
        summary="The job's events as they come (SSE); ends after the terminal state",
        tag="jobs",
        scope="jobs:read",
        parameters=[_header("Last-Event-ID", "the id of the last event that was seen")],
        responses={200: _answer("Events `progress`, `metric`, `state`", TEXT, "text/event-stream")},
    ),
    EdgeRoute(
        method="get",
        path="/api/v1/health/live",
        operation_id="health_live",
        summary="Whether the process lives",
        tag="health",
        responses={200: _answer("It does", _object(status=TEXT))},
    ),
    EdgeRoute(
        method="get",
        path="/api/v1/health/ready",
        operation_id="health_ready",
        summary="Whether this node serves, and what is degraded",
        tag="health",
        responses={
            200: _answer("It does", _named("Health")),
            503: _answer("It does not", _named("Health")),
        },
        schemas={"Health": _object(status=TEXT, checks=_object(**dict.fromkeys(CHECKS, TEXT)))},
    ),
]
