"""What a spec asks and its data set cannot give, found before a worker is taken, from what the check wrote down.

contradictions(spec, facts) -> problems     # facts: a data-set version as the API shows it (docs/openapi.yaml)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.models.catalogue import Misfit, check
from training.spec.kinds import TrainSpec
from training.spec.problems import Problem, nearest

LEAST_ROWS = 3  # one for each part


def contradictions(spec: TrainSpec, facts: Mapping[str, Any]) -> list[Problem]:
    """All of them; empty where the training may start. `facts`: modality, target, rows, fingerprint, columns."""
    return list(_contradictions(spec, facts))


def _contradictions(spec: TrainSpec, facts: Mapping[str, Any]) -> Iterator[Problem]:
    wanted, found = spec.dataset.fingerprint, facts.get("fingerprint")
    if wanted is not None and found is not None and wanted != found:
        yield Problem("/dataset/fingerprint", "fingerprint", "is not that of this version", f"it is {found}")
    modality = facts.get("modality")
    if modality == "text":
        yield Problem("/dataset", "modality", "holds conversations", 'a language model learns them: kind "finetune"')
        return
    if spec.modality not in ("auto", modality):
        yield Problem("/modality", "modality", f"the data set is {modality}", f"set it to {modality} or auto")
    rows = facts.get("rows")
    if rows is not None and rows < LEAST_ROWS:
        yield Problem("/dataset", "rows", f"has {rows} rows, a split needs {LEAST_ROWS} or more", None)
    columns = {column["name"]: column for column in facts.get("columns") or ()}
    if not columns:
        return
    if spec.target != facts.get("target", spec.target) or spec.target not in columns:
        meant = facts.get("target") or nearest(spec.target, columns)
        hint = f"the data set's target is '{meant}'" if meant else "columns: " + ", ".join(list(columns)[:20])
        yield Problem("/target", "target", f"'{spec.target}' is not the data set's target", hint)
        return
    target = columns[spec.target]
    yield from _target_fits(spec, target)
    yield from _network_fits(spec, target, [column for column in columns.values() if column is not target])


def _target_fits(spec: TrainSpec, target: Mapping[str, Any]) -> Iterator[Problem]:
    classes = target.get("classes")
    if spec.task == "classification":
        if target["type"] == "category" and classes is not None and len(classes) < 2:
            yield Problem("/target", "one_class", f"'{spec.target}' has one class only", "a classification needs two")
        elif _has_fractions(target):
            yield Problem("/task", "target_number", f"the target '{spec.target}' holds fractions", "use regression")
    elif target["type"] == "category" and not all(_is_number(entry["name"]) for entry in classes or ()):
        yield Problem("/task", "target_text", f"the target '{spec.target}' is text", "use classification")


def _has_fractions(target: Mapping[str, Any]) -> bool:
    """By its ends; where only values between them are fractions, the job itself will see."""
    ends = (target.get("min"), target.get("max"))
    return target["type"] == "number" and any(end is not None and end != round(end) for end in ends)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _network_fits(spec: TrainSpec, target: Mapping[str, Any], inputs: list[Mapping[str, Any]]) -> Iterator[Problem]:
    classes = target.get("classes")
    if spec.task == "classification" and (classes is None or len(classes) < 2):
        return  # the number of outputs is not known here; the job itself will see
    image = next((column for column in inputs if column["type"] == "image" and column.get("shape")), None)
    if spec.model.kind == "catalogue" and spec.model.name == "lenet" and image is None:
        yield Problem("/model/name", "model_modality", "lenet learns from images, the data set is tabular", "use mlp")
        return
    shape = (
        tuple(image["shape"]) if image is not None else (1,)
    )  # any width of a table fits: linear takes what there is
    try:
        check(spec.model, shape, len(classes or ()) if spec.task == "classification" else 1)
    except Misfit as misfit:
        yield Problem(misfit.path, "layer_shape", misfit.message, misfit.hint)
