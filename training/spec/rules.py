"""The rules that look at more than one field, each with a path of its own.

They read the document, not the finished spec, so that they speak up beside other faults: a rule whose fields are absent
or faulty is silent. No torch, no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from training.spec import finetune
from training.spec.problems import Node, Problem, fields, pointer

_ABSENT = object()
SPATIAL = ("conv2d", "max_pool", "avg_pool")
METRICS = {
    "classification": ("validation/loss", "validation/accuracy", "validation/f1"),
    "regression": ("validation/loss", "validation/r2"),
}
LOSSES = {"classification": ("cross_entropy", "mse"), "regression": ("mse",)}


class Unreadable(Exception):
    """A field that a rule needs is absent or has a fault of its own."""


class Document:
    """The user's document with the schema's defaults behind it, faulty places closed."""

    def __init__(self, content: Mapping[str, Any], root: type[BaseModel], faulty: set[str]) -> None:
        self._content = content
        self._root = Node((root,))
        self._faulty = faulty

    def get(self, *keys: str | int) -> Any:
        """The value at a path, or its default."""
        value: Any = self._content
        node = self._root
        for depth, key in enumerate(keys, 1):
            if pointer(keys[:depth]) in self._faulty:
                raise Unreadable
            found = _item(value, key)
            value = self._default(node, key) if found is _ABSENT else found
            node = node.child(key) or Node((object,))
            if node.discriminator is not None:
                tag = _item(value, node.discriminator)
                node = node.tagged(tag) or (Node(node.members[:1]) if tag is _ABSENT else Node((object,)))
        if any(path.startswith(pointer(keys) + "/") for path in self._faulty) and not isinstance(value, dict | list):
            raise Unreadable
        return value

    @staticmethod
    def _default(node: Node, key: str | int) -> Any:
        member = node.members[0]
        info = fields(member).get(str(key)) if isinstance(member, type) and issubclass(member, BaseModel) else None
        if info is None or info.is_required():
            raise Unreadable
        value = info.get_default(call_default_factory=True)
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _item(value: Any, key: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(key, _ABSENT)
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return value[key]
    return _ABSENT


def _loss_fits_task(spec: Document) -> Iterator[Problem]:
    task, loss = spec.get("task"), spec.get("train", "loss", "name")
    if loss != "auto" and loss not in LOSSES[task]:
        hint = "use " + " or ".join(LOSSES[task])
        yield Problem("/train/loss/name", "loss_task", f"loss '{loss}' does not fit the task '{task}'", hint)


def _fractions_add_up(spec: Document) -> Iterator[Problem]:
    total = sum(spec.get("split", "fractions"))
    if abs(total - 1) > 1e-6:
        yield Problem(
            "/split/fractions", "split_sum", f"must add up to 1, add up to {total:g}", "such as 0.7, 0.15, 0.15"
        )


def _momentum_belongs_to_sgd(spec: Document) -> Iterator[Problem]:
    if spec.get("train", "optimizer", "name") != "sgd" and spec.get("train", "optimizer", "momentum") > 0:
        yield Problem("/train/optimizer/momentum", "optimizer_field", "belongs to sgd", "with adamw set betas")


def _nesterov_needs_momentum(spec: Document) -> Iterator[Problem]:
    if spec.get("train", "optimizer", "nesterov") and not spec.get("train", "optimizer", "momentum") > 0:
        yield Problem("/train/optimizer/nesterov", "optimizer_field", "needs a momentum", "set momentum, such as 0.9")


def _betas_belong_to_adamw(spec: Document) -> Iterator[Problem]:
    betas = spec.get("train", "optimizer", "betas")
    if spec.get("train", "optimizer", "name") == "sgd" and betas != [0.9, 0.999]:
        yield Problem("/train/optimizer/betas", "optimizer_field", "belongs to adamw", "with sgd set momentum")


def _metric_fits_task(spec: Document) -> Iterator[Problem]:
    if spec.get("train", "early_stop") is None:
        return
    task, metric = spec.get("task"), spec.get("train", "early_stop", "metric")
    if metric not in METRICS[task]:
        hint = "one of " + ", ".join(METRICS[task])
        yield Problem("/train/early_stop/metric", "metric_task", f"a {task} has no '{metric}'", hint)


def _catalogue_fits(spec: Document) -> Iterator[Problem]:
    name = spec.get("model", "name")
    if name == "lenet" and spec.get("modality") == "tabular":
        yield Problem("/model/name", "model_modality", "lenet learns from images, the modality is tabular", "use mlp")


def _depth_belongs_to_mlp(spec: Document) -> Iterator[Problem]:
    name = spec.get("model", "name")
    if name != "mlp" and spec.get("model", "depth") is not None:
        yield Problem("/model/depth", "model_field", f"{name} has a fixed depth", "leave it out, or use mlp")


def _width_needs_hidden_layers(spec: Document) -> Iterator[Problem]:
    if spec.get("model", "name") == "linear" and spec.get("model", "width") != 1:
        yield Problem("/model/width", "model_field", "linear has no hidden layer to widen", "leave it out, or use mlp")


def _layers_fit_together(spec: Document) -> Iterator[Problem]:
    flat: bool | None = True if spec.get("modality") == "tabular" else None
    for index in range(len(spec.get("model", "layers"))):
        op, here = spec.get("model", "layers", index, "op"), f"/model/layers/{index}"
        if op in SPATIAL:
            if flat:
                why = "the data are tabular" if index == 0 else "the values are flat by then"
                yield Problem(here + "/op", "layer_shape", f"{op} needs an image, {why}", "use linear")
                return
            flat = False
        elif op == "linear":
            if flat is False:
                yield Problem(here, "layer_shape", "linear needs flat values", "put {'op': 'flatten'} before it")
                return
            flat = True
        elif op == "flatten":
            flat = True


def _last_layer_answers(spec: Document) -> Iterator[Problem]:
    last = len(spec.get("model", "layers")) - 1
    op = spec.get("model", "layers", last, "op")
    if op not in ("linear", "flatten"):
        what = "the loss and the export add what follows the last linear layer"
        yield Problem(f"/model/layers/{last}/op", "last_layer", f"the last layer must be linear, is {op}", what)
    elif op == "linear" and spec.get("task") == "regression" and (out := spec.get("model", "layers", last, "out")) != 1:
        yield Problem(
            f"/model/layers/{last}/out", "outputs_task", f"a regression has 1 output, not {out}", "set it to 1"
        )


def _classes_need_classification(spec: Document) -> Iterator[Problem]:
    task = spec.get("task")
    if spec.get("classes") is not None and task != "classification":
        yield Problem("/classes", "classes_task", f"a model of task '{task}' has no classes", "set it to null")


def _classes_are_distinct(spec: Document) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(spec.get("classes") or []):
        if name in seen:
            yield Problem(f"/classes/{index}", "duplicate", "is there twice", None)
        seen.add(name)


def _weights_belong_to_language(spec: Document) -> Iterator[Problem]:
    task = spec.get("task")
    if spec.get("weights") != "keep" and task != "generation":
        said = f"weights are written anew for task 'generation' only, not for '{task}'"
        yield Problem("/weights", "weights_task", said, "leave it out")


Rule = Callable[[Document], Iterator[Problem]]
RULES: Mapping[str, tuple[Rule, ...]] = {
    "train": (
        _loss_fits_task,
        _fractions_add_up,
        _momentum_belongs_to_sgd,
        _nesterov_needs_momentum,
        _betas_belong_to_adamw,
        _metric_fits_task,
        _catalogue_fits,
        _depth_belongs_to_mlp,
        _width_needs_hidden_layers,
        _layers_fit_together,
        _last_layer_answers,
    ),
    "finetune": finetune.RULES,
    "import": (_classes_need_classification, _classes_are_distinct, _weights_belong_to_language),
    "check": (),
    "predict": (),
    "batch": (),
}


def broken_rules(document: Mapping[str, Any], root: type[BaseModel], kind: str, found: list[Problem]) -> list[Problem]:
    """What the rules of this kind object to, beside the faults already found."""
    view = Document(document, root, {problem.path for problem in found})
    return [problem for rule in RULES[kind] for problem in _heard(rule, view)]


def _heard(rule: Rule, view: Document) -> list[Problem]:
    problems: list[Problem] = []
    try:
        for problem in rule(view):
            problems.append(problem)
    except (Unreadable, TypeError, KeyError, OverflowError):
        pass  # but for the first: a faulty value inside a list that a rule sums or looks up
    return problems
