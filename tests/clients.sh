#!/bin/bash
# Programs that people use with Netdata, unchanged, against a parent and a child of PROGRAM: the clients of PyPI, Debian's Prometheus,
# the shell. What they are is installed below the target directory, once; about a minute.
#   tests/clients.sh PROGRAM
# Where the packages cannot be had it says so, loudly, and passes: then nothing of them was tested.
# (The dashboard of netdata-web is looked at by tests/web.sh, the curl examples of the streaming document by tests/compat/api.rs.)
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${1:?usage: clients.sh PROGRAM}")
target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$target/clients
# netdata-pandas wants a trio of its time, and nothing of what netdata-llm-agent does needs the models that it is made for.
packages="netdata==1.3.0 netdata-pandas==0.0.46 trio==0.22.2 netdata-cli==0.2.0 tempcli==0.1.0 requests markdownify"
alone="netdata-llm-agent==0.4.0"
skip() {
    printf '\n    ************************************************************\n    THE CLIENTS ARE NOT TESTED: %s\n    ************************************************************\n\n' "$1" >&2
    exit 0
}

if [ "$(cat "$venv/.done" 2>/dev/null)" != "$packages $alone" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" 2>/dev/null || { packaging/deps.sh venv && python3 -m venv "$venv"; } || skip "Python has no venv here"
    install() { timeout 300 "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" </dev/null; }
    # shellcheck disable=SC2086
    { install $packages && install --no-deps $alone; } || skip "the packages cannot be had"
    echo "$packages $alone" >"$venv/.done"
fi
prometheus=$(command -v prometheus || true)
if [ -z "$prometheus" ]; then
    sinks=$(tests/sinks.sh) && prometheus=$sinks/usr/bin/prometheus || echo "without Prometheus, then" >&2
fi

work=$(mktemp -d)
agents=()
finish() {
    for agent in "${agents[@]}"; do
        kill "$agent" 2>/dev/null || true
        wait "$agent" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

port() { "$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
key=2a9f2c0e-0a43-4f5e-8f0e-5b0f7d6b1c77
# start NAME PORT MODE HEALTH; its stream.conf is on standard input
start() {
    local dir=$work/$1
    mkdir -p "$dir"/{etc/health.d,cache,lib,log,run,plugins}
    cp tests/clients/feed.plugin "$dir/plugins/"
    chmod 755 "$dir/plugins/feed.plugin"
    cp tests/clients/fed.conf "$dir/etc/health.d/"
    cat >"$dir/etc/stream.conf"
    cat >"$dir/etc/netdata.conf" <<CONF
[global]
    run as user = $(id -un)
    hostname = $1
[db]
    mode = $3
[health]
    enabled = $4
    run at least every seconds = 1
    script to execute on alarm = /bin/true
[directories]
    config = $dir/etc
    stock config = $dir/etc
    stock health config = $dir/none
    cache = $dir/cache
    lib = $dir/lib
    log = $dir/log
    plugins = "$dir/plugins"
    web = $dir/none
[web]
    bind to = 127.0.0.1:$2
CONF
    VIRTUALIZATION=none DO_NOT_TRACK=1 "$program" -D -c "$dir/etc/netdata.conf" -P "$dir/run/netdata.pid" >"$dir/log/output.log" 2>&1 &
    agents+=($!)
}
parent=$(port)
start served "$parent" dbengine yes <<CONF
[$key]
    enabled = yes
    default memory mode = dbengine
    health enabled by default = no
CONF
start kid "$(port)" ram no <<CONF
[stream]
    enabled = yes
    destination = 127.0.0.1:$parent
    api key = $key
    reconnect delay seconds = 1
CONF

status=0
timeout 240 "$venv/bin/python" tests/clients/check.py "$parent" ${prometheus:+"$prometheus"} || status=$?
for agent in "${agents[@]}"; do
    if ! kill -0 "$agent" 2>/dev/null; then
        echo "an agent is gone:" >&2
        status=1
    fi
done
[ "$status" = 0 ] || tail -n 15 "$work"/*/log/error.log >&2
exit "$status"
