"""A language model taken in: read, checked, written in the type that is wanted, tried by llama.cpp, described.

    write, facts = take_in(reader, "gguf", spec, threads=2, watch=channel.stop_if_wanted)
    channel.seal("model", write, {"format": "gguf"})

What `write` gives are the very bytes that were tried. Knows sealed readers and writers, no jobs and no channel.
Importing this fails with ImportError where the extra `language` is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tokenizers  # noqa: F401  # here, so that a worker without the extra finds out at once

from training.errors import ImportRefused
from training.language import card, convert, gguf, parity, structure, tokenizer, vocabulary
from training.language.folder import Folder
from training.language.gguf import Head
from training.language.library import llama_cpp
from training.language.memory_file import MemoryFile
from training.language.rewrite import Look, requantized, weights_sha256
from training.language.trial import Trial
from training.language.vocabulary import Vocabulary
from training.watching import while_watching

if TYPE_CHECKING:
    from sealing import SealReader, SealWriter

llama_cpp()  # as above

Format = Literal["gguf", "safetensors-zip"]
Facts = dict[str, Any]
WEIGHTS = ("keep", "q4_0", "bf16")
PROMPT = "Hello, is anybody there?"
# Threads wait for each other after every layer: on a busy machine two took 4.4 s for the prompt and one 0.07 s.
TRIAL_THREADS = 1


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What would be served, the tokenizer that it came with, and what is to be said of where it is from."""

    file: MemoryFile
    own: parity.Cut | None
    origin: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Described:
    """What the head alone says, after every rule."""

    head: Head
    hyperparameters: structure.Hyperparameters
    words: Vocabulary
    template: str | None


def take_in(
    reader: SealReader, format: Format, spec: Mapping[str, Any], *, threads: int, watch: Look
) -> tuple[Callable[[SealWriter], None], Facts]:
    """How to write the model that is served, and what is known of it. `spec` has `weights` (keep, q4_0, bf16; a folder
    of safetensors cannot be kept, its `keep` is bf16) and `name`. `watch` is called often, in the calling thread, and
    raises to end it."""
    wanted = spec.get("weights") or "keep"
    if wanted not in WEIGHTS:
        raise ValueError(f"weights {wanted!r} are none of {WEIGHTS}")
    if format == "gguf":
        candidate = _from_gguf(reader, wanted, threads, watch)
    else:
        candidate = _from_folder(reader, str(spec.get("name") or ""), wanted, threads, watch)
    found, texts = while_watching(lambda: _tried(candidate), watch)
    facts = {
        "card": card.card(found.head, found.hyperparameters, found.words, found.template),
        "parameters": structure.parameters(found.head.tensors),
        "weights_sha256": weights_sha256(candidate.file, found.head.tensors, watch),
        "report": [*candidate.origin, *_checked(candidate, found, texts)],
    }

    def write(writer: SealWriter) -> None:
        for piece in candidate.file.pieces():
            watch()
            writer.write(piece)

    return write, facts


def _from_gguf(reader: SealReader, wanted: str, threads: int, watch: Look) -> _Candidate:
    head = while_watching(lambda: _described(gguf.read_head(reader.read, reader.size_bytes)).head, watch)
    file, _ = requantized(reader.read, head, wanted, threads=threads, watch=watch)
    origin = [f"GGUF version {head.version}: {len(head.fields)} keys, {len(head.tensors)} tensors, all a llama's"]
    if wanted != "keep":
        origin.append(f"weights written anew as {wanted}, from {structure.majority_type(head.tensors)}")
    return _Candidate(file, None, origin)


def _from_folder(reader: SealReader, name: str, wanted: str, threads: int, watch: Look) -> _Candidate:
    wanted = "bf16" if wanted == "keep" else wanted

    def planned() -> convert.Plan:
        plan = convert.planned(Folder(reader.file()), name, wanted, threads=threads)
        _described(plan.head)
        return plan

    plan = while_watching(planned, watch)
    file, head = plan.written(watch)
    origin = f"safetensors of a LlamaForCausalLM: {len(head.tensors)} tensors, weights written as {wanted}"
    return _Candidate(file, plan.own.cut, [origin])


def _described(head: Head) -> _Described:
    """Everything that a head can show to be wrong."""
    structure.check_kind(head.fields)
    words = vocabulary.read(head.fields)
    tokenizer.splitting(words.pre)
    if tokenizer.adds_begin(words) and words.begin is None:
        raise gguf.refused("vocabulary", "a begin token goes before every prompt, and none is named")
    hyperparameters = structure.check(head, len(words.tokens))
    return _Described(head, hyperparameters, words, card.chat_template(head, words))


def _tried(candidate: _Candidate) -> tuple[_Described, int]:
    """What the file itself says now, and the number of texts that were cut alike; the model has answered by then."""
    found = _described(gguf.read_head(candidate.file.read, candidate.file.size_bytes))
    with Trial(candidate.file, threads=TRIAL_THREADS) as trial:
        texts = parity.check(found.words, trial, candidate.own)
        logits = trial.logits(trial.tokens(PROMPT, special=False))
    if not np.isfinite(logits).all():
        raise ImportRefused(
            "the model answers a short prompt with numbers that are not finite",
            "check that llama.cpp serves this very file",
            code="model_not_finite",
        )
    return found, texts


def _checked(candidate: _Candidate, found: _Described, texts: int) -> list[str]:
    who = "llama.cpp and the tokenizer rebuilt from the head"
    who += "" if candidate.own is None else " and the model's own"
    lines = [
        "every number of the weights is finite, and so is llama.cpp's answer to a prompt",
        f"{texts} texts are cut into the same tokens by {who}",
        "no chat template" if found.template is None else "the chat template renders a first message",
    ]
    if silent := found.words.silent_bytes():
        shown = ", ".join(f"0x{byte:02x}" for byte in silent[:32])
        lines.append(f"no token stands for the bytes {shown}: they are left out of texts")
    return lines
