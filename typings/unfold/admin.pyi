# unfold has no py.typed: its ModelAdmin is Django's with more looks. Django's log is typed as nothing: audit/ is ours.
from typing import Any

from django.contrib.admin import ModelAdmin as DjangoAdmin
from django.http import HttpRequest

class ModelAdmin(DjangoAdmin[Any]):
    list_before_template: str | None
    list_filter_sheet: bool
    def get_list_filter(self, request: HttpRequest) -> Any: ...
    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None: ...  # type: ignore[override]
    log_change: Any
    log_deletion: Any
    log_deletions: Any
