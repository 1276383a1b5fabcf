#!/bin/bash
# The real netdata of Debian 12, for tests and benches that need a peer: prints where it is.
# An installed one is used as it is. Otherwise its packages, and the libraries they need, are downloaded and unpacked
# below target/peer: no root, no service, nothing outside the target directory.
#
#   tests/peer.sh            prepares it where needed; exit code 1 when there is none to be had
set -euo pipefail
cd "$(dirname "$0")/.."

PEER="${CARGO_TARGET_DIR:-$PWD/target}/peer"
PACKAGES="netdata-core netdata-plugins-bash netdata-plugins-python"

if [ -z "${PEER_UNPACK:-}" ] && [ -x /usr/sbin/netdata ] && [ -x /usr/lib/netdata/plugins.d/charts.d.plugin ] && [ -x /usr/lib/netdata/plugins.d/python.d.plugin ]; then
    /usr/sbin/netdata -V 2>/dev/null | grep -q 'v1\.37' && { echo /usr/sbin/netdata; exit 0; }
fi

if [ ! -e "$PEER/.done" ]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "peer: no apt-get and dpkg-deb here" >&2; exit 1; }
    rm -rf "$PEER"
    mkdir -p "$PEER/debs"
    cd "$PEER/debs"
    # what is missing on this machine of all that the packages depend on, python itself excepted
    wanted=$PACKAGES
    for p in $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $PACKAGES 2>/dev/null | grep '^[a-z0-9]' | grep -E '^(lib(uv1|json-c5|lz4-1|cap2|mnl0|netfilter-acct1|uuid1|ssl3)|python3-(six|urllib3|yaml)|libyaml-0-2)$' | sort -u); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || wanted="$wanted $p"
    done
    if ! apt-get download $wanted >"$PEER/download.log" 2>&1; then
        if [ "$(id -u)" = 0 ]; then apt-get update -qq >>"$PEER/download.log" 2>&1 </dev/null || true; fi
        apt-get download $wanted >>"$PEER/download.log" 2>&1 || { echo "peer: cannot download $wanted:" >&2; tail -3 "$PEER/download.log" >&2; exit 1; }
    fi
    for d in *.deb; do dpkg-deb -x "$d" "$PEER"; done
    cd "$PEER"
    rm -rf debs
    # one way in for every caller: the libraries beside it, everything else from the configuration it is given
    cat >"$PEER/netdata" <<WRAPPER
#!/bin/sh
here=\$(dirname "\$0")
LD_LIBRARY_PATH="\$here/usr/lib/\$(uname -m)-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "\$here/usr/sbin/netdata" "\$@"
WRAPPER
    chmod +x "$PEER/netdata"
    "$PEER/netdata" -V >/dev/null 2>&1 || { echo "peer: it was unpacked but does not run" >&2; exit 1; }
    touch "$PEER/.done"
fi
echo "$PEER/netdata"
