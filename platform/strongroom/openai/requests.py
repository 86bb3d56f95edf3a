"""How a request to `/v1` is read: the manner of all its documents, and the fields that several endpoints have.

Strict (no number in quotes), closed (a field that is not known is refused with the nearest that is) and bounded before
anything is looked at. A null is as good as nothing, even under a name that is not known: the SDK's own documents have
one for each field that is not set. Knows no tenant and no engine's answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from strongroom.errors import FieldError, Invalid
from strongroom.openai import parameters
from strongroom.openai.problems import MOST_PROBLEMS, pointer, refusal, shown, translate
from strongroom.rest import problem

MOST_PAIRS = 16


class Document(BaseModel):
    """One object of a request."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    refused: ClassVar[parameters.Table] = {}
    names: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.names = frozenset(info.alias or name for name, info in cls.model_fields.items())

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """Without its nulls; the first field that is not known is told, where there is one."""
        if type(given) is not dict or (cls.names.issuperset(given) and None not in given.values()):
            return given
        for name, code, message, hint in unknown(cls, given):
            raise refusal(code, message, name, hint=hint)
        return {name: value for name, value in given.items() if value is not None and name in cls.names}


def unknown(model: type[Document], given: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str | None]]:
    """Each field that is refused or not known: its name, code, message and hint."""
    for name, value in given.items():
        if name in model.names or value is None:
            continue
        if (found := model.refused.get(name)) is None:
            yield name, "unknown_parameter", "is not a known parameter", problem.nearest(name, model.names)
        elif not found.allows(value):
            yield name, "unsupported_parameter", f"is not supported: {found.why}", None


Read = TypeVar("Read", bound=Document)


def read(model: type[Read], document: Any) -> Read:
    """The request in `document`, as JSON was parsed; Invalid with its first problems."""
    if not isinstance(document, dict):
        raise Invalid.field("", f"must be a JSON object, is {shown(document)}", code="invalid_type")
    problems = [
        FieldError(pointer([name]), code, message, hint)
        for name, code, message, hint in islice(unknown(model, document), MOST_PROBLEMS)
    ]
    known = {name: document[name] for name in model.names if name in document} if problems else document
    try:
        found = model.model_validate(known)
    except ValidationError as error:
        problems += translate(error)
    if problems:
        raise Invalid.all(problems[:MOST_PROBLEMS])
    return found


def _pairs(given: Any) -> dict[str, str]:
    if type(given) is not dict:
        raise refusal("invalid_type", f"must be an object, is {shown(given)}")
    if len(given) > MOST_PAIRS:
        raise refusal("object_above_max_properties", f"must have at most {MOST_PAIRS} pairs, has {len(given)}")
    for name, value in given.items():
        if len(name) > 64:
            raise refusal("invalid_value", "must have names of at most 64 characters", name)
        if type(value) is not str or len(value) > 512:
            raise refusal("invalid_value", "must be a text of at most 512 characters", name)
    return given


Metadata = Annotated[dict[str, str], BeforeValidator(_pairs)]
Tag = Annotated[str, Field(max_length=512)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]


class StreamOptions(Document):
    """`include_obfuscation` pads the chunks, so that their sizes on the wire tell less of the text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Asked(Document):
    """What every request for text has: the deployment, how the next token is chosen, and what has no effect."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    stream: bool = False
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] = 0  # ours, with the next three; -1 is as good as 0: all
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] = 1.0
    ignore_eos: bool = False
    prompt_cache_key: Tag | None = None  # what may share a cached prompt
    user: Tag | None = None  # without effect, with the next three
    safety_identifier: Tag | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default"] | None = None

    def chosen(self) -> dict[str, Any]:
        """The fields of Sampling that every request may set."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": max(0, self.top_k),
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "ignore_eos": self.ignore_eos,
        }
