"""The base of a fine-tuning: the file that is served, in memory, and what its head says.

It was taken in by an import, so what is checked again here cannot surprise; what is new is whether it can be taught.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chat import Template
from training.errors import JobError
from training.language import card, gguf, structure, vocabulary
from training.language.gguf import Field, Head
from training.language.memory_file import MemoryFile
from training.language.rewrite import weights_sha256
from training.language.structure import Hyperparameters
from training.language.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sealing import SealReader

PIECE_BYTES = 4 * 2**20
Look = Callable[[], object]


class BaseUnsuitable(JobError):
    """The base can be served and cannot be taught here."""

    code = "base_unsuitable"


@dataclass(frozen=True, slots=True)
class Base:
    """`rope_scale`: positions are multiplied by it (linear scaling); `card`: as an import describes the model."""

    file: MemoryFile
    head: Head
    hyperparameters: Hyperparameters
    words: Vocabulary
    template: Template
    rope_scale: float
    weights_sha256: str
    card: dict[str, Any]

    @property
    def is_tied(self) -> bool:
        return all(tensor.name != "output.weight" for tensor in self.head.tensors)


def open_base(reader: SealReader) -> Base:
    """The base in this process's memory; BaseUnsuitable."""
    file = MemoryFile()
    for offset in range(0, reader.size_bytes, PIECE_BYTES):
        file.write(reader.read(offset, min(PIECE_BYTES, reader.size_bytes - offset)))
    file.seal()
    head = gguf.read_head(file.read, file.size_bytes)
    words = vocabulary.read(head.fields)
    hyperparameters = structure.check(head, len(words.tokens))
    source = card.chat_template(head, words)
    if source is None:
        raise BaseUnsuitable("the base has no chat template to write conversations by", "choose a base that chats")
    template = Template(source, bos=words.text(words.begin), eos=words.text(words.end))
    return Base(
        file=file,
        head=head,
        hyperparameters=hyperparameters,
        words=words,
        template=template,
        rope_scale=_rope_scale(head),
        weights_sha256=weights_sha256(file, head.tensors, lambda: None),
        card=card.card(head, hyperparameters, words, source),
    )


def _rope_scale(head: Head) -> float:
    """As llama.cpp reads it: a factor of 0 is none, and without a type it is linear."""

    def value(name: str, otherwise: Any) -> Any:
        return head.fields.get(f"{structure.ARCHITECTURE}.rope.{name}", Field("", otherwise)).value

    kind = value("scaling.type", "linear")
    if kind == "yarn" or value("scaling.attn_factor", 1.0) != 1.0:
        raise BaseUnsuitable(
            "the base scales its rope by yarn", "choose a base without it: linear and llama 3 are known"
        )
    factor = value("scaling.factor", 0.0) or value("scale_linear", 0.0)
    return 1.0 if kind == "none" or not factor else 1 / factor
