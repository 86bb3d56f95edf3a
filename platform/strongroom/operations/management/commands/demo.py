"""What a newcomer watches: the digits deposited, a real model trained, deployed and called, over the public API.

Needs a running front door (`manage.py up --demo` starts it). Everything that is there already is used again. Writes
`$STRONGROOM_HOME/demo.json` (0600) when ready: the one place where the demo key and password are kept.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from strongroom.access import services as access
from strongroom.errors import StrongroomError
from strongroom.operations.client import Client, Refused, wait_until_ready
from strongroom.tenants import scope
from strongroom.tenants.models import Member, Role, Tenant, User
from strongroom.tenants.services import create_operator, create_tenant

TENANT, EMAIL = "demo", "admin@demo.localhost"
DATASET, MODEL, DEPLOYMENT = "digits", "lenet-digits", "digits"
SPEC = {
    "kind": "train",
    "name": MODEL,
    "task": "classification",
    "dataset": {"name": DATASET},
    "model": {"kind": "catalogue", "name": "lenet"},
    "train": {
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9},
        "batch_size": 4,
        "epochs": 25,
    },
}


class Command(BaseCommand):
    help = "Train, deploy and call a model of handwritten digits in the tenant `demo`."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--language", action="store_true", help="then the demo of language models")

    def handle(self, *args: Any, **options: Any) -> None:
        self.began = time.monotonic()
        try:
            self.run()
            if options["language"]:
                call_command("language")
        except (OSError, Refused, StrongroomError) as error:
            raise CommandError(f"the demo could not go on: {error}") from None

    def run(self) -> None:
        environment = settings.ENVIRONMENT
        self.url = f"http://{environment.bind}:{environment.port}"
        self.path = environment.home_path / "demo.json"
        key, password = self.account()
        wait_until_ready(self.url, 60)
        self.api = Client(self.url, key)
        images, labels = digits()
        version = self.deposit(images, labels)
        job, model = self.train()
        self.deploy(model)
        self.predict(images, labels)
        self.write(key, password, version, job, model)
        self.tell(key, password)

    def account(self) -> tuple[str, str]:
        """The demo's key and password: kept ones where they still work, new ones otherwise."""
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        tenant = Tenant.objects.filter(name=TENANT).first()
        if tenant is not None and kept:
            return kept["api_key"], kept["admin_password"]
        if tenant is None:
            made = create_tenant(TENANT, EMAIL, "Demo")
            tenant, password = made.tenant, made.password
            create_operator(EMAIL)
        else:
            password = None
        if password is None:  # the account is there and its password is not
            password = secrets.token_urlsafe(18)
            user = User.objects.get(email=EMAIL)
            user.set_password(password)
            user.save()
        with scope.tenant(tenant.id):
            owner = Member.objects.filter(role=Role.OWNER).order_by("created_at")[0]
            _, secret = access.create_for_owner(owner, "demo")
        return secret, password

    def deposit(self, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        buffer = io.BytesIO()
        np.savez(buffer, image=images, label=labels)
        body = buffer.getvalue()
        path = f"/api/v1/datasets/{DATASET}/content?format=npz&target=label&modality=image"
        version = self.api.call("PUT", path, body, wait=60, content_type="application/octet-stream")
        if version["state"] != "ready":
            raise CommandError(f"the data set was refused: {version['error']}")
        size = version["size_bytes"] / 1e6
        self.say(f"deposited data set {DATASET}@{version['version']}: {version['rows']} images, {size:.1f} MB, sealed")
        return version

    def train(self) -> tuple[str, dict[str, Any]]:
        if (model := self.api.find(f"/api/v1/models/{MODEL}")) is not None:
            version = self.api.call("GET", f"/api/v1/models/{MODEL}/versions/{model['latest_version']}")
            self.say(f"model {MODEL}@{version['version']} is there already")
        else:
            job = self.watch(self.begun() or self.api.call("POST", "/api/v1/jobs", SPEC))
            if job["state"] != "succeeded":
                raise CommandError(f"the training ended {job['state']}: {job['error']}")
            result = job["result"]
            version = self.api.call("GET", f"/api/v1/models/{result['model']}/versions/{result['version']}")
        metrics = version["metrics"]
        self.say(
            f"model {MODEL}@{version['version']}: {version['parameters']:,} parameters, accuracy "
            f"{metrics['test/accuracy']:.3f} on the test part ({metrics['validation/accuracy']:.3f} on validation)"
        )
        return version["lineage"]["job"], version

    def begun(self) -> dict[str, Any] | None:
        """The training of a run that was broken off: it goes on by itself."""
        newest = self.api.call("GET", f"/api/v1/jobs?kind=train&name={MODEL}&limit=1")["data"]
        return next((job for job in newest if job["state"] in ("queued", "running")), None)

    def watch(self, job: dict[str, Any]) -> dict[str, Any]:
        """Shows the bar until the job ends; one line a tenth where the output is no terminal."""
        shown = -1
        while job["state"] in ("queued", "running"):
            progress = job["progress"] or {"fraction": 0.0, "epoch": 0, "epochs": SPEC["train"]["epochs"]}  # type: ignore[index]  # our own document
            step = int(progress["fraction"] * 10)
            if sys.stdout.isatty() or step != shown:
                self.bar(progress, job["metrics"])
                shown = step
            time.sleep(0.25)
            job = self.api.call("GET", f"/api/v1/jobs/{job['id']}")
        if sys.stdout.isatty():
            self.stdout.write("")
        return job

    def bar(self, progress: dict[str, Any], metrics: dict[str, float]) -> None:
        filled = int(progress["fraction"] * 30)
        line = f"  training [{'█' * filled}{'·' * (30 - filled)}] epoch {progress['epoch']}/{progress['epochs']}"
        if "validation/loss" in metrics:
            line += f"  loss {metrics['validation/loss']:.3f}  accuracy {metrics['validation/accuracy']:.3f}"
        ending = "\r" if sys.stdout.isatty() else "\n"
        self.stdout.write(line, ending=ending)
        self.stdout.flush()

    def deploy(self, model: dict[str, Any]) -> None:
        deployment = self.api.find(f"/api/v1/deployments/{DEPLOYMENT}")
        if deployment is None:
            document = {"name": DEPLOYMENT, "versions": [{"model": MODEL, "version": model["version"]}]}
            deployment = self.api.call("POST", "/api/v1/deployments", document, wait=60)
        ends = time.monotonic() + 60
        while deployment["state"] == "loading" and time.monotonic() < ends:
            time.sleep(0.1)
            deployment = self.api.call("GET", f"/api/v1/deployments/{DEPLOYMENT}")
        if deployment["state"] != "ready":
            raise CommandError(f"the deployment is {deployment['state']}: {deployment['error']}")
        live = deployment["versions"][0]
        self.say(f"deployment {DEPLOYMENT} serves {live['model']}@{live['version']}")

    def predict(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Shows ten digits of the test part, right or wrong."""
        rows = test_digits(labels)[:10]
        body = {"inputs": {"image": images[rows].tolist()}}
        answer = self.api.call("POST", f"/api/v1/deployments/{DEPLOYMENT}/predict", body)
        found = [prediction["label"] for prediction in answer["predictions"]]
        drawn = [str(label) for label in labels[rows]]
        right = sum(one == other for one, other in zip(found, drawn, strict=True))
        self.say(f"predicted ten digits of the test part: drawn {' '.join(drawn)}")
        self.say(f"  {right} of 10 right in {answer['usage']['compute_ms']} ms{'':<8} found {' '.join(found)}")

    def write(self, key: str, password: str, version: dict[str, Any], job: str, model: dict[str, Any]) -> None:
        document = {
            "url": self.url,
            "api_key": key,
            "admin_url": f"{self.url}/admin/",
            "operator_url": f"{self.url}/operator/",
            "admin_user": EMAIL,
            "admin_password": password,
            "tenant": TENANT,
            "deployment": DEPLOYMENT,
            "model": MODEL,
            "version": model["version"],
            "dataset": DATASET,
            "dataset_version": version["version"],
            "job": job,
        }
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        document |= {name: kept[name] for name in ("language_deployment", "embedding_deployment") if name in kept}
        draft = self.path.with_name(".demo.json")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=1)
        draft.rename(self.path)

    def tell(self, key: str, password: str) -> None:
        home = settings.ENVIRONMENT.home_path
        home = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
        self.say(f"ready after {time.monotonic() - self.began:.0f} s\n")
        self.stdout.write(f"""Call it (the key is in {home}/demo.json too):

  export KEY={key}
  curl -s {self.url}/api/v1/deployments/{DEPLOYMENT}/predict -H "Authorization: Bearer $KEY" \\
       -H "Content-Type: image/png" --data-binary @docs/img/digit.png
  curl -s {self.url}/api/v1/jobs -H "Authorization: Bearer $KEY"

The panel      {self.url}/admin/      {EMAIL}   {password}
The operator   {self.url}/operator/   (the same login)
The API        {self.url}/docs

A laptop keeps the sealed data and the root keys in one place, {home}; production keeps them apart (docs/security.md).
Ctrl-C ends everything.
""")
        self.stdout.flush()

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits as 3×32×32 uint8 images (each pixel four times), and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images / 16 * 255).round().astype(np.uint8)
    large = pixels.repeat(4, axis=1).repeat(4, axis=2)
    return np.repeat(large[:, None], 3, axis=1), found.target.astype(np.int64)


def test_digits(labels: np.ndarray) -> np.ndarray:
    """The rows that the model has not seen: the split is a pure function of labels, fractions and seed."""
    from training.data.rows import Data
    from training.data.split import split

    names = [str(number) for number in range(10)]
    data = Data(modality="image", inputs={"image": labels}, target=labels, classes=names, columns=())
    return split(data, {"method": "stratified", "fractions": (0.7, 0.15, 0.15), "seed": 0})[2]
