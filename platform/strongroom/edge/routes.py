"""The table of edge routes, and the one place where an edge request begins and ends: found, answered, failed, logged.

A path that is in the table is the edge's in every method; any other path is Django's.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from strongroom import logs
from strongroom.edge import events, health, http, native, open_inference, predictions, principals, upload
from strongroom.edge.access_log import LOG
from strongroom.edge.openai import batches, encodings, endpoints, files, tuning
from strongroom.edge.openai import errors as openai_errors
from strongroom.errors import StrongroomError
from strongroom.rest import problem
from strongroom.rest.requests import from_address

Handler = Callable[..., Awaitable[http.Answer]]
Failure = Callable[[StrongroomError, http.Request], http.Answer]

API: dict[str, dict[str, Handler]] = {
    "/api/v1/deployments/{name}/predict": {"POST": native.predict},
    "/api/v1/predictions": {"GET": predictions.listed, "POST": predictions.submit},
    "/api/v1/predictions/{id}": {"GET": predictions.read},
    "/api/v1/predictions/{id}/output": {"GET": predictions.output},
    "/api/v1/predictions/{id}/cancel": {"POST": predictions.cancel},
    "/api/v1/datasets/{name}/content": {"PUT": upload.dataset},
    "/api/v1/models/{name}/content": {"PUT": upload.model},
    "/api/v1/jobs/{id}/events": {"GET": events.events},
    "/api/v1/health/live": {"GET": health.live},
    "/api/v1/health/ready": {"GET": health.ready},
}
V2: dict[str, dict[str, Handler]] = {
    "/v2": {"GET": open_inference.server},
    "/v2/health/live": {"GET": open_inference.live},
    "/v2/health/ready": {"GET": open_inference.ready},
    "/v2/models/{name}": {"GET": open_inference.metadata},
    "/v2/models/{name}/ready": {"GET": open_inference.model_ready},
    "/v2/models/{name}/infer": {"POST": open_inference.infer},
    "/v2/models/{name}/versions/{version}": {"GET": open_inference.metadata},
    "/v2/models/{name}/versions/{version}/ready": {"GET": open_inference.model_ready},
    "/v2/models/{name}/versions/{version}/infer": {"POST": open_inference.infer},
}
V1: dict[str, dict[str, Handler]] = {
    "/v1/models": {"GET": endpoints.models},
    "/v1/models/{name}": {"GET": endpoints.model},
    "/v1/chat/completions": {"POST": endpoints.chat},
    "/v1/completions": {"POST": endpoints.completions},
    "/v1/responses": {"POST": endpoints.responses},
    "/v1/embeddings": {"POST": encodings.embeddings},
    "/v1/files": {"GET": files.listed, "POST": files.create},
    "/v1/files/{id}": {"GET": files.read, "DELETE": files.delete},
    "/v1/files/{id}/content": {"GET": files.content},
    "/v1/fine_tuning/jobs": {"GET": tuning.listed, "POST": tuning.create},
    "/v1/fine_tuning/jobs/{id}": {"GET": tuning.read},
    "/v1/fine_tuning/jobs/{id}/cancel": {"POST": tuning.cancel},
    "/v1/fine_tuning/jobs/{id}/pause": {"POST": tuning.pause},
    "/v1/fine_tuning/jobs/{id}/resume": {"POST": tuning.pause},
    "/v1/fine_tuning/jobs/{id}/events": {"GET": tuning.events},
    "/v1/fine_tuning/jobs/{id}/checkpoints": {"GET": tuning.checkpoints},
    "/v1/batches": {"GET": batches.listed, "POST": batches.create},
    "/v1/batches/{id}": {"GET": batches.read},
    "/v1/batches/{id}/cancel": {"POST": batches.cancel},
}
REMEMBERED_CHARACTERS = 256  # of a path that anybody may make long
WITHOUT_QUERY: frozenset[Handler] = frozenset(
    {
        *(native.predict, predictions.submit, predictions.read, predictions.output, predictions.cancel, events.events),
        *(endpoints.chat, endpoints.completions, endpoints.responses, endpoints.model),
        *(encodings.embeddings, files.create, files.read, files.delete, files.content),
        *(batches.create, batches.read, batches.cancel),
        *(tuning.create, tuning.read, tuning.cancel, tuning.pause),
    }
)


# Each face's paths, its words for a failure, and the beginning below which everything is its own.
FACES: tuple[tuple[dict[str, dict[str, Handler]], Failure, str | None], ...] = (
    (API, http.failure, None),
    (V2, open_inference.failure, "/v2/"),
    (V1, openai_errors.failure, "/v1/"),
)


@dataclass(slots=True)
class Node:
    """A place in the tree of paths: what may follow, and what answers when the path ends here."""

    fixed: dict[str, Node] = field(default_factory=dict)
    any: Node | None = None
    handlers: dict[str, Handler] | None = None
    failure: Failure = http.failure


def _tree() -> Node:
    root = Node()
    for table, failure, _ in FACES:
        for path, handlers in table.items():
            node = root
            for part in path.split("/"):
                if part.startswith("{"):
                    node.any = node.any or Node()
                    node = node.any
                else:
                    node = node.fixed.setdefault(part, Node())
            node.handlers, node.failure = handlers, failure
    return root


_ROOT = _tree()
_NOTHING_BELOW = {begins: Node(handlers={}, failure=failure) for _, failure, begins in FACES if begins is not None}


def find(path: str) -> tuple[Node, tuple[str, ...]] | None:
    """The node of a path and the parts that stand for its parameters; None where the path is Django's.

    All of /v1 and /v2 is the edge's: what is not there is said in that protocol's words.
    """
    found = _remembered(path) if len(path) <= REMEMBERED_CHARACTERS else _find(path)
    if found is None and (nothing := _NOTHING_BELOW.get(path[:4])) is not None:
        return nothing, ()
    return found


def _find(path: str) -> tuple[Node, tuple[str, ...]] | None:
    node, arguments = _ROOT, []
    for part in path.split("/"):
        following = node.fixed.get(part)
        if following is None:
            if (following := node.any) is None or not part:
                return None
            arguments.append(part)
        node = following
    return None if node.handlers is None else (node, tuple(arguments))


_remembered = functools.lru_cache(4096)(_find)


async def answer(scope: http.Scope, receive: http.Receive, send: http.Send) -> bool:
    """Answers the request where its path is the edge's; False, and nothing done, where it is not."""
    found = find(scope["path"])
    if found is None:
        return False
    node, arguments = found
    request = http.Request(scope, receive)
    logs.request_id.set(request.id)
    from_address.set(principals.address(request))
    result = await _handled(node, arguments, request)
    if result is not None:
        await result.send(send, request)
        log(request, result.status)
    else:
        log(request, 499)  # as nginx counts it: the caller went away
    return True


async def _handled(node: Node, arguments: tuple[str, ...], request: http.Request) -> http.Answer | None:
    handlers = node.handlers or {}
    method = "GET" if request.method == "HEAD" else request.method
    try:
        if (handler := handlers.get(method)) is not None:
            if request.scope["query_string"] and handler in WITHOUT_QUERY:
                request.query(())
            return await handler(request, *arguments)
        return _no_method(node, handlers, request)
    except StrongroomError as error:
        return node.failure(error, request)
    except http.Disconnected:
        return None
    except Exception as error:
        known = problem.from_exception(error)
        if known.code == "internal":
            problem.log_failure(error)
        return node.failure(known, request)


def _no_method(node: Node, handlers: dict[str, Handler], request: http.Request) -> http.Answer:
    if not handlers:
        return node.failure(StrongroomError(f"there is nothing at {request.path}", code="not_found"), request)
    allowed = ", ".join(sorted(handlers))
    refused = StrongroomError(f"{request.method} is not allowed here, only {allowed}", code="method_not_allowed")
    answer = node.failure(refused, request)
    answer.headers = [*answer.headers, (b"allow", allowed.encode())]
    return answer


def log(request: http.Request, status: int) -> None:
    """The access line."""
    LOG.add(request.method, request.path, status, perf_counter() - request.began, request.id)


def paths() -> dict[str, Any]:
    """Path → methods of the native face, for the schema's drift check."""
    return {path: sorted(handlers) for path, handlers in API.items()}
