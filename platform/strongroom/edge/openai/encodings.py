"""POST /v1/embeddings: texts → vectors, by a deployed text encoder. A cell's word for how many tokens each text has."""

from __future__ import annotations

import asyncio
from time import perf_counter

from strongroom.deployments.client import Embedded
from strongroom.edge import core, http, limits, principals
from strongroom.edge.openai import answers, requests
from strongroom.edge.openai.embeddings import EmbeddingsRequest
from strongroom.errors import FieldError, Invalid

MAX_BODY_BYTES = 8 << 20


async def embeddings(request: http.Request) -> http.Answer:
    principal = principals.known(request) or await principals.of(request)
    body = await limits.body(request, principal.tenant_id, MAX_BODY_BYTES)
    asked = requests.read(EmbeddingsRequest, http.parse(body))
    texts = _texts(asked)
    call = await core.admit(principal, asked.model)
    try:
        served = call.served
        found = await core.ENGINES.embed(
            served.tenant, served.name, served.engine_version, texts, deadline_ms=call.left_ms
        )
        _check_width(asked, found)
    except BaseException:
        call.count(failed=True)
        raise
    finally:
        call.leave()
    tokens = sum(found.tokens)
    call.count(items=len(texts), tokens_in=tokens)
    whole = await asyncio.to_thread(answers.embeddings, asked.model, found.vectors, asked.encoding_format, tokens)
    return http.Answer(200, whole, [(b"openai-processing-ms", b"%d" % (1000 * (perf_counter() - request.began)))])


def _texts(asked: EmbeddingsRequest) -> list[str]:
    texts = [text for text in asked.input if isinstance(text, str)]
    if len(texts) < len(asked.input):
        message = "must be text: the model has a tokenizer of its own, and its tokens are none of the caller's"
        raise Invalid.all([FieldError("/input", "unsupported_value", message, None)])
    return texts


def _check_width(asked: EmbeddingsRequest, found: Embedded) -> None:
    width = found.vectors.shape[1]
    if asked.dimensions not in (None, width):
        message = f"must be {width} or left out: the model was not trained to be cut, is {asked.dimensions}"
        raise Invalid.all([FieldError("/dimensions", "unsupported_value", message, None)])
