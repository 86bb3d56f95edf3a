"""Root URLs of what Django answers: the two admin sites, the native API, the documentation."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
