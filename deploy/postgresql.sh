#!/usr/bin/env bash
# Brings the PostgreSQL server that the tests start, from the distribution's packages.
set -euo pipefail
if command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # Else the package makes a cluster of its own, and starts it.
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-main-cluster.conf
    apt-get update -qq
    exec apt-get install -y -qq --no-install-recommends postgresql
fi
echo "The PostgreSQL tests need a server: install the package 'postgresql' and run make again; until then they" >&2
echo "are skipped." >&2
[ -z "${CI:-}" ]
