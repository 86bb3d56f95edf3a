"""The spec's sections about data: which data set and how it is split. It knows names only, no rows."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.spec.problems import Planned, PlannedFields

NAME = r"^[a-z][a-z0-9-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """What every object of the spec has in common: closed, frozen, strictly typed, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)
    planned: ClassVar[PlannedFields] = ()


class DatasetReference(Section):
    """A data set by name; the newest version is filled in at submission, a fingerprint that is given is checked."""

    name: Name
    version: Annotated[int, Field(ge=1)] | None = None
    fingerprint: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None


class Split(Section):
    """Which rows train, which choose, which judge; `stratified` goes by class, or by bands of a number."""

    planned = ("group_by", "time_by")

    method: Annotated[Literal["stratified", "random"], Planned("group", "time", "given")] = "stratified"
    fractions: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=3, max_length=3)] = [
        0.7,
        0.15,
        0.15,
    ]
    seed: Seed = 0
