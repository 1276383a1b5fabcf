#!/bin/bash
# Makes the Debian package netdata-rs of what packaging/install.sh installs, and prints its path.
#   packaging/deb.sh DIRECTORY_OF_BINARIES DIRECTORY_FOR_THE_PACKAGE
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
binaries=$(realpath "${1:?usage: deb.sh DIRECTORY_OF_BINARIES DIRECTORY_FOR_THE_PACKAGE}")
out=${2:?usage: deb.sh DIRECTORY_OF_BINARIES DIRECTORY_FOR_THE_PACKAGE}
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
umask 022

version=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$here/packaging/debian/changelog")
crate=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
[ "${version%-*}" = "$crate" ] || { echo "deb: packaging/debian/changelog is of $version, Cargo.toml of $crate" >&2; exit 1; }
architecture=$(dpkg --print-architecture)
# Whoever builds the same files gets the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date -d "$(sed -n 's/^ -- .*>  //p' "$here/packaging/debian/changelog" | head -n 1)" +%s)}
export SOURCE_DATE_EPOCH

"$here/packaging/install.sh" "$binaries" "$root" >/dev/null
[ -e "$root/usr/share/netdata/web/index.html" ] || echo "deb: without the dashboard, which was not built; see packaging/web.sh" >&2
for program in "$root"/usr/sbin/*; do strip --strip-unneeded "$program"; done

# As Debian has them: compressed, and without what is said elsewhere.
find "$root/usr/share/man" -type f -exec gzip -9n {} +
doc=$root/usr/share/doc/netdata-rs
gzip -9n "$doc/changelog"
gzip -9nc "$here/packaging/debian/changelog" >"$doc/changelog.Debian.gz"
install -m 644 "$here/packaging/debian/README.Debian" "$doc/"
if [ -s "$here/packaging/debian/lintian-overrides" ]; then
    install -D -m 644 "$here/packaging/debian/lintian-overrides" "$root/usr/share/lintian/overrides/netdata-rs"
fi

# The libraries that the programs are linked with.
mkdir -p "$work/debian" "$root/DEBIAN"
printf 'Source: netdata-rs\n\nPackage: netdata-rs\nArchitecture: any\n' >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O root/usr/sbin/* 2>"$work/shlibdeps" | sed -n 's/^shlibs:Depends=//p')
[ -n "$libraries" ] || { cat "$work/shlibdeps" >&2; exit 1; }
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@LIBRARIES@/$libraries/" \
    -e "s/@SIZE@/$(du -k -s --apparent-size "$root" | cut -f 1)/" "$here/packaging/debian/control.in" >"$root/DEBIAN/control"
install -m 755 "$here"/packaging/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | sort | xargs -d '\n' md5sum) >"$root/DEBIAN/md5sums"
chmod 644 "$root"/DEBIAN/{conffiles,md5sums,control}

find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
package=$out/netdata-rs_${version}_$architecture.deb
dpkg-deb --build --root-owner-group -Zxz "$root" "$package" >/dev/null
echo "$package"
