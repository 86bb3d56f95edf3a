"""A select whose options say of which kind they are, so that the page shows the fields of the chosen one's kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unfold import widgets


class KindSelect(widgets.UnfoldAdminSelectWidget):
    """`kinds`: an option's value → its kind. static/console/page.js reads it."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        super().__init__()
        self.kinds = kinds

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option: dict[str, Any] = super().create_option(name, value, *args, **kwargs)
        option["attrs"]["data-kind"] = self.kinds.get(str(value), "")
        return option
