"""How the two admin sites look and what their side bars hold (django-unfold's settings, one dictionary a site)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.urls import reverse_lazy


def _may(scope: str) -> Callable[[Any], bool]:
    def allowed(request: Any) -> bool:
        return request.principal is not None and scope in request.principal.scopes

    return allowed


def _item(title: str, icon: str, model: str, scope: str | None = None, site: str = "admin") -> dict[str, Any]:
    item: dict[str, Any] = {"title": title, "icon": icon, "link": reverse_lazy(f"{site}:{model}_changelist")}
    return item if scope is None else item | {"permission": _may(scope)}


_COMMON: dict[str, Any] = {
    "SITE_TITLE": "Strongroom",
    "SITE_HEADER": "Strongroom",
    "SITE_SYMBOL": "shield_lock",
    "SITE_URL": None,
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "8px",
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.6)",
            "100": "oklch(93.2% .032 255.6)",
            "200": "oklch(88.2% .059 254.1)",
            "300": "oklch(80.9% .105 251.8)",
            "400": "oklch(70.7% .165 254.6)",
            "500": "oklch(62.3% .214 259.8)",
            "600": "oklch(54.6% .245 262.9)",
            "700": "oklch(48.8% .243 264.4)",
            "800": "oklch(42.4% .199 265.6)",
            "900": "oklch(37.9% .146 265.5)",
            "950": "oklch(28.2% .091 267.9)",
        }
    },
}

UNFOLD = _COMMON | {
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Work",
                "items": [
                    {"title": "Overview", "icon": "space_dashboard", "link": reverse_lazy("admin:index")},
                    _item("Data sets", "database", "datasets_datasetversion", "datasets:read"),
                    _item("Jobs", "play_circle", "jobs_job", "jobs:read"),
                    _item("Models", "neurology", "registry_modelversion", "models:read"),
                    _item("Deployments", "rocket_launch", "deployments_deployment", "deployments:read"),
                ],
            },
            {
                "title": "Tenant",
                "items": [
                    _item("API keys", "key", "access_apikey", "keys:write"),
                    _item("Members", "group", "tenants_member", "tenant:read"),
                    _item("Audit", "history", "audit_entry", "audit:read"),
                ],
            },
        ]
    }
}

UNFOLD_OPERATOR = _COMMON | {
    "SITE_HEADER": "Strongroom operator",
    "SITE_SYMBOL": "admin_panel_settings",
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Platform",
                "items": [
                    {"title": "Overview", "icon": "space_dashboard", "link": reverse_lazy("operator:index")},
                    _item("Tenants", "domain", "tenants_tenant", site="operator"),
                    _item("Jobs", "play_circle", "jobs_job", site="operator"),
                    _item("Deployments", "rocket_launch", "deployments_deployment", site="operator"),
                    _item("API keys", "key", "access_apikey", site="operator"),
                    _item("Artefacts", "inventory_2", "vault_artefact", site="operator"),
                    _item("Audit", "history", "audit_entry", site="operator"),
                ],
            }
        ]
    },
}
