#!/bin/bash
# Databases of Debian's own packages that tests/daemon/databases.rs exports to: carbon, VictoriaMetrics, Prometheus, InfluxDB.
# What is installed is used as it is. What is missing is downloaded and unpacked below target/sinks: no root, no service,
# nothing outside the target directory. Prints that directory; exit code 1 when something cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

SINKS="${CARGO_TARGET_DIR:-$PWD/target}/sinks"
PROGRAMS="victoria-metrics prometheus influxdb graphite-carbon"
# What carbon is written in, and what that needs.
PYTHON="python3-whisper python3-cachetools python3-urllib3 python3-six python3-twisted python3-attr python3-automat python3-constantly
    python3-hamcrest python3-hyperlink python3-idna python3-incremental python3-zope.interface python3-typing-extensions python3-openssl
    python3-cryptography python3-cffi-backend python3-service-identity python3-pyasn1 python3-pyasn1-modules python3-bcrypt"

if [ ! -e "$SINKS/.done" ]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "sinks: no apt-get and dpkg-deb here" >&2; exit 1; }
    rm -rf "$SINKS"
    mkdir -p "$SINKS/debs"
    cd "$SINKS/debs"
    failed=
    for p in $PROGRAMS $PYTHON; do
        apt-get download "$p" >>"$SINKS/download.log" 2>&1 || failed="$failed $p"
    done
    for d in *.deb; do [ -e "$d" ] && dpkg-deb -x "$d" "$SINKS"; done
    cd "$SINKS"
    rm -rf debs
    [ -z "$failed" ] || { echo "sinks: cannot download$failed (see $SINKS/download.log)" >&2; exit 1; }
    touch .done
fi
echo "$SINKS"
