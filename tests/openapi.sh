#!/bin/bash
# Checks a running agent against its own description: schemathesis asks for every path of /api/openapi.json with many values of
# every parameter, and every answer has to have a status, a content type and members that the description names.
# Usage: tests/openapi.sh PROGRAM PYTHON [SEED], PYTHON having schemathesis.
set -euo pipefail

program=$(realpath "$1") python=$2 seed=${3:-$RANDOM}
work=$(mktemp -d)
agent=
finish() {
    if [ -n "$agent" ]; then
        kill "$agent" 2>/dev/null || true
        wait "$agent" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

mkdir -p "$work"/{etc,cache,lib,log,run,web,plugins}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/etc/netdata.conf" <<CONF
[global]
    run as user = $(id -un)
    hostname = described
[db]
    mode = ram
[directories]
    config = $work/etc
    stock config = $work/etc
    cache = $work/cache
    lib = $work/lib
    log = $work/log
    plugins = "$work/plugins"
    web = $work/web
[web]
    bind to = 127.0.0.1:$port
CONF
VIRTUALIZATION=none DO_NOT_TRACK=1 "$program" -D -c "$work/etc/netdata.conf" -P "$work/run/netdata.pid" >"$work/log/output.log" 2>&1 &
agent=$!

echo "schemathesis with seed $seed"
status=0
cd "$work"
"${python%/*}/schemathesis" run "http://127.0.0.1:$port/api/openapi.json" --wait-for-schema 30 \
    --checks status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance \
    --phases examples,coverage,fuzzing --mode positive --max-examples 12 --max-time 100 --request-timeout 20 --workers 2 --no-shrink --seed "$seed" \
    --suppress-health-check all || status=$?
if ! kill -0 "$agent" 2>/dev/null; then
    echo "the agent is gone:" >&2
    tail -20 "$work/log/"* >&2
    exit 1
fi
exit "$status"
