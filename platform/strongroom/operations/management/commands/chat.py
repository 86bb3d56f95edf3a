"""`manage.py chat`: a conversation with a language model in the terminal, over the public API with the demo's key."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from strongroom.operations.client import Client, Refused

SAMPLING = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 512}  # a small model babbles at temperature 1


class Command(BaseCommand):
    help = "Chat with a deployed language model; an empty line ends it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("deployment", nargs="?", help="default: the demo's language_deployment")

    def handle(self, *args: Any, **options: Any) -> None:
        path = settings.ENVIRONMENT.home_path / "demo.json"
        demo = json.loads(path.read_text()) if path.exists() else {}
        name = options["deployment"] or demo.get("language_deployment")
        if name is None or "url" not in demo:
            raise CommandError("there is no language model yet: run make language first")
        api, messages = Client(demo["url"], demo["api_key"], 600), []
        while line := self.line():
            messages.append({"role": "user", "content": line})
            try:
                messages.append({"role": "assistant", "content": self.answer(api, name, messages)})
            except Refused as error:
                raise CommandError(str(error)) from None
            except OSError as error:
                raise CommandError(f"nothing answers at {demo['url']}: run make language ({error})") from None

    def line(self) -> str:
        try:
            return input("you> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return ""

    def answer(self, api: Client, name: str, messages: list[dict[str, str]]) -> str:
        """Ctrl-C ends the answer, not the conversation."""
        said = ""
        asked = {"model": name, "messages": messages, "stream": True} | SAMPLING
        try:
            for piece in api.stream("/v1/chat/completions", asked):
                said += piece
                self.stdout.write(piece, ending="")
                self.stdout.flush()
        except KeyboardInterrupt:
            pass
        self.stdout.write("")
        return said
