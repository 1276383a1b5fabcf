#!/bin/bash
# The dashboard of Debian's package netdata-web, with the fonts it links to, unpacked below target/netdata-web and not installed:
# prints its directory, for `[directories] web`. Exit code 1 when it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

DIR="${CARGO_TARGET_DIR:-$PWD/target}/netdata-web"
PACKAGES="netdata-web fonts-font-awesome fonts-glyphicons-halflings libjs-bootstrap"

if [ ! -e "$DIR/web/index.html" ]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "netdata-web: no apt-get and dpkg-deb here" >&2; exit 1; }
    rm -rf "$DIR"
    mkdir -p "$DIR/debs"
    cd "$DIR/debs"
    # shellcheck disable=SC2086
    if ! apt-get download $PACKAGES >"$DIR/download.log" 2>&1; then
        if [ "$(id -u)" = 0 ]; then apt-get update -qq >>"$DIR/download.log" 2>&1 </dev/null || true; fi
        apt-get download $PACKAGES >>"$DIR/download.log" 2>&1 || { echo "netdata-web: cannot download $PACKAGES:" >&2; tail -3 "$DIR/download.log" >&2; exit 1; }
    fi
    for d in *.deb; do dpkg-deb -x "$d" "$DIR/root"; done
    cd "$DIR"
    # Its links lead out of its directory, to where the other packages are installed.
    cp -rL root/usr/share/netdata/web copy
    rm -rf debs root
    mv copy web
fi
echo "$DIR/web"
