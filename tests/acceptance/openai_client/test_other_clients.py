"""LiteLLM and LangChain, unmodified and in an environment of their own, talk with the platform as with OpenAI."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.journeys import Journey

pytestmark = pytest.mark.slow

PYTHON = Path(__file__).parents[3] / ".venv" / "clients" / "bin" / "python"
CALLS = Path(__file__).with_name("calls_of_others.py")


@pytest.mark.parametrize("client", ["litellm", "langchain"])
def test_another_client_gets_text_streams_calls_vectors_and_errors(house: Journey, client: str) -> None:
    told = _told(house, client)
    assert "Paris" in told["text"]
    assert "Paris" in told["streamed"]
    assert told["tokens"] > 10
    assert told["streamed_tokens"] > 10
    assert told["called"] == "weather"
    assert isinstance(json.loads(told["arguments"])["city"], str)
    assert isinstance(told.get("shaped", {"city": ""})["city"], str)
    assert told["dimensions"] == [384, 384]
    assert told["refused"], "a model that is not there must be OpenAI's NotFoundError"


def _told(house: Journey, client: str) -> Any:
    environment = {
        "STRONGROOM_URL": house.node.url,
        "STRONGROOM_KEY": house.keys["alpha"],
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # LiteLLM would fetch its price list
        "HOME": str(house.node.folder),
    }
    command = [PYTHON, CALLS, client]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
