"""The body of POST /v1/fine_tuning/jobs: what of it becomes a job spec, and what is refused with which parameter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.fine_tuning import FineTuningJob

from strongroom.errors import FieldError, Invalid, StrongroomError
from strongroom.openai import requests, resources, tuning
from strongroom.openai.tuning import TuningRequest
from strongroom.tenants.names import NAME
from tests.depth import examples
from tests.edge.openai.asked import refused
from tests.edge.openai.oracle import fits
from training.spec import FinetuneSpec, load
from training.spec.finetune import USUAL_LR


def asked(**changes: Any) -> dict[str, Any]:
    return {"model": "smollm2", "training_file": "file_1"} | changes


def spec(**changes: Any) -> FinetuneSpec:
    """As the job has it, every default written out."""
    document = requests.read(TuningRequest, asked(**changes)).document(("smollm2", 1), ("file-1", 2))
    found = load(document)
    assert isinstance(found, FinetuneSpec)
    return found.filled()


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def test_what_is_not_said_is_the_specs_usual() -> None:
    document = {"kind": "finetune", "name": "smollm2-tuned", "base": "smollm2@1"}
    usual = load(document | {"dataset": {"name": "file-1", "version": 2}})
    assert isinstance(usual, FinetuneSpec)
    assert spec() == usual.filled()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": {"type": "supervised"}},
        {"method": {"type": "supervised", "supervised": {}}},
        {"method": supervised(n_epochs="auto", batch_size="auto", learning_rate_multiplier="auto")},
        {"hyperparameters": {"n_epochs": "auto"}, "seed": None, "suffix": None, "metadata": None},
        {"integrations": [], "validation_file": None},
        {"metadata": {"run": "7"}},
    ],
)
def test_each_way_of_saying_nothing_is_the_same_job(changes: dict[str, Any]) -> None:
    assert spec(**changes) == spec()


@pytest.mark.parametrize("place", ["method", "hyperparameters"])
def test_hyperparameters_become_the_trains(place: str) -> None:
    wanted = {"n_epochs": 5, "batch_size": 2, "learning_rate_multiplier": 0.5}
    found = spec(seed=7, **{place: supervised(**wanted) if place == "method" else wanted})
    assert (found.train.epochs, found.train.batch_size) == (5, 2)
    assert found.train.lr == USUAL_LR["supervised"] / 2
    assert (found.train.seed, found.split.seed) == (7, 7)


def test_preferences_have_their_beta_and_their_usual_rate() -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3, "learning_rate_multiplier": 2}}}
    found = spec(method=method)
    assert found.method.model_dump() == {"name": "dpo", "beta": 0.3}
    assert found.train.lr == 2 * USUAL_LR["dpo"]
    assert spec(method={"type": "dpo"}).method.model_dump() == {"name": "dpo", "beta": 0.1}


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"validation_file": "file_2"}, "validation_file", "is not supported"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "nothing leaves the platform"),
        ({"method": {"type": "reinforcement"}}, "method.type", "'supervised' or 'dpo'"),
        ({"method": {"type": "dpo", "reinforcement": {"grader": {}}}}, "method.reinforcement", "no grader"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised", "belongs to type 'supervised'"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo", "belongs to type 'dpo'"),
        ({"method": {}}, "method.type", "is missing"),
        ({"method": supervised(n_epochs=0)}, "method.supervised.hyperparameters.n_epochs", "at least 1"),
        ({"method": supervised(n_epochs="many")}, "method.supervised.hyperparameters.n_epochs", "a whole number"),
        ({"method": supervised(batch_size=10**6)}, "method.supervised.hyperparameters.batch_size", "at most 4096"),
        ({"method": supervised(beta=0.1)}, "method.supervised.hyperparameters.beta", "not a known parameter"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier", "greater"),
        ({"hyperparameters": {}, "method": {"type": "dpo"}}, "hyperparameters", "is the older form"),
        ({"seed": -1}, "seed", "at least 0"),
        ({"seed": "7"}, "seed", "a whole number"),
        ({"suffix": "x" * 65}, "suffix", "at most 64"),
        ({"suffix": "---"}, "suffix", "a letter or a digit"),
        ({"metadata": {"a": 1}}, "metadata.a", "a text"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16"),
        ({"modle": "x"}, "modle", "not a known parameter"),
        ({"model": None}, "model", "is missing"),
        ({"training_file": 7}, "training_file", "a text"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_parameter(changes: dict[str, Any], param: str, said: str) -> None:
    found = refused(TuningRequest, asked(**changes))
    assert found["param"] == param
    assert said in found["message"]


@settings(max_examples=examples(200))
@given(base=st.from_regex(NAME, fullmatch=True), suffix=st.none() | st.text(min_size=1, max_size=64))
def test_every_suffix_that_is_taken_makes_a_name(base: str, suffix: str | None) -> None:
    try:
        requests.read(TuningRequest, asked(suffix=suffix))
    except Invalid:
        return
    name = tuning.name_of(base, suffix)
    assert NAME.fullmatch(name), name
    assert name.startswith(base[:22])


def test_a_problem_of_the_spec_is_told_at_the_parameter_that_it_comes_from() -> None:
    paths = {
        "/base": "/model",
        "/dataset/fingerprint": "/training_file",
        "/method/name": "/method/type",
        "/register/model": "/suffix",
        "/train/max_tokens": "/train/max_tokens",
        "": "",
    }
    error = Invalid.all([FieldError(path, "x", "is wrong", "mend it") for path in paths], "invalid_spec")
    found: StrongroomError = tuning.as_asked(error)
    assert [problem.path for problem in found.errors] == list(paths.values())
    assert (type(found), found.code, found.errors[0].hint) == (Invalid, "invalid_spec", "mend it")


@pytest.mark.parametrize("kind", ["supervised", "dpo"])
def test_a_job_shows_the_hyperparameters_that_count_as_they_were_chosen(kind: Any) -> None:
    wanted: dict[str, Any] = {"n_epochs": 4, "batch_size": 2, "learning_rate_multiplier": 0.25}
    wanted |= {"beta": 0.2} if kind == "dpo" else {}
    found = spec(method={"type": kind, kind: {"hyperparameters": wanted}})
    chosen = tuning.chosen(found.model_dump(mode="json"))
    assert chosen == wanted
    job: FineTuningJob = fits(
        FineTuningJob,
        resources.fine_tuning_job(
            "job_1",
            created=1,
            model="smollm2@1",
            organization="ten_1",
            status="queued",
            training_file="file_1",
            hyperparameters=chosen,
            seed=0,
            method=kind,
        ),
    )
    assert job.method is not None
    assert job.method.type == kind
    assert job.hyperparameters.n_epochs == 4


def test_a_metric_is_an_event_of_its_own() -> None:
    data = {"name": "validation/perplexity", "epoch": 2, "step": 12, "value": 2.34567}
    event = tuning.metric_event("ftevent_1", 1, data)
    assert event["message"] == "Step 12, epoch 2: valid_perplexity=2.346"
    assert event["data"] == {"step": 12, "valid_perplexity": 2.34567}
