"""POST /v1/embeddings: texts → vectors, by a deployed text encoder, whose cell says how many tokens each text has."""

from __future__ import annotations

import asyncio

from strongroom.edge import core, http, limits, principals
from strongroom.edge.language import SPEAKER
from strongroom.edge.openai.headers import headers
from strongroom.openai import answers, requests
from strongroom.openai.embeddings import EmbeddingsRequest

MAX_BODY_BYTES = 8 << 20


async def embeddings(request: http.Request) -> http.Answer:
    principal = principals.known(request) or await principals.of(request)
    body = await limits.body(request, principal.tenant_id, MAX_BODY_BYTES)
    if request.media_type != "application/json":
        raise http.unsupported(request.media_type, ["application/json"])
    asked = requests.read(EmbeddingsRequest, http.parse(body))
    texts = asked.texts  # what it refuses takes no place
    call = await core.admit(principal, asked.model)
    found = await request.while_there(SPEAKER.embed(call, texts))
    asked.check_width(found.vectors.shape[1])
    tokens = sum(found.tokens)
    whole = await asyncio.to_thread(answers.embeddings, asked.model, found.vectors, asked.encoding_format, tokens)
    return http.Answer(200, whole, headers(request, call))
