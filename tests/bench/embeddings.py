"""MiniLM's embeddings of 32 sentences by `/v1/embeddings` against sentence-transformers over the same folder.

Each in turn on the same cores; ours with the key, the limits, the JSON and the walk through the sandboxed cell.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from strongroom.operations.client import Client
from strongroom.operations.management.commands.language import minilm
from tests.bench import peers
from tests.bench.report import Figure
from tests.nodes import Node

TURNS = 15
BATCH = 32
EMBED = Path(peers.__file__).with_name("embed.py")
WORDS = (
    *("the", "bank", "a", "river", "water", "money", "ship", "harbour", "winter", "letter", "found", "under", "quiet"),
    *("garden", "of", "with", "before", "every"),
)


def texts(seed: int) -> list[str]:
    """Sentences of 4 to 40 words."""
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(4, 40))) for _ in range(BATCH)]


def measure(node: Node, api: Client) -> Iterator[Figure]:
    content = minilm()
    upload = api.call("PUT", "/api/v1/models/minilm/content?format=safetensors-zip", content)
    spec = {"kind": "import", "name": "minilm", "artefact": upload["artefact"], "model": "minilm", "task": "embedding"}
    job = api.call("POST", "/api/v1/jobs", spec, wait=60)
    assert job["state"] == "succeeded", job["error"]
    document = {"name": "minilm", "versions": [{"model": "minilm", "version": 1}]}
    assert api.call("POST", "/api/v1/deployments", document, wait=60)["state"] == "ready"
    folder = node.folder / "minilm"
    zipfile.ZipFile(BytesIO(content)).extractall(folder)
    ours, theirs = [], []
    with Peer(folder) as peer:
        _ours(api, texts(0))
        for turn in range(TURNS):
            given = texts(turn + 1)
            seconds, begins = peer.embed(given)
            theirs.append(seconds)
            seconds, vectors = _ours(api, given)
            ours.append(seconds)
            assert max(abs(a - b) for a, b in zip(vectors[0], begins, strict=False)) < 1e-3, "they embed otherwise"
    rate, baseline = (BATCH / statistics.median(found) for found in (ours, theirs))
    yield Figure.against("embeddings of MiniLM, 32 texts, sentence-transformers beside", rate, "texts/s", baseline)


def _ours(api: Client, given: list[str]) -> tuple[float, list[Any]]:
    began = time.perf_counter()
    answer = api.call("POST", "/v1/embeddings", {"model": "minilm", "input": given, "encoding_format": "float"})
    return time.perf_counter() - began, [one["embedding"] for one in answer["data"]]


class Peer:
    """sentence-transformers in its own process."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        self._process = subprocess.Popen(
            [peers.BIN / "python", EMBED, folder, str(len(os.sched_getaffinity(0)))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Peer:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def embed(self, given: list[str]) -> tuple[float, list[float]]:
        """Seconds, and how the first vector begins."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        seconds, begins = json.loads(self._process.stdout.readline())
        return seconds, begins

    def __exit__(self, *failure: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
