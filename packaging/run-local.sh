#!/bin/bash
# A parent and a child on this machine: the real program with real configuration files, everything below ./run.
#
#   packaging/run-local.sh PROGRAM [DIRECTORY]
#
# The child collects this machine every second and streams to the parent. The files below run/*/etc are written once and are then
# yours to edit; remove the directory to begin anew. PARENT_PORT and CHILD_PORT change the ports for files written from then on.
# Ctrl-C stops both and waits for them. RUN_SECONDS ends the run by itself (tests use it).
set -u

here=$(cd "$(dirname "$0")/.." && pwd)
program=${1:?usage: run-local.sh PROGRAM [DIRECTORY]}
dir=${2:-$here/run}
parent_port=${PARENT_PORT:-19999}
child_port=${CHILD_PORT:-19998}
[ -x "$program" ] || { echo "run: there is no program '$program'" >&2; exit 1; }

# --- configuration ----------------------------------------------------------------------------------------------------

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
key_file=$dir/api-key
[ -s "$key_file" ] || (umask 077 && cat /proc/sys/kernel/random/uuid >"$key_file")
key=$(cat "$key_file")

# addresses NAME PORT: the loopback addresses this machine has
addresses() {
    printf '127.0.0.1:%s' "$1"
    if grep -q '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null; then printf ' [::1]:%s' "$1"; fi
}

# netdata_conf NAME PORT
netdata_conf() {
    # What the child collects is kept by the parent.
    local mode=dbengine
    [ "$1" = parent ] || mode=ram
    cat <<CONF
# Written by 'make run' for $dir. Edit it as you like: it is not written again while it stands here.
[global]
    hostname = $1
    run as user = $(id -un)

[db]
    mode = $mode
    retention = 3600
    update every = 1

[directories]
    config = $dir/$1/etc
    stock config = $here/conf.d
    cache = $dir/$1/cache
    lib = $dir/$1/lib
    log = $dir/$1/log
    home = $dir/$1/lib
    lock = $dir/$1/run
    plugins = "$here/plugins.d"
    web = $here/web/dist

# Nobody is told of alarms of a trial; they are shown all the same.
[health]
    script to execute on alarm = /bin/true

[web]
    default port = $2
    bind to = $(addresses "$2")
CONF
}

# configure NAME PORT STREAM_CONF
configure() {
    mkdir -p "$dir/$1"/{etc,cache,lib,log,run}
    local conf=$dir/$1/etc/netdata.conf
    grep -qsF "make run' for $dir." "$conf" || netdata_conf "$1" "$2" >"$conf"
    # Files of before there was a dashboard name its sources.
    sed -i "s|^\( *web = $here/web\)\$|\1/dist|" "$conf"
    [ -e "$dir/$1/etc/stream.conf" ] || (umask 077 && printf '%s\n' "$3" >"$dir/$1/etc/stream.conf")
}

configure parent "$parent_port" "# Children that know this API key may stream to us.
[$key]
    enabled = yes
    type = api
    allow from = localhost
    default memory mode = dbengine
    default history = 3600"

configure child "$child_port" "# Where our metrics go.
[stream]
    enabled = yes
    destination = 127.0.0.1:$parent_port
    api key = $key
    reconnect delay seconds = 1"

# The ports of the files, which may be older than this run.
port_of() { sed -n 's/^[[:space:]]*default port = *//p' "$dir/$1/etc/netdata.conf" | tail -n 1; }
parent_port=$(port_of parent)
child_port=$(port_of child)

# --- talking to an agent ----------------------------------------------------------------------------------------------

# get PORT PATH: the answer of GET, head and body
get() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
        timeout 5 cat <&3
    ) 2>/dev/null
}

# number NAME: the first number of that member in the JSON on standard input, 0 without one
number() {
    local n
    n=$(grep -o "\"$1\": *-\{0,1\}[0-9]*" | head -n 1 | grep -o '[0-9-]*$')
    echo "${n:-0}"
}

ticks_per_second=$(getconf CLK_TCK 2>/dev/null || echo 100)

# cpu_ticks PID: user and system time so far
cpu_ticks() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || { echo 0; return; }
    read -ra fields <<<"${stat##*) }"
    echo $((fields[11] + fields[12]))
}

rss_kib() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null || echo 0; }

now_ms() { local n=$EPOCHREALTIME; n=${n/[.,]/}; echo $((n / 1000)); }

# --- life -------------------------------------------------------------------------------------------------------------

parent_pid='' child_pid='' leaving=''

stop_agent() { # NAME PID
    [ -n "$2" ] && kill -0 "$2" 2>/dev/null || return 0
    kill -TERM "$2" 2>/dev/null
}

leave() {
    [ -z "$leaving" ] || return
    leaving=yes
    printf '\nstopping …\n'
    stop_agent child "$child_pid"
    stop_agent parent "$parent_pid"
    local code=0 name pid
    for name in child parent; do
        pid=${name}_pid
        pid=${!pid}
        [ -n "$pid" ] || continue
        wait "$pid"
        code=$?
        [ $code = 0 ] && echo "$name stopped" || echo "$name ended with exit code $code; see $dir/$name/log/error.log"
    done
}
trap 'leave; exit 0' INT TERM HUP

# start NAME PORT: sets NAME_pid once it answers
start() {
    "$program" -D -c "$dir/$1/etc/netdata.conf" -P "$dir/$1/run/netdata.pid" >>"$dir/$1/log/output.log" 2>&1 </dev/null &
    printf -v "$1_pid" %s $!
    local pid=$! end=$((SECONDS + 20))
    until get "$2" /api/v1/info | grep -q '^HTTP/1.1 200'; do
        if ! kill -0 "$pid" 2>/dev/null; then
            echo "run: the $1 did not start; the end of its log:" >&2
            tail -n 5 "$dir/$1/log/output.log" "$dir/$1/log/error.log" >&2
            printf -v "$1_pid" %s ''
            leave
            exit 1
        fi
        [ $SECONDS -lt $end ] || { echo "run: the $1 does not answer on port $2" >&2; leave; exit 1; }
        sleep 0.2
    done
}

for port in "$parent_port" "$child_port"; do
    if get "$port" / | grep -q .; then
        echo "run: something answers on port $port already (PARENT_PORT=… CHILD_PORT=… choose others for a new ./run)" >&2
        exit 1
    fi
done

start parent "$parent_port"
start child "$child_port"
cat <<TEXT

  parent  http://localhost:$parent_port    pid $parent_pid    $dir/parent
  child   http://localhost:$child_port    pid $child_pid    $dir/child

  The child collects this machine every second and streams it to the parent. Ctrl-C stops both.

TEXT

ends=${RUN_SECONDS:-}
[ -z "$ends" ] || ends=$((SECONDS + ends))
was_ms=$(now_ms) was_parent=$(cpu_ticks "$parent_pid") was_child=$(cpu_ticks "$child_pid")
while kill -0 "$parent_pid" 2>/dev/null && kill -0 "$child_pid" 2>/dev/null; do
    [ -z "$ends" ] || [ $SECONDS -lt "$ends" ] || break
    sleep 2 &
    wait $! 2>/dev/null
    own=$(get "$parent_port" /api/v1/info)
    far=$(get "$parent_port" /host/child/api/v1/info)
    nodes=$(printf '%s' "$own" | tr -d '\n' | grep -o '"mirrored_hosts": *\[[^]]*\]' | grep -o '"' | wc -l)
    nodes=$(((nodes - 2) / 2))
    charts=$(($(number charts-count <<<"$own") + $(number charts-count <<<"$far")))
    metrics=$(($(number metrics-count <<<"$own") + $(number metrics-count <<<"$far")))
    last=$(get "$parent_port" "/host/child/api/v1/chart?chart=system.cpu" | number last_entry)
    lag=-
    [ "$last" = 0 ] || lag=$(($(date +%s) - last))
    ms=$(now_ms) parent_ticks=$(cpu_ticks "$parent_pid") child_ticks=$(cpu_ticks "$child_pid")
    line=$(awk -v n="$nodes" -v c="$charts" -v m="$metrics" -v lag="$lag" -v hz="$ticks_per_second" -v ms=$((ms - was_ms)) \
        -v p=$((parent_ticks - was_parent)) -v q=$((child_ticks - was_child)) -v pr="$(rss_kib "$parent_pid")" -v cr="$(rss_kib "$child_pid")" 'BEGIN {
        if (ms < 1) ms = 1
        printf "nodes %d  charts %d  samples/s %d  lag %s s  parent %.1f%% cpu %.1f MiB  child %.1f%% cpu %.1f MiB",
            n, c, m, lag, p / hz * 100000 / ms, pr / 1024, q / hz * 100000 / ms, cr / 1024 }')
    if [ -t 1 ]; then printf '\r  %s \033[K' "$line"; else echo "  $line"; fi
    was_ms=$ms was_parent=$parent_ticks was_child=$child_ticks
done
[ -n "$ends" ] && [ $SECONDS -ge "$ends" ] && { leave; exit 0; }
echo "run: an agent ended by itself" >&2
leave
exit 1
