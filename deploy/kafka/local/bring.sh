#!/usr/bin/env bash
# Brings the jars of the Apache Kafka server that pom.xml pins into build/kafka/lib, with Maven; afterwards no
# network is needed. Java and Maven come from the distribution's packages if this user may install them.
# Otherwise the Kafka tests are skipped, and say so; with CI set that is an error.
set -euo pipefail
cd "$(dirname "$0")/../../.."
target=build/kafka/lib
if ! { command -v java && command -v mvn; } >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless maven
    else
        echo "The Kafka tests need Java 17 and Maven: install them (Debian: openjdk-17-jre-headless, maven)" >&2
        echo "and run make again; until then they are skipped." >&2
        [ -z "${CI:-}" ]
        exit
    fi
fi
rm -rf "$target.draft"
mvn -B -q -f deploy/kafka/local/pom.xml dependency:copy-dependencies -DoutputDirectory="$PWD/$target.draft"
rm -rf "$target"
mv "$target.draft" "$target"
touch build/kafka/brought
