"""A deployment as whoever asks it needs it: its live version, interface, limits and policy, read from the rows at once.

A value that travels: the front door remembers it (edge/snapshot.py), a job reads it once. Knows no cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from inference.interface import Interface, read_interface
from inference.language.interface import LanguageInterface
from inference.signature import Signature
from strongroom.deployments import services as deployments
from strongroom.errors import Invalid, NotFound
from strongroom.tenants import scope


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment and the one live version behind it, as the hot path needs them."""

    tenant_id: UUID
    deployment_id: UUID
    name: str
    model: str
    version: int
    version_id: UUID
    interface: Interface
    policy: dict[str, Any] | None  # None where it changes nothing
    requests_per_second: float | None
    concurrency: int | None
    deadline_ms: int
    before: Served | None = None  # the version that was live before: serves while this one is being loaded
    # The ids as text, made once: so the cells know them, and a UUID's hash is Python's own and slow.
    tenant: str = field(init=False)
    deployment: str = field(init=False)
    engine_version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant", str(self.tenant_id))
        object.__setattr__(self, "deployment", str(self.deployment_id))
        object.__setattr__(self, "engine_version", str(self.version_id))

    @property
    def place(self) -> tuple[str, str, str]:
        """By what the cells know it: the tenant, the deployment's name, the version."""
        return self.tenant, self.name, self.engine_version

    @property
    def signature(self) -> Signature:
        """Of a model of arrays; Invalid where it is a language model."""
        if isinstance(self.interface, Signature):
            return self.interface
        raise Invalid(
            f"{self.name!r} is a language model and takes words: POST /v1/chat/completions",
            title="The model takes words, not arrays",
        )

    def check_speaks(self) -> None:
        """Invalid where it is a model of arrays."""
        _ = self.language

    @property
    def language(self) -> LanguageInterface:
        """Of a language model; Invalid where it is a model of arrays."""
        if isinstance(self.interface, LanguageInterface):
            return self.interface
        raise Invalid(
            f"{self.name!r} is not a language model: POST /api/v1/deployments/{self.name}/predict",
            title="The model takes arrays, not words",
        )


def load(tenant_id: UUID, name: str) -> Served | None:
    """The deployment as its rows say it, None where there is none. Blocks."""
    with scope.tenant(tenant_id, write=False):
        try:
            row = deployments.resolve(name)
        except NotFound:
            return None
        traffic = row.traffic.select_related("version__model").filter(mode="live").first()
        if traffic is None:
            return None
        limits = deployments.limits(row, traffic.version.format)
        policy = deployments.POLICY | row.output_policy
        return Served(
            tenant_id=tenant_id,
            deployment_id=row.id,
            name=row.name,
            model=traffic.version.model.name,
            version=traffic.version.number,
            version_id=traffic.version_id,
            interface=read_interface(traffic.version.signature),
            policy=None if policy == deployments.POLICY else policy,
            requests_per_second=limits["requests_per_second"],
            concurrency=limits["concurrency"],
            deadline_ms=limits["deadline_ms"],
        )
