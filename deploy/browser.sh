#!/usr/bin/env bash
# Brings the Chromium that the browser tests drive, from the distribution's packages.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    exec apt-get install -y -qq --no-install-recommends chromium
fi
echo "The browser tests need Chromium: install the package 'chromium' and run make again." >&2
exit 1
