"""The libraries that the walls are for do their work inside: a job trains a step, a cell serves after its fork."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sandbox
from tests.sandbox.inside import inside

pytestmark = pytest.mark.slow


def test_a_job_imports_numpy_and_torch_and_trains_a_step() -> None:
    def train() -> list[object]:
        import numpy
        import torch

        torch.set_num_threads(2)
        torch.manual_seed(1)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 5), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4704, 10)
        )
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        images, labels = torch.from_numpy(numpy.random.rand(16, 3, 32, 32).astype("f4")), torch.arange(16) % 10
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return [losses[2] < losses[0], torch.get_num_threads()]

    assert inside(train, memory_bytes=1 << 30).value == [True, 2]


def test_a_job_exports_onnx_and_checks_it_with_the_runtime() -> None:
    def export() -> float:
        import io

        import onnxruntime
        import torch

        net, rows = torch.nn.Linear(4, 2).eval(), torch.randn(3, 4)
        file = io.BytesIO()
        torch.onnx.export(net, (rows,), file, input_names=["x"], output_names=["y"], dynamo=False)
        session = onnxruntime.InferenceSession(file.getvalue())
        return float(abs(session.run(None, {"x": rows.numpy()})[0] - net(rows).detach().numpy()).max())

    assert inside(export, memory_bytes=1 << 30).value < 1e-5


# As inference.zygote does: everything imported, one listening socket, then per cell fork, loop, enter, session.
ZYGOTE = """
import asyncio, os, socket
import numpy, onnxruntime
import sandbox

channel = socket.socket(fileno=3)
model = channel.recv(65536)
zygote = os.getpid()
if os.fork():
    channel.recv(1, socket.MSG_PEEK)
    os._exit(0)

loop = asyncio.new_event_loop()
listening = socket.socket(fileno=4)
channel.send(str(sandbox.enter("cell-cpu", memory_bytes=1 << 30, parent=zygote)).encode())
session = onnxruntime.InferenceSession(model)

async def serve(reader, writer):
    rows = numpy.frombuffer(await reader.readexactly(16), "f4").reshape(1, 4)
    writer.write(session.run(None, {"x": rows})[0].tobytes())
    await writer.drain()
    writer.close()

async def main():
    async with await asyncio.start_unix_server(serve, sock=listening) as server:
        await server.serve_forever()

loop.run_until_complete(main())
"""


def doubling() -> bytes:
    weights = numpy_helper.from_array(np.eye(4, dtype="f4") * 2, "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [weights],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_cell_forked_from_a_warm_process_makes_its_session_inside_and_answers(tmp_path: Path) -> None:
    path = str(tmp_path / "cell.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        zygote = sandbox.start(
            [sys.executable, "-c", ZYGOTE],
            profile="cell-cpu",
            memory_bytes=1 << 30,
            descriptors=[listening.fileno()],
            mode="require",
        )
    try:
        zygote.channel.send(doubling())
        assert zygote.channel.recv(100).decode() == str(sandbox.report())
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(20)
            caller.connect(path)
            caller.sendall(np.arange(4, dtype="f4").tobytes())
            assert np.frombuffer(caller.recv(16), "f4").tolist() == [0, 2, 4, 6]
    finally:
        zygote.end()


def test_a_large_file_in_memory_is_read_again_by_name() -> None:
    def load() -> int:
        import os

        import numpy

        memory = os.memfd_create("weights")
        os.write(memory, numpy.arange(1000, dtype="f4").tobytes())
        return int(numpy.fromfile(f"/proc/self/fd/{memory}", "f4").sum())

    assert inside(load).value == 499500
