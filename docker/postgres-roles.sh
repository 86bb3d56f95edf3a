#!/bin/sh
# The three roles: owner migrates, app serves tenants, system does what has no tenant. Runs once, on an empty database.
set -eu
for role in app system owner; do
  psql -v ON_ERROR_STOP=1 -U postgres -d strongroom -v role="$role" -v word="$(cat "/run/secrets/${role}_password")" <<'SQL'
CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'word';
GRANT CONNECT ON DATABASE strongroom TO :"role";
SQL
done
psql -v ON_ERROR_STOP=1 -U postgres -d strongroom <<'SQL'
ALTER ROLE system BYPASSRLS;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO app, system;
GRANT USAGE, CREATE ON SCHEMA public TO owner;
SQL
