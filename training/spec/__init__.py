"""The job spec: one document says everything about a job. Its only definition is here.

    spec = load(document)          # or SpecProblems, with every fault at once
    canonical(spec), sha256(spec)  # the stored bytes, every default filled in, and the spec's id in the lineage

What only the data set can contradict is in `training.spec.facts`.
It knows nothing about rows, torch or Django, and costs no import of torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping

from pydantic import ValidationError

from training.spec.finetune import FinetuneSpec
from training.spec.kinds import (
    KINDS,
    PLANNED_KINDS,
    BatchEndpoint,
    BatchSpec,
    CheckSpec,
    ImportSpec,
    PredictSpec,
    Spec,
    TrainSpec,
)
from training.spec.problems import Problem, SpecProblems, choice_problem, translate
from training.spec.rules import broken_rules

__all__ = [
    "SUBMITTED",
    "BatchEndpoint",
    "BatchSpec",
    "CheckSpec",
    "FinetuneSpec",
    "ImportSpec",
    "PredictSpec",
    "Problem",
    "Spec",
    "SpecProblems",
    "TrainSpec",
    "canonical",
    "load",
    "sha256",
]

SUBMITTED = ("train", "finetune", "import")  # what POST /jobs takes; the other kinds' documents we make ourselves


def load(document: object, *, kinds: Collection[str] = tuple(KINDS)) -> Spec:
    """The spec that a JSON document says, every default filled in; SpecProblems with all faults otherwise."""
    if not isinstance(document, Mapping):
        raise SpecProblems([Problem("", "model_type", "must be an object", "a job spec is one JSON object")])
    content = dict(document)
    kind = content.get("kind", "train")
    if not isinstance(kind, str) or kind not in kinds:
        planned = [*PLANNED_KINDS, *(name for name in KINDS if name not in kinds)]
        raise SpecProblems([choice_problem("/kind", kind, list(kinds), planned)])
    root = KINDS[kind]
    problems: list[Problem] = []
    try:
        spec = root.model_validate({**content, "kind": kind})
    except ValidationError as error:
        problems = translate(error.errors(include_url=False), root)
    problems += broken_rules(content, root, kind, problems)
    if problems:
        # misspelt fields first: what follows is often due to them
        raise SpecProblems(sorted(problems, key=lambda problem: problem.code != "extra_forbidden"))
    return spec.filled() if isinstance(spec, TrainSpec | FinetuneSpec) else spec


def canonical(spec: Spec) -> bytes:
    """The spec as JSON, keys sorted, no spaces, every default filled in: equal specs are equal bytes."""
    content = spec.model_dump(mode="json")
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(spec: Spec) -> str:
    """The spec's id in the lineage, hexadecimal."""
    return hashlib.sha256(canonical(spec)).hexdigest()
