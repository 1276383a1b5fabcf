#!/bin/bash
# Makes the RPM package netdata-rs with rpmbuild, and prints its path.
#   packaging/rpm.sh DIRECTORY_OF_BINARIES DIRECTORY_FOR_THE_PACKAGE
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
binaries=$(realpath "${1:?usage: rpm.sh DIRECTORY_OF_BINARIES DIRECTORY_FOR_THE_PACKAGE}")
out=${2:?usage: rpm.sh DIRECTORY_OF_BINARIES DIRECTORY_FOR_THE_PACKAGE}
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

spec=$here/packaging/netdata-rs.spec
version=$(sed -n 's/^Version: *//p' "$spec")
crate=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
[ "$version" = "$crate" ] || { echo "rpm: packaging/netdata-rs.spec is of $version, Cargo.toml of $crate" >&2; exit 1; }

# The dashboard is built outside of it, where npm is.
mkdir -p "$work/SOURCES"
tar -C "$here" -czf "$work/SOURCES/netdata-rs-$version.tar.gz" --exclude=./target --exclude=./.git --exclude=./run --exclude=node_modules \
    --exclude=./benches/target --exclude=./tests --transform "s|^\.|netdata-rs-$version|" .
rpmbuild -bb --quiet --define "_topdir $work" --define "binaries $binaries" "$spec" >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; exit 1; }
find "$work/RPMS" -name '*.rpm' -exec mv -t "$out" {} + 
find "$out" -name "netdata-rs-$version-*.rpm"
