"""Language models through everything (key, limits, metering, sandboxed cell) against the same engine bare, and against
llama.cpp's own server as xllamacpp has it, in one run.

The bare engine is our own scheduler over llama.cpp in a process by itself, with as many threads; each is measured in
turn, several times, and the medians compared. The client of both HTTP faces runs on the same cores and does as little
as it can until all is over.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from strongroom.operations.client import Client
from strongroom.operations.management.commands.language import smollm2
from tests import servers
from tests.bench import peers
from tests.bench.report import Figure
from tests.nodes import Node

TURNS = 5
PROMPT, OUTPUT = 16, 64
STREAMS = (1, 8, 32)
DEPLOYMENT = "smollm2"
LLAMA_SERVER = Path(peers.__file__).with_name("llama_server.py")
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


@dataclass(frozen=True, slots=True)
class Face:
    """An HTTP server that streams completions: what a chunk with text has in it, and what it is asked with."""

    port: int
    path: str
    mark: bytes
    asked: dict[str, Any]
    key: str = ""

    def request(self, prompt: list[int]) -> bytes:
        body = json.dumps(self.asked | {"prompt": prompt})
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return (head + kind + body).encode()


def ours(node: Node, key: str) -> Face:
    asked = {"model": DEPLOYMENT, "max_tokens": OUTPUT, "temperature": 0, "stream": True, "ignore_eos": True}
    return Face(node.port, "/v1/completions", b'"finish_reason":null', asked, key)


def llama_server(port: int) -> Face:
    asked = {"n_predict": OUTPUT, "temperature": 0, "stream": True, "ignore_eos": True, "cache_prompt": False}
    return Face(port, "/completion", b'"stop":false', asked)


def through(face: Face, streams: int, seed: int) -> Run:
    """Each prompt on a connection of its own, all at once; read by one thread that only waits and appends."""
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for prompt in prompts(streams, seed):
            connection = socket.create_connection(("127.0.0.1", face.port))
            connection.sendall(face.request(prompt))
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, Heard())
        first: list[float] = []
        heard: list[Heard] = [key.data for key in selector.get_map().values()]
        while selector.get_map():
            for key, _ in selector.select():
                connection = cast(socket.socket, key.fileobj)
                data = connection.recv(1 << 16)
                if not data:
                    selector.unregister(connection)
                    connection.close()
                elif not key.data.has_begun and face.mark in data:
                    key.data.has_begun = True
                    first.append(time.perf_counter())
                key.data.pieces.append(data)
    seconds = time.perf_counter() - began
    for one in heard:
        whole = b"".join(one.pieces)
        assert whole.startswith(b"HTTP/1.1 200"), whole[:400]
        assert whole.count(face.mark) >= OUTPUT * 0.9, whole[-400:]  # a piece may hold two tokens of one character
    return Run(streams * OUTPUT / seconds, (max(first) - began) * 1000)


@dataclass(slots=True)
class Heard:
    """What came on one connection."""

    pieces: list[bytes] = field(default_factory=list)
    has_begun: bool = False


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


def measure(node: Node, key: str, file: Path) -> Iterator[Figure]:
    """`file` has the deployment's weights in plain."""
    threads = len(os.sched_getaffinity(0))
    bare, face, port = Bare(file, threads), ours(node, key), servers.free_port()
    log = node.logs / "llama-server.log"
    command = [peers.BIN / "python", LLAMA_SERVER, file, str(port), str(threads), str(max(STREAMS))]
    try:
        with peers.running(command, log) as server:
            peers.until_it_answers(f"http://127.0.0.1:{port}/health", server, log)
            yield from _side_by_side(
                {
                    "bare": bare.run,
                    "ours": partial(through, face),
                    "theirs": partial(through, llama_server(port)),
                }
            )
    finally:
        bare.end()


def _side_by_side(runs: dict[str, Callable[[int, int], Run]]) -> Iterator[Figure]:
    for run in runs.values():
        run(1, 0)  # warm
    for streams in STREAMS:
        found: dict[str, list[Run]] = {name: [] for name in runs}
        for turn in range(TURNS):
            for name, run in runs.items():
                found[name].append(run(streams, 1000 * streams + turn))
        rate = {name: statistics.median(run.tokens_per_second for run in of) for name, of in found.items()}
        first = {name: statistics.median(run.first_token_ms for run in of) for name, of in found.items()}
        decode = f"decode SmolLM2 Q4_0 by /v1, {streams} streams"
        yield Figure.against(f"{decode}, the bare engine beside", rate["ours"], "tokens/s", rate["bare"])
        yield Figure.against(f"{decode}, xllamacpp's server beside", rate["ours"], "tokens/s", rate["theirs"])
        name = f"first token of the last of {streams} streams, the bare engine beside"
        yield Figure.against(name, first["ours"], "ms", first["bare"])


if __name__ == "__main__":
    bare_main(sys.argv[1], int(sys.argv[2]))
