"""Tenants, their members, the people who sign in; and `Owned`, what every tenant's row is made of."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils import timezone

from strongroom import ids
from strongroom.tenants import scope

T = TypeVar("T", bound=models.Model)


class TenantState(models.TextChoices):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    SHREDDING = "shredding"
    SHREDDED = "shredded"


class Role(models.TextChoices):
    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class UserManager(BaseUserManager["User"]):
    """People by their e-mail address, in lower case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save()
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser):
    """A person. Belongs to tenants by Member; `is_operator` opens the operator's site, and no tenant's content."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_operator = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    # The tenant that made the account and knew its first password; null where the operator vouches for whose it is.
    made_by = models.UUIDField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return self.email

    @property
    def is_staff(self) -> bool:
        """What Django's own admin asks; our two sites have their own rules."""
        return self.is_active

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False

    def get_short_name(self) -> str:
        return self.name or self.email

    get_full_name = get_short_name


class Tenant(models.Model):
    """An organisation. Everything it deposits hangs on its id."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    name = models.SlugField(max_length=63, unique=True)
    display_name = models.CharField(max_length=120, blank=True)
    state = models.CharField(max_length=10, choices=TenantState.choices, default=TenantState.ACTIVE)
    limits = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.display_name or self.name


class OwnedManager(models.Manager[T]):
    """Every query of a tenant's table starts here, Django's own related and default look-ups included."""

    use_in_migrations = False

    def get_queryset(self) -> models.QuerySet[T]:
        asked = scope.required()
        rows = super().get_queryset()
        return rows if asked.is_operator else rows.filter(tenant_id=asked.tenant_id)

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> Any:
        rows = list(objs)
        for row in rows:
            row.stamp()
        return super().bulk_create(rows, *args, **kwargs)


class Owned(models.Model):
    """A row of one tenant. A subclass's Meta inherits Owned.Meta, or both managers' names are lost (system check)."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, editable=False, related_name="+")

    objects = OwnedManager["Any"]()

    class Meta:
        abstract = True
        base_manager_name = "objects"
        default_manager_name = "objects"

    def stamp(self) -> None:
        """Gives the row its tenant; NoScope when it would be another's."""
        asked = scope.required()
        if asked.tenant_id is None:
            if self.tenant_id is None:
                raise scope.NoScope("a row needs its tenant named in the operator's scope")
        elif self.tenant_id is None:
            self.tenant_id = asked.tenant_id
        elif self.tenant_id != asked.tenant_id:
            raise scope.NoScope("a row of another tenant")

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.stamp()
        super().save(*args, **kwargs)


class Numbered(Owned):
    """An owned row with a database-given, growing number as its id (events, log lines, audit)."""

    id = models.BigAutoField(primary_key=True)  # type: ignore[assignment]  # a number in place of the UUID

    class Meta(Owned.Meta):
        abstract = True


class Member(Owned):
    """A person's role in a tenant."""

    user = models.ForeignKey(User, models.CASCADE, related_name="+")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta(Owned.Meta):
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="member_once")]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class Made(models.Model):
    """Who made a row: kind key, member, operator or system, and its id (null for system)."""

    created_by_kind = models.CharField(max_length=8, default="system", editable=False)
    created_by_id = models.UUIDField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True
