"""The kind `train`: rows and a spec in, a model that can be served and what is known about it out.

Reads straight down: parts, preprocessing, network, loop, evaluation, export, proof. From outside it needs the rows, the
last checkpoint if there is one, and four functions; `run` at the end wires them to the channel, which knows the keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from training import checkpoint, preprocess
from training.channel import Channel, Start
from training.data import Array, Data, Indices, split
from training.data import load as load_data
from training.data.feed import Feed
from training.errors import Cancelled, DataRefused, DatasetContradictsSpec, Drained
from training.evaluate import Score
from training.export import OUTPUTS, PARITY_ROWS, prove, rows_of, to_onnx
from training.loop import Control, Loop, Parts, Progress, Watch
from training.losses import criterion
from training.models.catalogue import Misfit, network
from training.models.network import Served, Whole
from training.spec import TrainSpec, load, sha256
from training.watching import while_watching

ENCODED_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Outside:
    """What a training asks of its surroundings. `keep` seals a checkpoint's bytes and what is to be said about it."""

    control: Callable[[], Control]
    progress: Callable[[Progress], None]
    log: Callable[[str], None]
    keep: Callable[[memoryview, dict[str, int]], None]

    def stop_if_wanted(self) -> None:
        """While there is nothing to keep yet."""
        match self.control():
            case "cancel":
                raise Cancelled
            case "drain":
                raise Drained


@dataclass(frozen=True, slots=True)
class Trained:
    """The served file, and the facts that travel beside it (the artefact `result` of docs/formats/processes.md)."""

    model: bytes
    facts: dict[str, Any]


def train(
    spec: TrainSpec, data: Data, outside: Outside, resume: bytes | bytearray | None = None, threads: int = 1
) -> Trained:
    """One training from rows to a proved model; JobError where that is not possible."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(spec.train.deterministic)
    # Else torch fills memory that nobody has written yet, which costs 5 % of a LeNet's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # the module's own class
    training = while_watching(lambda: _Training(spec, data, outside, threads), outside.stop_if_wanted)
    outside.log(training.outline())
    if resume is not None:
        training.go_on(resume)
    training.loop.run()
    return training.finish()


class _Training:
    """The parts of one training, made in the order in which they depend on each other."""

    def __init__(self, spec: TrainSpec, data: Data, outside: Outside, threads: int) -> None:
        self.spec, self.data, self.log = spec, data, outside.log
        self.origin = checkpoint.Origin(sha256(spec), str(torch.__version__), threads)
        rows, self.validation, test = split(data, spec.split.model_dump())
        self.parts = Parts(*(torch.from_numpy(part) for part in (rows, self.validation, test)))
        self.preprocess = preprocess.fit(data, rows)
        self.output = OUTPUTS[spec.task]
        if self.output in self.preprocess.names:
            raise DatasetContradictsSpec(f"the column {self.output!r} is named like the model's output", "rename it")
        self.classes = None if data.classes is None else len(data.classes)
        self.scale = None if data.classes is not None else _scale(data.target[rows])
        torch.manual_seed(spec.train.seed)
        self.body = self._network()
        whole, feed = self._feed()
        self.loop = Loop(
            spec.train,
            network=whole,
            body=self.body,
            feed=feed,
            parts=self.parts,
            criterion=criterion(spec.train.loss.name, spec.task),
            classes=self.classes,
            watch=Watch(outside.control, outside.progress, outside.log, self._keeping(outside)),
            max_seconds=spec.resources.max_seconds,
        )

    def _network(self) -> nn.Module:
        try:
            return network(self.spec.model, self.preprocess.input_shape, self.classes or 1)
        except Misfit as misfit:
            raise DatasetContradictsSpec(f"{misfit.path}: {misfit.message}", misfit.hint) from None

    def _feed(self) -> tuple[nn.Module, Feed]:
        """What is applied to the rows: the body alone, where the preprocessed rows fit into a quarter of the memory."""
        encoded = self.preprocess.encode(self.data.inputs)
        target = torch.from_numpy(self.data.target)
        if self.scale is not None:
            mean, deviation = self.scale
            target = ((target.double() - mean) / deviation).float()
        size_bytes = 4 * self.data.rows * int(np.prod(self.preprocess.input_shape))
        if size_bytes > self.spec.resources.memory_bytes // 4:
            return Whole(self.preprocess, self.body), Feed(encoded, target)
        ready = torch.empty(self.data.rows, *self.preprocess.input_shape)
        with torch.inference_mode():
            for first in range(0, self.data.rows, ENCODED_ROWS):
                rows = slice(first, first + ENCODED_ROWS)
                ready[rows] = self.preprocess(*(one[rows] for one in encoded))
        return self.body, Feed((ready,), target)

    def _keeping(self, outside: Outside) -> Callable[[dict[str, Any]], None]:
        def keep(state: dict[str, Any]) -> None:
            outside.keep(checkpoint.pack(state, self.origin), {"epoch": self.loop.epoch, "step": self.loop.done})

        return keep

    def go_on(self, resume: bytes | bytearray) -> None:
        """From the checkpoint; from the start, and saying so, where it is not of this very run."""
        state, difference = checkpoint.unpack(resume, self.origin)
        if state is None:
            self.log(f"the checkpoint cannot be continued bit for bit ({difference}): the training starts again")
            return
        self.loop.restore(state)
        self.log(f"goes on from epoch {self.loop.epoch}, step {self.loop.done} of {self.loop.steps}")

    # ---- after the loop

    def finish(self) -> Trained:
        """Each part judged once on the weights that count; the file, proved on the validation part."""
        parts = {"train": self.parts.train, "validation": self.parts.validation, "test": self.parts.test}
        scores = {name: self.loop.evaluate(part) for name, part in parts.items()}
        model, worst = while_watching(self._export, self.loop.obey)
        self.log(f"exported {len(model)} bytes; the largest difference on real rows is {worst:.2g}")
        return Trained(model, self._facts(scores))

    def _export(self) -> tuple[bytes, float]:
        """The file, and how far it is from the network on the validation part."""
        served = Served(self.preprocess, self.body, self.scale).eval()
        rows = self.validation[:PARITY_ROWS]
        raw = rows_of(self.data.inputs, self.preprocess.inputs, rows)
        encoded = self.preprocess.encode(raw)
        with torch.inference_mode():
            expected = served(*encoded).numpy()
        example = [torch.cat([one, one])[:2].clone() for one in encoded]  # the exporter takes one row for a fixed axis
        graph = to_onnx(served, example, self.preprocess.names, self.output, self.spec.export.opset)
        model = preprocess.glue(self.preprocess, graph).SerializeToString()
        unit = 1.0 if self.scale is None else self.scale[1]
        return model, prove(model, raw, expected, self.spec.export.parity, unit)

    def _signature(self) -> dict[str, Any]:
        return {
            "inputs": self.preprocess.inputs,
            "outputs": [{"name": self.output, "datatype": "FP32", "shape": [-1, self.classes or 1]}],
            "classes": self.data.classes,
            "task": self.spec.task,
            "columns": self.preprocess.columns,
        }

    def outline(self) -> str:
        rows = ", ".join(str(len(part)) for part in self._indices())
        return f"rows to train, validate and test: {rows}; parameters: {self.parameters}"

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.body.parameters())

    def _facts(self, scores: dict[str, Score]) -> dict[str, Any]:
        metrics = {name: value for part, score in scores.items() for name, value in score.named(part).items()}
        best = self.loop.best
        return {
            "task": self.spec.task,
            "signature": self._signature(),
            "metrics": metrics,
            "evaluation": {
                "confusion": scores["test"].confusion,
                "parts": {name: {"confusion": score.confusion} for name, score in scores.items()},
                "rows": {name: len(part) for name, part in zip(scores, self._indices(), strict=True)},
                "epochs": self.loop.epoch,
                "best_epoch": None if best is None else best.epoch,
            },
            "parameters": self.parameters,
            "weights_sha256": weights_sha256(self.body),
            "torch_version": self.origin.torch_version,
            "threads": self.origin.threads,
        }

    def _indices(self) -> tuple[torch.Tensor, ...]:
        return (self.parts.train, self.parts.validation, self.parts.test)


def _scale(target: Array | Indices) -> tuple[float, float]:
    """Mean and deviation of a regression's target on the training part; a constant one is left as it is."""
    values = target.astype(np.float64)
    deviation = float(values.std())
    return float(values.mean()), deviation if deviation > 0 else 1.0


def weights_sha256(body: nn.Module) -> str:
    """SHA-256 over names and little-endian values of the weights, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(body.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---- the channel


def run(start: Start, channel: Channel) -> dict[str, Any]:
    """The job: opens the data set, trains, seals the model and its facts."""
    spec = load(start.spec)
    if not isinstance(spec, TrainSpec):
        raise TypeError("not a document of kind train")
    _refuse_other_data(spec, start.about)
    data = while_watching(partial(_rows, spec, start), channel.stop_if_wanted)
    if spec.modality not in ("auto", data.modality):
        raise DatasetContradictsSpec(f"the data set is {data.modality}, the spec says {spec.modality}", "use auto")

    def progress(news: Progress) -> None:
        channel.progress(force=bool(news.metrics), **asdict(news), fraction=news.fraction)

    def keep(blob: memoryview, about: dict[str, int]) -> None:
        channel.seal("checkpoint", lambda writer: writer.write(blob), about)

    outside = Outside(channel.control, progress, partial(channel.log, "info"), keep)
    resume = None if start.resume is None else start.opened(start.resume).read()
    trained = train(spec, data, outside, resume, start.threads)
    channel.seal("model", trained.model, {"format": "onnx"})
    channel.seal("result", json.dumps(trained.facts, allow_nan=False).encode(), {})
    return {"metrics": trained.facts["metrics"], "state": "ready", "reasons": []}


def _rows(spec: TrainSpec, start: Start) -> Data:
    """The data set, which passed its check: what it refuses now, the spec asks of it."""
    try:
        return load_data(start.reader("dataset"), {**start.about, "task": spec.task, "target": spec.target})
    except DataRefused as refused:
        raise DatasetContradictsSpec(refused.message, refused.hint) from refused


def _refuse_other_data(spec: TrainSpec, about: Mapping[str, Any]) -> None:
    wanted, found = spec.dataset.fingerprint, about.get("fingerprint")
    if wanted is not None and found is not None and wanted != found:
        raise DatasetContradictsSpec("the data set's fingerprint is not the one in the spec", f"it is {found}")
