"""Production on the tests' own servers, for tests inside one process: one connection (role owner) for every scope.

Processes that tests start run in real production mode, with the three roles.
"""

from strongroom.settings.databases import postgresql
from strongroom.settings.defaults import *
from strongroom.settings.defaults import CELERY, ENVIRONMENT

DATABASES = {
    "default": postgresql(ENVIRONMENT.owner_database_url, "STRONGROOM_OWNER_DATABASE_URL") | {"CONN_MAX_AGE": 0}
}
CELERY |= {"broker_url": ENVIRONMENT.broker_url, "broker_transport_options": {"socket_timeout": 0.5}}
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.MD5PasswordHasher"
]  # the tests' passwords guard nothing; 200 ms saved each
