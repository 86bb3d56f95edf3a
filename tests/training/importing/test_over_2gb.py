"""A model of 2.4 GB from a sealed zip to its answer, each half in a sandboxed process whose memory is bounded."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from sealing import Identity, SealWriter, new_data_key
from tests.sandbox.inside import inside
from tests.training.graphs import made, node
from tests.training.importing.zips import lie

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(900)]

LAYERS, SIDE = 5, 11_000
WEIGHTS_BYTES = LAYERS * SIDE * SIDE * 4
GIB = 2**30


class Stream(io.RawIOBase):
    """What zipfile writes to when it cannot go back."""

    def __init__(self, writer: SealWriter) -> None:
        super().__init__()
        self._writer = writer

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._writer.write(data)
        return len(data)


def graph() -> onnx.ModelProto:
    """Layer i multiplies by i + 1: the answer is the input times five factorial."""
    nodes = [
        node("MatMul", f"{'x' if not i else f'h{i}'} w{i}", "y" if i == LAYERS - 1 else f"h{i + 1}")
        for i in range(LAYERS)
    ]
    tensors = [TensorProto(name=f"w{i}", dims=[SIDE, SIDE], data_type=TensorProto.FLOAT) for i in range(LAYERS)]
    for place, tensor in enumerate(tensors):
        lie(tensor, location="weights.bin", offset=place * SIDE * SIDE * 4, length=SIDE * SIDE * 4)
    shape = (TensorProto.FLOAT, ("n", SIDE))
    return made(nodes, inputs=[("x", *shape)], outputs=[("y", *shape)], initializers=tensors)


def rows(layer: int) -> Iterator[bytes]:
    for begin in range(0, SIDE, 500):
        block = np.zeros((500, SIDE), dtype="<f4")
        block[np.arange(500), np.arange(begin, begin + 500)] = layer + 1
        yield block.tobytes()


def sealed_zip(descriptor: int, key: bytes, identity: Identity) -> bytes:
    writer = SealWriter(lambda piece: os.write(descriptor, piece), key, identity)
    with zipfile.ZipFile(Stream(writer), "w") as archive:
        archive.writestr("model.onnx", graph().SerializeToString())
        with archive.open("weights.bin", "w", force_zip64=True) as file:
            for layer in range(LAYERS):
                for block in rows(layer):
                    file.write(block)
    writer.close()
    return writer.header_tag


def take_in(came: dict[str, str], goes: dict[str, str]) -> dict[str, object]:
    """As the job does it: descriptor 4 is the upload, 5 the slot."""
    import os
    from uuid import UUID

    from sealing import Identity, SealReader, SealWriter
    from training.importing import external

    def identity(about: dict[str, str], kind: str) -> Identity:
        return Identity(UUID(about["tenant"]), UUID(about["artefact"]), kind)

    def peak_bytes() -> int:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    reader = SealReader(
        4,
        bytes.fromhex(came["key"]),
        identity(came, "import"),
        header_tag=bytes.fromhex(came["tag"]),
        stored_bytes=os.fstat(4).st_size,
    )
    imported = external.take_in(reader.file(), task="embedding", classes=None, threads=2)
    writer = SealWriter(lambda piece: os.write(5, piece), bytes.fromhex(goes["key"]), identity(goes, "model"))
    for piece in imported.parts.pieces():
        writer.write(piece)
    writer.close()
    return {
        "tag": writer.header_tag.hex(),
        "size": writer.size_bytes,
        "signature": imported.signature,
        "parameters": imported.parameters,
        "peak": peak_bytes(),
    }


def serve(model: dict[str, str], signature: dict[str, object], side: int) -> dict[str, object]:
    """As the cell does it: descriptor 4 is the sealed model."""
    import os
    from uuid import UUID

    import numpy

    from inference import bundle
    from inference.engine import OnnxEngine
    from inference.memory import give_memory_back, resident_bytes
    from inference.signature import Signature
    from sealing import Identity, SealReader

    reader = SealReader(
        4,
        bytes.fromhex(model["key"]),
        Identity(UUID(model["tenant"]), UUID(model["artefact"]), "model"),
        header_tag=bytes.fromhex(model["tag"]),
        stored_bytes=os.fstat(4).st_size,
    )
    parts = bundle.read(reader)
    engine = OnnxEngine(parts.graph, Signature.from_json(signature), threads=2, weights=parts.weights)
    del parts
    give_memory_back()
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    x = numpy.arange(3 * side, dtype="f4").reshape(3, side) % 7
    answer = engine.run({"x": x}, ["y"])[0]
    return {"exact": bool((answer == x * 120).all()), "resident": resident_bytes(), "peak": peak}


def test_a_model_over_2_gib_is_taken_in_and_served_within_bounded_memory() -> None:
    came, goes = ({"tenant": str(uuid4()), "artefact": str(uuid4()), "key": new_data_key().hex()} for _ in range(2))
    with tempfile.TemporaryFile() as upload, tempfile.TemporaryFile() as slot:
        identity = Identity(UUID(came["tenant"]), UUID(came["artefact"]), "import")
        came["tag"] = sealed_zip(upload.fileno(), bytes.fromhex(came["key"]), identity).hex()
        files, both = [upload.fileno(), slot.fileno()], {"came": came, "goes": goes}
        assert inside(take_in, facts=both, descriptors=files, memory_bytes=GIB).error == "MemoryError"
        imported = inside(take_in, facts=both, descriptors=files, memory_bytes=4 * GIB)  # what a job has unasked
        assert (imported.error, imported.exit_code) == (None, None)
        facts = imported.value
        assert facts["parameters"] == LAYERS * SIDE * SIDE
        assert facts["size"] > WEIGHTS_BYTES > 2 * GIB
        assert facts["peak"] < 2.4 * WEIGHTS_BYTES
        goes["tag"] = facts["tag"]
        served = inside(
            serve,
            profile="cell-cpu",
            facts={"model": goes, "signature": facts["signature"], "side": SIDE},
            descriptors=[slot.fileno()],
            memory_bytes=5 * GIB,
        )
    assert (served.error, served.exit_code) == (None, None)
    assert served.value["exact"]
    assert served.value["resident"] < 1.3 * WEIGHTS_BYTES  # once, whatever it was while it was loaded
    print(f"peak of the import {facts['peak']}, of loading {served.value['peak']}, resident {served.value['resident']}")
