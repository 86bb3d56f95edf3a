"""What every mode has in common. Values that a person may change come from environment.py only."""

from __future__ import annotations

from csp.constants import NONCE, NONE, SELF

from strongroom.settings.environment import read
from strongroom.settings.panel import UNFOLD as UNFOLD
from strongroom.settings.panel import UNFOLD_OPERATOR as UNFOLD_OPERATOR
from strongroom.settings.secret import secret_key

ENVIRONMENT = read()
HOME = ENVIRONMENT.home_path

SECRET_KEY = secret_key(ENVIRONMENT.secret_key_path)
DEBUG = False
ALLOWED_HOSTS = ENVIRONMENT.listed("allowed_hosts")
ROOT_URLCONF = "strongroom.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = ["strongroom.access.passwords.PasswordBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
DATABASE_ROUTERS = ["strongroom.tenants.scope.ScopeRouter"]

INSTALLED_APPS = [
    "strongroom.console",  # before unfold: it overrides four of its templates and one script
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "strongroom.tenants",
    "strongroom.audit",
    "strongroom.vault",
    "strongroom.access",
    "strongroom.idempotency",
    "strongroom.metering",
    "strongroom.datasets",
    "strongroom.registry",
    "strongroom.deployments",
    "strongroom.files",
    "strongroom.jobs",
    "strongroom.operations",
]

MIDDLEWARE = [
    "strongroom.rest.requests.RequestMiddleware",  # request id, body limit, one access line
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "strongroom.access.middleware.PrincipalMiddleware",  # who asks
    "strongroom.idempotency.middleware.IdempotencyMiddleware",
    "strongroom.access.middleware.ScopeMiddleware",  # the scope and its transaction
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ]
        },
    }
]

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # from the packages themselves: nothing to collect
STORAGES = {
    "default": {"BACKEND": "strongroom.rest.requests.NoFiles"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Tenants' bytes never pass Django: its parsers take no file, its bodies end at 2 MiB (edge/django.py).
FILE_UPLOAD_HANDLERS = ["strongroom.rest.requests.RefuseFiles"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

SESSION_ENGINE = "strongroom.access.session_store"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "style-src-attr": ["'unsafe-inline'"],  # unfold's own style="width:…"
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["strongroom.access.authentication.PrincipalAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["strongroom.rest.permissions.ScopeRequired"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "strongroom.rest.problem.handle",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Strongroom",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["strongroom.rest.schema.add_edge_routes"],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
}

# Celery carries wake-ups, never content: early acknowledgement, no results, no remote control, no beat.
CELERY = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_prefetch_multiplier": 1,
    "task_publish_retry": False,
    "broker_connection_timeout": 1,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_acks_late": False,
    "worker_hijack_root_logger": False,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": f"strongroom.logs.{ENVIRONMENT.log.capitalize()}Formatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django.request": {"level": "CRITICAL"},  # our own access line says it, without paths' query strings
        "django.security": {"level": "CRITICAL"},  # a traceback with the caller's header for each wrong Host
        "uvicorn.access": {"level": "WARNING"},
    },
}
