"""Language models through everything (key, limits, metering, sandboxed cell) against the same engine bare, in one run.

The bare engine is our own scheduler over llama.cpp in a process by itself, with as many threads; each is measured in
turn, several times, and the medians compared. The client of the API runs on the same cores and reads as little as it
can: it counts chunks.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from strongroom.operations.client import Client
from strongroom.operations.management.commands.language import smollm2
from tests.bench.report import Figure
from tests.nodes import Node

TURNS = 5
PROMPT, OUTPUT = 16, 64
STREAMS = (1, 8, 32)
DEPLOYMENT = "smollm2"
CHUNK = b'"choices":[{"index":0,"text":"'
CELLS = 8192


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens a second of all streams together, and when the last stream had its first token."""

    tokens_per_second: float
    first_token_ms: float


def prompts(count: int, seed: int) -> list[list[int]]:
    """Tokens that no run has seen before, so that no beginning is kept anywhere."""
    random = np.random.default_rng(seed)
    return [row.tolist() for row in random.integers(100, 40_000, size=(count, PROMPT))]


# --- bare: `python -m tests.bench.language FILE THREADS`, one run a line of stdin ---


def bare_main(path: str, threads: int) -> None:
    from inference.language.llama import Weights
    from inference.language.requests import Sampling
    from inference.language.sampling import Sampler
    from inference.language.scheduler import Scheduler, Sequence
    from inference.language.stops import Text

    weights = Weights(os.open(path, os.O_RDONLY))
    for line in sys.stdin:
        streams, seed = json.loads(line)
        context = weights.context(sequences=32, cells=CELLS, chunk=512, threads=threads)
        scheduler = Scheduler(context, weights.vocabulary)
        began = time.perf_counter()
        for number, prompt in enumerate(prompts(streams, seed)):
            sampler = Sampler(Sampling(temperature=0), weights.vocabulary.size)
            tokens = array("i", prompt)
            scheduler.put(
                Sequence(number, 0, 0, tokens, PROMPT + OUTPUT, sampler, Text(), scope=number, ignore_end=True)
            )
        first: dict[int, float] = {}
        made = 0
        while scheduler.running or scheduler.waiting:
            for event in scheduler.step():
                made += 1
                first.setdefault(event.sequence.owner, time.perf_counter())
        seconds = time.perf_counter() - began
        context.free()
        print(json.dumps([made / seconds, (max(first.values()) - began) * 1000]), flush=True)


class Bare:
    """The bare engine in its own process, asked for one run at a time."""

    def __init__(self, path: Path, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}  # as the zygote's
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.language", str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, streams: int, seed: int) -> Run:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([streams, seed]) + "\n")
        self._process.stdin.flush()
        return Run(*json.loads(self._process.stdout.readline()))

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


# --- through the API ---


async def stream(host: str, port: int, key: str, prompt: list[int]) -> tuple[int, float]:
    """One streamed completion over a socket: how many tokens came, and when the first did."""
    body = json.dumps(
        {
            "model": DEPLOYMENT,
            "prompt": prompt,
            "max_tokens": OUTPUT,
            "temperature": 0,
            "stream": True,
            "ignore_eos": True,
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(head.encode() + body)
    came, first, seen = 0, 0.0, b""
    while data := await reader.read(1 << 16):
        if not first and CHUNK in data:
            first = time.perf_counter()
        seen += data
        came += 1
    writer.close()
    assert seen.startswith(b"HTTP/1.1 200"), seen[:400]
    return seen.count(b'"finish_reason":null'), first


def through(node: Node, key: str, streams: int, seed: int) -> Run:
    host, port = "127.0.0.1", int(node.url.rpartition(":")[2])

    async def all_of_them() -> list[tuple[int, float]]:
        return await asyncio.gather(*[stream(host, port, key, prompt) for prompt in prompts(streams, seed)])

    began = time.perf_counter()
    found = asyncio.run(all_of_them())
    seconds = time.perf_counter() - began
    assert all(count >= OUTPUT * 0.9 for count, _ in found), found  # a piece may hold two tokens of one character
    return Run(streams * OUTPUT / seconds, (max(first for _, first in found) - began) * 1000)


def deposit(api: Client) -> None:
    """Brings SmolLM2 by the front door, as Q4_0, and deploys it."""
    path = f"/api/v1/models/{DEPLOYMENT}/content?format=gguf"
    upload = api.call("PUT", path, smollm2(), content_type="application/octet-stream")
    spec = {"kind": "import", "name": DEPLOYMENT, "artefact": upload["artefact"], "model": DEPLOYMENT}
    job = api.call("POST", "/api/v1/jobs", spec | {"task": "generation", "weights": "q4_0"}, wait=60)
    assert job["state"] == "succeeded", job["error"]
    document = {"name": DEPLOYMENT, "versions": [{"model": DEPLOYMENT, "version": 1}], "batching": {"max_batch": 32}}
    deployment = api.call("POST", "/api/v1/deployments", document, wait=60)
    assert deployment["state"] == "ready", deployment["error"]


def plain_q4_0(path: Path) -> None:
    """The same weights as a plain file, for those who need one."""
    import ctypes

    from llama_cpp import llama_cpp as ll

    source = path.with_suffix(".source")
    source.write_bytes(smollm2())
    parameters = ll.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.allow_requantize = ll.LLAMA_FTYPE_MOSTLY_Q4_0, 2, True
    assert ll.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(parameters)) == 0


def measure(node: Node, api: Client, key: str) -> Iterator[Figure]:
    deposit(api)
    file = node.folder / "smollm2-q4_0.gguf"
    plain_q4_0(file)
    bare = Bare(file, len(os.sched_getaffinity(0)))
    try:
        bare.run(1, 0)
        through(node, key, 1, 0)
        for streams in STREAMS:
            ours, alone = [], []
            for turn in range(TURNS):
                seed = 1000 * streams + turn
                alone.append(bare.run(streams, seed))
                ours.append(through(node, key, streams, seed))
            rate = statistics.median(run.tokens_per_second for run in ours)
            baseline = statistics.median(run.tokens_per_second for run in alone)
            yield Figure.against(f"decode SmolLM2 Q4_0 by /v1, {streams} streams", rate, "tokens/s", baseline)
            first = statistics.median(run.first_token_ms for run in ours)
            baseline = statistics.median(run.first_token_ms for run in alone)
            yield Figure.against(f"time to first token, {streams} streams, the last", first, "ms", baseline)
    finally:
        bare.end()


if __name__ == "__main__":
    bare_main(sys.argv[1], int(sys.argv[2]))
