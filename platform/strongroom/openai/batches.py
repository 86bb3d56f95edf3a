"""The body of POST /v1/batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strongroom.openai.requests import Document, Metadata
from training.spec import BatchEndpoint


class ExpiresAfter(Document):
    """When the files of the answers end."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class BatchRequest(Document):
    input_file_id: Annotated[str, Field(min_length=1, max_length=200)]
    endpoint: BatchEndpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
