#!/bin/bash
# Builds the dashboard, web/dist, where npm is at hand. Without npm, or without what it has to fetch, that is said and nothing fails:
# the agent then serves its plain first page (src/web/first_page.html).
#   packaging/web.sh          build it unless it is newer than its sources
#   packaging/web.sh check    fail where it cannot be built (CI, where npm is)
set -uo pipefail
cd "$(dirname "$0")/../web" || exit 1

OLDEST_NODE=20
strict=${1:-}
without() {
    echo "web: the dashboard is not built: $1; the agent serves its plain first page instead. To have it: install Node $OLDEST_NODE and npm, then make web" >&2
    [ "$strict" = check ] && exit 1
    exit 0
}

# Newer than all it is made of: nothing to do.
if [ -z "$strict" ] && [ -e dist/index.html ] && [ -z "$(find src index.html package-lock.json vite.config.ts tsconfig.json -newer dist/index.html -print -quit)" ]; then
    exit 0
fi
command -v npm >/dev/null || without "npm is not installed"
major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
[ "$major" -ge "$OLDEST_NODE" ] || without "node is older than $OLDEST_NODE"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# What is installed is as the lock file says.
if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
    timeout 300 npm ci --no-audit --no-fund >"$log" 2>&1 </dev/null || { tail -n 5 "$log" >&2; without "npm could not fetch what the dashboard is built with"; }
    touch node_modules/.package-lock.json
fi
npm run --silent build >"$log" 2>&1 </dev/null || { tail -n 30 "$log" >&2; rm -rf dist; without "the dashboard could not be built"; }
grep -E 'gzip|built' "$log" || true
