#!/bin/bash
# The dashboard's tests: its logic by itself, then as a whole in Debian's Chromium against agents of PROGRAM and Debian's real netdata
# where that is at hand; then the dashboard of Debian's package netdata-web, served by PROGRAM. Pictures of all views are left in target/web.
#   tests/web.sh PROGRAM
# Without npm or Chromium it says so, loudly, and passes: then nothing of the dashboard was tested.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${1:?usage: web.sh PROGRAM}")
skip() {
    printf '\n    ************************************************************\n    THE DASHBOARD IS NOT TESTED: %s\n    ************************************************************\n\n' "$1" >&2
    exit 0
}
command -v npm >/dev/null || skip "npm is not here"
packaging/web.sh
[ -e web/dist/index.html ] && [ -d web/node_modules/vitest ] || skip "it could not be built"

cd web
npm run --silent check
npm test --silent

chromium=$(command -v chromium || true)
if [ -z "$chromium" ]; then
    ../packaging/deps.sh browser || skip "Chromium cannot be had, only its logic was"
    chromium=$(command -v chromium)
fi
artefacts=${CARGO_TARGET_DIR:-$PWD/../target}/web
real=$(../tests/peer.sh 2>/dev/null) || real=
original=$(../tests/netdata-web.sh) || echo "without the dashboard of Debian's netdata-web, then" >&2
CHROMIUM=$chromium NETDATA_BIN=$program NETDATA_REAL=$real NETDATA_WEB=$original ARTEFACTS=$artefacts \
    timeout 900 npx --no-install vitest run --config tests/browser/vitest.config.ts
echo "pictures of all views are in $artefacts"
