"""Finding a key that no cache knows, with a thousand and with a million keys in the table: medians."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.report import Figure
from tests.nodes import Node

# Runs inside `manage.py shell` of the node. Rows are copied from the one real key; only their hashes differ.
PROGRAM = """
import json, os, statistics, time
from django.db import connections
from strongroom.access import services
from strongroom.access.models import ApiKey
from strongroom.tenants import scope
from strongroom import ids
secret = {secret!r}
with scope.operator("bench"):
    like = ApiKey.objects.get(secret_sha256=services.secrets.digest(secret))
    have = ApiKey.objects.count()
while have < {count}:
    with scope.operator("bench"):
        rows = []
        for _ in range(min(20_000, {count} - have)):
            row = ApiKey.objects.model(**{{f.attname: getattr(like, f.attname) for f in like._meta.concrete_fields}})
            row.id, row.secret_sha256, row.prefix = ids.new(), os.urandom(32), "sr_" + os.urandom(5).hex()
            rows.append(row)
        ApiKey.objects.bulk_create(rows, batch_size=2000)
        have += len(rows)
took = []
for _ in range(300):
    began = time.perf_counter()
    services.find(secret)
    took.append(time.perf_counter() - began)
print(json.dumps(statistics.median(took) * 1e6))
"""


def measure(node: Node, key: str) -> Iterator[Figure]:
    few = node.shell(PROGRAM.format(secret=key, count=1_000))
    yield Figure("key look-up, 1 thousand keys, p50", few, "us")
    many = node.shell(PROGRAM.format(secret=key, count=1_000_000))
    yield Figure.against("key look-up, 1 million keys, p50", many, "us", few)
