#!/bin/bash
# Installs the Debian packages that building, testing or benchmarking lacks, and nothing when all are there.
#   packaging/deps.sh build|test|bench|peer|lint|deb|rpm|roots ...
#   build  a C linker, OpenSSL's headers and cargo (Debian 12's own package where no newer toolchain is on the machine)
#   test   what tests/peer.sh needs to unpack and run the real netdata without installing it; openssl and tshark, which look at
#          our ports (without them those tests say "skipped:")
#   fuzz   a C++ compiler for libFuzzer; lint  shellcheck; venv  Python's venv; browser  Chromium
#   deb    what makes a Debian package, and lintian; rpm  rpmbuild; roots  what tests/package runs in
#   bench, peer  Debian's real netdata itself, installed without starting it
set -euo pipefail

OLDEST_CARGO=85 # 1.85, edition 2024

say() { echo "deps: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    elif command -v sudo >/dev/null && [ -t 0 ]; then
        sudo "$@"
    else
        return 77
    fi
}

has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

updated=
install_packages() {
    local missing=() p
    for p in "$@"; do has_package "$p" || missing+=("$p"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "these packages are missing, and this is no Debian to install them on: ${missing[*]}"
        return 1
    fi
    say "installing ${missing[*]}"
    local failed=0
    if [ -z "$updated" ]; then
        as_root apt-get update -qq >&2 </dev/null || failed=$?
        updated=1
    fi
    [ $failed = 77 ] || failed=0 # an old list of packages may still do
    [ $failed = 77 ] || as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 </dev/null || failed=$?
    if [ $failed = 77 ]; then
        say "not root, and no sudo: please install ${missing[*]} and try again"
    elif [ $failed != 0 ]; then
        say "could not install ${missing[*]}"
    fi
    return $failed
}

cargo_minor() { cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p'; }

build() {
    command -v make >/dev/null || install_packages make
    [ -e /etc/ssl/certs/ca-certificates.crt ] || install_packages ca-certificates
    command -v cc >/dev/null || install_packages gcc libc6-dev
    # The TLS of the agent is the system's; its headers are looked for with pkg-config.
    pkg-config --exists openssl 2>/dev/null || install_packages libssl-dev pkg-config
    local minor
    minor=$(cargo_minor)
    if [ -z "$minor" ] || [ "$minor" -lt $OLDEST_CARGO ]; then
        install_packages cargo-web || { say "a Rust toolchain of at least 1.$OLDEST_CARGO is needed to build"; return 1; }
    fi
}

tests() {
    local need=()
    command -v python3 >/dev/null || need+=(python3)
    command -v dpkg-deb >/dev/null || need+=(dpkg)
    [ ${#need[@]} = 0 ] || install_packages "${need[@]}"
    need=()
    command -v openssl >/dev/null || need+=(openssl)
    command -v tshark >/dev/null || need+=(tshark)
    [ ${#need[@]} = 0 ] || install_packages "${need[@]}" || say "without ${need[*]}, then: tests that use them are skipped"
}

# The real netdata, with a policy that keeps its service from starting for the time of the installation.
peer() {
    has_package netdata-core && has_package netdata-plugins-bash && has_package netdata-plugins-python && return 0
    local policy=/usr/sbin/policy-rc.d ours='' failed=0
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null || { say "not root: the real netdata is not installed"; return 1; }
        as_root chmod 755 $policy
        ours=yes
    elif $policy netdata start 2>/dev/null; then
        say "$policy lets services start: not installing the real netdata"
        return 1
    fi
    # stream.conf and netdata.conf of an earlier installation stay as they are
    install_packages netdata-core netdata-plugins-bash netdata-plugins-python || failed=$?
    [ -z "$ours" ] || as_root rm -f $policy
    if [ $failed = 0 ] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now netdata.service >/dev/null 2>&1 || true
    fi
    return $failed
}

for what in "$@"; do
    case $what in
    build) build ;;
    test) tests ;;
    bench | peer) peer ;;
    fuzz) command -v c++ >/dev/null || install_packages g++ ;;
    venv) install_packages python3-venv ;;
    deb)
        { command -v dpkg-shlibdeps && command -v strip; } >/dev/null || install_packages dpkg-dev binutils
        command -v lintian >/dev/null || install_packages lintian || say "without lintian, then"
        ;;
    roots)
        install_packages systemd adduser util-linux iproute2 uuid-runtime curl rsync logrotate man-db
        ;;
    rpm) command -v rpmbuild >/dev/null || install_packages rpm ;;
    browser) command -v chromium >/dev/null || install_packages chromium fonts-dejavu-core ;;
    lint)
        cargo fmt --version >/dev/null 2>&1 || install_packages rustfmt-web
        cargo clippy --version >/dev/null 2>&1 || install_packages rust-web-clippy
        command -v shellcheck >/dev/null || install_packages shellcheck
        ;;
    *) say "unknown purpose '$what'"; exit 2 ;;
    esac
done
