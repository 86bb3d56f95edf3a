"""One machine, no server: SQLite in WAL mode, Celery over files, objects and keys in the home folder."""

from strongroom.settings.defaults import *
from strongroom.settings.defaults import CELERY, HOME

HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HOME / "strongroom.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=20000;",
        },
    }
}
_folder = HOME / "broker"
for _name in ("messages", "control"):
    (_folder / _name).mkdir(parents=True, exist_ok=True, mode=0o700)
CELERY |= {
    "broker_url": "filesystem://localhost",
    "broker_transport": "strongroom.broker:Transport",
    "broker_transport_options": {
        "data_folder_in": str(_folder / "messages"),
        "data_folder_out": str(_folder / "messages"),
        "control_folder": str(_folder / "control"),
        "store_processed": False,
        "polling_interval": 0.1,
    },
}
