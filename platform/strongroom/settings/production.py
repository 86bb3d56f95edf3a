"""PostgreSQL with three roles, Redis as the broker, nginx in front."""

from strongroom.settings.databases import postgresql
from strongroom.settings.defaults import *
from strongroom.settings.defaults import CELERY, ENVIRONMENT
from strongroom.settings.environment import SettingInvalid

if not (ENVIRONMENT.database_url and ENVIRONMENT.broker_url):
    raise SettingInvalid("STRONGROOM_MODE=production needs STRONGROOM_DATABASE_URL and STRONGROOM_BROKER_URL")
if ENVIRONMENT.ring_path.is_relative_to(ENVIRONMENT.store_path.resolve()):
    raise SettingInvalid(
        "STRONGROOM_KMS: the ring lies under the storage folder; a copy of the storage would hold the keys"
    )

DATABASES = {"default": postgresql(ENVIRONMENT.database_url, "STRONGROOM_DATABASE_URL")}
if ENVIRONMENT.system_database_url:
    DATABASES["system"] = postgresql(ENVIRONMENT.system_database_url, "STRONGROOM_SYSTEM_DATABASE_URL")
if ENVIRONMENT.owner_database_url:
    DATABASES["owner"] = postgresql(ENVIRONMENT.owner_database_url, "STRONGROOM_OWNER_DATABASE_URL")
CELERY |= {
    "broker_url": ENVIRONMENT.broker_url,
    # 0.5 s: a broker that accepts and stays silent holds a publish for that long, never a request
    "broker_transport_options": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "visibility_timeout": 3600},
}
if ENVIRONMENT.listed("trusted_proxies"):
    # the header is taken off requests that come from elsewhere (rest/requests.py)
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in ENVIRONMENT.listed("allowed_hosts")]
