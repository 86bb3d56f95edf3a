"""Fine-tuning by OpenAI's unmodified client: a file, a job, its events, the adapter deployed and called; cancelled,
refused, and not there for another tenant. The base is of two layers and learns in seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from tests.edge.openai.oracle import fits
from tests.inference.language import tiny
from tests.journeys import Journey
from tests.training.finetune.given import Json, jsonl, small_choices, talk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TENANT = "tuners"
ENDED = ("succeeded", "failed", "cancelled")
ROWS = [talk(f"user: What is in {vault}?", "assistant: silver coins.") for vault in range(12)]
LEARN: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 30, "batch_size": 4}}}
LEARN["supervised"]["hyperparameters"]["learning_rate_multiplier"] = 20
LONG: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 10_000, "batch_size": 1}}}


@pytest.fixture(scope="module")
def tuner(house: Journey) -> Iterator[OpenAI]:
    """The client of a tenant of its own, with the deployment `tiny` of the model `small`."""
    house.tenant(TENANT)
    path = "/api/v1/models/small/content?format=gguf"
    uploaded = house.put(path, tiny.gguf(), key=TENANT)
    document = {"kind": "import", "name": "small", "model": "small", "task": "generation"}
    job = house.submit(document | {"artefact": uploaded.json["artefact"]}, key=TENANT)
    house.succeeded(job, key=TENANT)
    deploy(house, "tiny", "small@1")
    with OpenAI(api_key=house.keys[TENANT], base_url=f"{house.node.url}/v1", timeout=120, max_retries=0) as made:
        yield made


def deploy(house: Journey, name: str, version: str) -> None:
    model, _, number = version.partition("@")
    body = {"name": name, "versions": [{"model": model, "version": int(number)}]}
    made = house.post("/api/v1/deployments", body, key=TENANT)
    assert made.status == 202, made.body
    house.ready(TENANT, name)


def file(client: OpenAI, rows: list[Json] = ROWS) -> str:
    return client.files.create(file=("rows.jsonl", jsonl(*rows)), purpose="fine-tune").id


def until(client: OpenAI, id: str, holds: Callable[[FineTuningJob], bool], seconds: float = 120) -> FineTuningJob:
    ends = time.monotonic() + seconds
    while not holds(job := client.fine_tuning.jobs.retrieve(id)):
        assert time.monotonic() < ends, job
        time.sleep(0.1)  # between two polls, as a client does
    return job


def ended(client: OpenAI, id: str) -> FineTuningJob:
    return until(client, id, lambda job: job.status in ENDED)


@pytest.fixture(scope="module")
def learned(tuner: OpenAI) -> FineTuningJob:
    """A job that has ended."""
    made = tuner.fine_tuning.jobs.create(
        model="tiny", training_file=file(tuner), suffix="Vault Keeper", seed=3, method=LEARN, metadata={"run": "7"}
    )
    assert made.status in ("queued", "running")
    assert made.fine_tuned_model is None
    return ended(tuner, made.id)


def test_a_model_of_the_list_is_tuned_on_a_file_that_was_sent_just_now(tuner: OpenAI, learned: FineTuningJob) -> None:
    """The base is named as `client.models.list()` has it, a deployment; the job says which version that was."""
    assert next(model.id for model in tuner.models.list()) == "tiny"
    assert (learned.status, learned.error, learned.model) == ("succeeded", None, "small@1")
    assert learned.fine_tuned_model == "small-vault-keeper@1"
    assert learned.finished_at is not None
    assert learned.finished_at >= learned.created_at
    assert (learned.seed, learned.metadata, learned.result_files) == (3, {"run": "7"}, [])
    assert learned.training_file in [one.id for one in tuner.files.list(purpose="fine-tune")]
    hyperparameters = learned.hyperparameters
    assert (hyperparameters.n_epochs, hyperparameters.batch_size) == (30, 4)
    assert hyperparameters.learning_rate_multiplier == pytest.approx(20)
    assert learned.trained_tokens is not None
    assert learned.trained_tokens % 30 == 0
    assert learned.trained_tokens > 0


def test_the_fine_tuned_model_is_deployed_and_called(house: Journey, tuner: OpenAI, learned: FineTuningJob) -> None:
    messages: Any = [{"role": "user", "content": "What is in 3?"}]
    with pytest.raises(openai.NotFoundError):
        tuner.chat.completions.create(model="keeper", messages=messages)
    assert learned.fine_tuned_model is not None
    deploy(house, "keeper", learned.fine_tuned_model)
    told = tuner.chat.completions.create(model="keeper", messages=messages, temperature=0, max_tokens=24)
    assert told.choices[0].message.content == "silver coins."


def test_events_tell_what_happened_newest_first_over_pages(tuner: OpenAI, learned: FineTuningJob) -> None:
    found: list[FineTuningJobEvent] = list(tuner.fine_tuning.jobs.list_events(learned.id, limit=7))
    assert len({event.id for event in found}) == len(found) > 90
    assert [event.created_at for event in found] == sorted((event.created_at for event in found), reverse=True)
    assert found[-1].message == f"Created fine-tuning job: {learned.id}"
    assert (
        found[0].message == "New fine-tuned model: small-vault-keeper@1. Deploy it to call it: POST /api/v1/deployments"
    )
    metrics = [event.data for event in found if event.type == "metrics"]
    assert {name for data in metrics if isinstance(data, dict) for name in data} == {
        "step", "train_loss", "valid_loss", "valid_perplexity",
    }  # fmt: skip


def test_the_adapter_is_the_one_checkpoint(tuner: OpenAI, learned: FineTuningJob) -> None:
    (found,) = list(tuner.fine_tuning.jobs.checkpoints.list(learned.id))
    assert (found.fine_tuning_job_id, found.fine_tuned_model_checkpoint) == (learned.id, learned.fine_tuned_model)
    assert found.metrics.train_loss is not None
    assert found.metrics.train_loss < 0.5
    assert found.step_number == 90


def test_every_document_is_one_of_the_sdks(house: Journey, learned: FineTuningJob) -> None:
    at = f"/v1/fine_tuning/jobs/{learned.id}"
    fits(FineTuningJob, house.get(at, key=TENANT).body)
    for event in house.get(f"{at}/events?limit=100", key=TENANT).json["data"]:
        fits(FineTuningJobEvent, event)
    for checkpoint in house.get(f"{at}/checkpoints", key=TENANT).json["data"]:
        fits(FineTuningJobCheckpoint, checkpoint)


def test_preferences_are_learned_and_the_client_turns_the_pages(
    house: Journey, tuner: OpenAI, learned: FineTuningJob
) -> None:
    method: Any = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.2}}}
    made = tuner.fine_tuning.jobs.create(model="small@1", training_file=file(tuner, small_choices()), method=method)
    assert made.method is not None
    assert made.method.dpo is not None
    assert made.method.dpo.hyperparameters is not None
    assert made.method.dpo.hyperparameters.beta == 0.2
    done = ended(tuner, made.id)
    assert (done.status, done.fine_tuned_model) == ("succeeded", "small-tuned@1")

    # one that the native face submitted is one of them
    house.deposit("talks", jsonl(*ROWS), "format=chat-jsonl", key=TENANT)
    document = {"kind": "finetune", "name": "native", "base": "small", "dataset": {"name": "talks"}}
    native = house.submit(document | {"train": {"epochs": 1}}, key=TENANT)
    house.succeeded(native, key=TENANT)
    listed = list(tuner.fine_tuning.jobs.list(limit=1))
    assert [job.id for job in listed][:2] == [native, made.id]
    assert listed[-1].id == learned.id
    assert listed[0].training_file == "talks@1"

    async def of_async() -> list[str]:
        url = f"{house.node.url}/v1"
        async with AsyncOpenAI(api_key=house.keys[TENANT], base_url=url, max_retries=0) as client:
            return [job.id async for job in client.fine_tuning.jobs.list(limit=2)]

    assert asyncio.run(of_async()) == [job.id for job in listed]


def test_a_running_job_is_cancelled_and_one_that_ended_is_not(tuner: OpenAI, learned: FineTuningJob) -> None:
    made = tuner.fine_tuning.jobs.create(model="tiny", training_file=file(tuner), method=LONG)
    running = until(tuner, made.id, lambda job: job.status == "running" and job.estimated_finish is not None)
    assert running.estimated_finish is not None
    assert running.estimated_finish >= running.created_at
    cancelled = tuner.fine_tuning.jobs.cancel(made.id)
    assert (cancelled.status, cancelled.fine_tuned_model) == ("cancelled", None)
    assert next(iter(tuner.fine_tuning.jobs.list_events(made.id))).message == "The job was cancelled"
    assert list(tuner.fine_tuning.jobs.checkpoints.list(made.id)) == []
    with pytest.raises(openai.ConflictError, match="succeeded"):
        tuner.fine_tuning.jobs.cancel(learned.id)


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"model": "gpt-4o-mini"}, "model", "there is no model"),
        ({"model": "small@7"}, "model", "there is no model version"),
        ({"model": "small@x"}, "model", "there is no model version"),
        ({"training_file": "file_0"}, "training_file", "names a file that is not there"),
        ({"validation_file": "file_0"}, "validation_file", "not supported"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations", "nothing leaves"),
        ({"method": {"type": "reinforcement"}}, "method.type", "reinforcement"),
        ({"method": {"type": "dpo"}}, "method.type", "cannot learn from messages"),
        ({"suffix": "!!!"}, "suffix", "a letter or a digit"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "at least 1"),
    ],
)
def test_what_cannot_be_tuned_is_refused_by_its_parameter(
    tuner: OpenAI, learned: FineTuningJob, changes: Any, param: str, said: str
) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        tuner.fine_tuning.jobs.create(**{"model": "tiny", "training_file": learned.training_file} | changes)
    assert said in caught.value.message
    assert caught.value.param == param


def test_an_adapter_a_batchs_file_and_broken_rows_are_refused(tuner: OpenAI, learned: FineTuningJob) -> None:
    create = tuner.fine_tuning.jobs.create
    with pytest.raises(openai.BadRequestError, match="is an adapter itself") as caught:
        create(model="small-vault-keeper@1", training_file=learned.training_file)
    assert caught.value.param == "model"
    lines = tuner.files.create(file=("a.jsonl", b"{}\n"), purpose="batch").id
    with pytest.raises(openai.BadRequestError, match="of purpose 'fine-tune'") as caught:
        create(model="tiny", training_file=lines)
    assert caught.value.param == "training_file"
    with pytest.raises(openai.BadRequestError, match="row 13") as caught:
        create(model="tiny", training_file=file(tuner, [*ROWS, {"messages": 5}]))
    assert (caught.value.param, caught.value.code) == ("training_file", "no_messages")


def test_a_list_is_not_filtered_by_metadata_which_is_sealed(tuner: OpenAI, learned: FineTuningJob) -> None:
    with pytest.raises(openai.BadRequestError, match="metadata"):
        tuner.fine_tuning.jobs.list(metadata={"run": "7"})


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pausing_is_refused_by_name(tuner: OpenAI, learned: FineTuningJob, verb: str) -> None:
    with pytest.raises(openai.BadRequestError, match="neither paused nor resumed"):
        getattr(tuner.fine_tuning.jobs, verb)(learned.id)


def test_another_tenant_finds_none_of_it(house: Journey, learned: FineTuningJob) -> None:
    with OpenAI(api_key=house.keys["beta"], base_url=f"{house.node.url}/v1", max_retries=0) as stranger:
        jobs = stranger.fine_tuning.jobs
        assert list(jobs.list()) == []
        asks: list[Callable[[], object]] = [
            lambda: jobs.retrieve(learned.id),
            lambda: jobs.cancel(learned.id),
            lambda: jobs.pause(learned.id),
            lambda: jobs.list_events(learned.id),
            lambda: jobs.checkpoints.list(learned.id),
            lambda: jobs.create(model="tiny", training_file=learned.training_file),
        ]
        for ask in asks:
            with pytest.raises(openai.NotFoundError):
                ask()


def test_a_key_needs_the_scopes_of_jobs(house: Journey, learned: FineTuningJob) -> None:
    made = house.post("/api/v1/keys", {"name": "reader", "scopes": ["jobs:read"]}, key=TENANT)
    with OpenAI(api_key=made.json["secret"], base_url=f"{house.node.url}/v1", max_retries=0) as reader:
        assert reader.fine_tuning.jobs.retrieve(learned.id).id == learned.id
        for ask in (reader.fine_tuning.jobs.cancel, reader.fine_tuning.jobs.pause):
            with pytest.raises(openai.PermissionDeniedError, match="jobs:write"):
                ask(learned.id)
        with pytest.raises(openai.PermissionDeniedError, match="jobs:write"):
            reader.fine_tuning.jobs.create(model="tiny", training_file=learned.training_file)
