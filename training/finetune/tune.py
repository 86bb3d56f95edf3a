"""One fine-tuning, top to bottom: base, tokens, network, loop, the adapter's file, its proof, its facts.

From outside it needs the examples, the base's sealed file, the last checkpoint if there is one, and four functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from training import checkpoint
from training.data.chat_jsonl import Conversations
from training.errors import Cancelled, DatasetContradictsSpec, Drained, JobError
from training.finetune import lora
from training.finetune.base_model import Base, open_base
from training.finetune.gate import Proof, prove
from training.finetune.llama import Llama, Weights
from training.finetune.loop import PIECE_TOKENS, Tuning
from training.finetune.lora import Adapter
from training.finetune.rows import Example, Wording, check_length, split
from training.finetune.served import Served
from training.language.memory_file import MemoryFile
from training.language.rewrite import weights_sha256
from training.language.structure import Hyperparameters
from training.loop import Control, Progress, Watch
from training.spec import FinetuneSpec, sha256
from training.spec.finetune import COLUMNS
from training.watching import while_watching

if TYPE_CHECKING:
    from sealing import SealReader

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")  # Intel's and AMD's two, Arm's; without one torch emulates it
LIBRARY_BYTES = 400 * 2**20  # torch, llama.cpp, the tokens and what malloc keeps


@dataclass(frozen=True, slots=True)
class Outside:
    """What a fine-tuning asks of its surroundings. `keep` seals a checkpoint's bytes, with what is said about it."""

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
class Tuned:
    """The adapter's file, its facts (the artefact `result` of docs/formats/processes.md), and why it is rejected."""

    adapter: MemoryFile
    facts: dict[str, Any]
    reasons: list[str]


def tune(
    spec: FinetuneSpec,
    data: Conversations,
    base: SealReader,
    outside: Outside,
    *,
    resume: bytes | bytearray | None = None,
    threads: int = 1,
    memory_bytes: int | None = None,
) -> Tuned:
    """From examples to an adapter; JobError where that is not possible."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Else torch fills memory that nobody has written yet.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # the module's own class
    tuning = _Tuning(spec, data, base, outside, threads, memory_bytes or spec.resources.memory_bytes)
    outside.log(tuning.outline())
    if spec.train.precision == "bf16" and not any(map(torch.cpu.get_capabilities().get, BF16_FEATURES)):
        outside.log("this processor does not compute bf16: it saves memory, and takes several times as long as fp32")
    if resume is not None:
        tuning.go_on(resume)
    tuning.loop.run()
    return tuning.finish()


class _Tuning:
    """The parts of one fine-tuning, made in the order in which they depend on each other."""

    def __init__(
        self,
        spec: FinetuneSpec,
        data: Conversations,
        base: SealReader,
        outside: Outside,
        threads: int,
        memory_bytes: int,
    ) -> None:
        self.spec, self.outside = spec, outside
        self.origin = checkpoint.Origin(sha256(spec), str(torch.__version__), threads)
        self.base = while_watching(partial(open_base, base), outside.stop_if_wanted)
        kept_tokens = _kept_tokens(self.base, spec, memory_bytes)
        weights = Weights(self.base, PRECISIONS[spec.train.precision], keep=True)
        while_watching(weights.read_all, outside.stop_if_wanted)
        self.served = while_watching(partial(Served, self.base.file, threads=threads), outside.stop_if_wanted)
        self.learning, self.validating = while_watching(partial(self._examples, data), outside.stop_if_wanted)
        torch.manual_seed(spec.train.seed)
        self.adapter = Adapter(spec.lora, self.base.hyperparameters, spec.train.seed)
        self.loop = Tuning(
            spec,
            adapter=self.adapter,
            network=partial(Llama, self.base, weights, self.adapter),
            learning=self.learning,
            validating=self.validating,
            watch=Watch(outside.control, outside.progress, outside.log, self._keep),
            kept_tokens=kept_tokens,
        )

    def _examples(self, data: Conversations) -> tuple[list[Example], list[Example]]:
        """The rows of both sides in tokens."""
        method = self.spec.method.name
        if (data.shape == "preferences") != (method == "dpo"):
            has = COLUMNS["dpo" if method == "supervised" else "supervised"]
            hint = f"use method.name {'dpo' if method == 'supervised' else 'supervised'}, or another data set"
            raise DatasetContradictsSpec(f"the rows have {has}, from which {method} does not learn", hint)
        wording = Wording(self.base, self.served, self.served.ends)
        context = self.base.hyperparameters.context_length
        most = min(self.spec.train.max_tokens or context, context)
        sides = split([*data.conversations, *data.preferences], self.spec.split.fractions[1], self.spec.split.seed)
        learning, validating = ([wording.example(one) for one in side] for side in sides)
        check_length([*learning, *validating], most)
        return learning, validating

    def _keep(self, state: dict[str, Any]) -> None:
        blob = checkpoint.pack(state, self.origin)
        self.outside.keep(blob, {"epoch": self.loop.epoch, "step": self.loop.done})

    def go_on(self, resume: bytes | bytearray) -> None:
        """From the checkpoint; from the start, and saying so, where it is not of this very run."""
        state, difference = checkpoint.unpack(resume, self.origin)
        if state is None:
            self.outside.log(f"the checkpoint cannot be continued bit for bit ({difference}): it starts again")
            return
        self.loop.restore(state)
        self.outside.log(f"goes on from epoch {self.loop.epoch}, step {self.loop.done} of {self.loop.steps}")

    def outline(self) -> str:
        return (
            f"rows to learn and to validate: {len(self.learning)}, {len(self.validating)}; "
            f"tokens to learn: {self._tokens}; "
            f"parameters: {self.adapter.weights} beside {self.base.card['parameters']}"
        )

    @property
    def _tokens(self) -> int:
        """That are learned in an epoch."""
        return sum(len(row.places) for example in self.learning for row in example.rows)

    # ---- after the loop

    def finish(self) -> Tuned:
        """The file, proved on the validation rows."""
        self.adapter.eval()
        file, table = lora.written(self.adapter, self.spec.name)
        with self.served:
            proof = prove(
                self.base, self.adapter, file, self.served, [*self.validating, *self.learning], self.loop.look
            )
        self.outside.log(proof.line)
        digest = weights_sha256(file, table, self.loop.look)
        return Tuned(file, self._facts(file, digest, proof), [] if proof.reason is None else [proof.reason])

    def _facts(self, file: MemoryFile, digest: str, proof: Proof) -> dict[str, Any]:
        card, spec = self.base.card, self.spec
        return {
            "format": "lora",
            "task": "generation",
            "signature": {
                "kind": "language",
                "context_length": card["context_length"],
                "vocabulary": card["vocabulary"],
                "chat": card["chat_template"],
                "tools": card["tools"],
                "weights_sha256": digest,
                "adapter": True,
                "base_sha256": self.base.weights_sha256,
            },
            "card": {
                **card,
                "name": spec.name,
                "parameters": self.adapter.weights,
                "type": "F32",
                "size_bytes": file.size_bytes,
                "adapter": "lora",
                "base": self._parent,
                "base_name": card["name"],
                "method": spec.method.name,
                "rank": spec.lora.rank,
                "alpha": spec.lora.alpha,
                "targets": spec.lora.targets,
                "epochs": self.loop.epoch,
                "rows": {"train": len(self.learning), "validation": len(self.validating)},
                "tokens": self._tokens,
                "before": self.loop.before,
                "proof": asdict(proof),
                "report": [self.outline(), proof.line],
            },
            "parent": self._parent,
            "parameters": self.adapter.weights,
            "weights_sha256": digest,
            "metrics": self.loop.metrics,
            "evaluation": None,
            "torch_version": self.origin.torch_version,
            "threads": self.origin.threads,
        }

    @property
    def _parent(self) -> str:
        return f"{self.spec.base.model}@{self.spec.base.version}"


def _kept_tokens(base: Base, spec: FinetuneSpec, memory_bytes: int) -> int:
    """How many tokens may be computed at once with everything kept for the way back. JobError out_of_memory."""
    item_bytes = PRECISIONS[spec.train.precision].itemsize
    held = base.card["parameters"] * item_bytes + base.file.size_bytes + LIBRARY_BYTES
    left = memory_bytes - held
    needed = PIECE_TOKENS * _token_bytes(base.hyperparameters, item_bytes, blocks=1)
    if left < needed:
        raise JobError(
            f"the base as {spec.train.precision} and one block's work need {held + needed} bytes, and the job may have "
            f"{memory_bytes}",
            "raise resources.memory_bytes" + ("" if item_bytes == 2 else ", or set train.precision to bf16"),
            code="out_of_memory",
        )
    return int(0.7 * left / _token_bytes(base.hyperparameters, item_bytes))


def _token_bytes(shape: Hyperparameters, item_bytes: int, blocks: int | None = None) -> int:
    """What one token leaves behind for the way back, as measured: the numbers of a block's steps."""
    inner, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    in_fp32 = 4 * (4 * shape.width + 2 * (inner + keys))
    in_precision = item_bytes * (3 * shape.width + 2 * inner + keys + 4 * shape.feed_forward)
    return (in_fp32 + in_precision) * (shape.blocks if blocks is None else blocks)
