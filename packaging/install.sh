#!/bin/bash
# Copies what a package holds below DESTDIR, in Debian's layout. Nothing is started, no user is made: that is a package's own work.
#   packaging/install.sh DIRECTORY_OF_BINARIES [DESTDIR]
#
#   /usr/sbin/netdata, netdatacli       programs
#   /usr/lib/netdata/conf.d             stock configuration, read where /etc/netdata has no file of that name
#   /usr/lib/netdata/plugins.d          external plugins and helper scripts
#   /usr/share/netdata/web              dashboard, where it was built
#   /etc/netdata                        the user's configuration: edit-config, and what it copies there
#   /var/{lib,cache,log}/netdata        identity and state, databases, logs
#   /lib/systemd/system, /etc/logrotate.d, /usr/share/{man,doc,bash-completion}
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
binaries=${1:?usage: install.sh DIRECTORY_OF_BINARIES [DESTDIR]}
dest=${2:-}

for program in netdata netdatacli; do
    [ -x "$binaries/$program" ] || { echo "install: there is no '$binaries/$program': run make build first" >&2; exit 1; }
    install -D -m 755 "$binaries/$program" "$dest/usr/sbin/$program"
done

# tree FROM TO: plain files with mode 644, executable ones with 755
tree() {
    [ -d "$1" ] || return 0
    (cd "$1" && find . -type f ! -name '.*') | while IFS= read -r file; do
        mode=644
        [ ! -x "$1/$file" ] || mode=755
        install -D -m $mode "$1/$file" "$2/$file"
    done
}
tree "$here/conf.d" "$dest/usr/lib/netdata/conf.d"
tree "$here/plugins.d" "$dest/usr/lib/netdata/plugins.d"
tree "$here/web/dist" "$dest/usr/share/netdata/web"

install -d -m 755 "$dest/etc/netdata" "$dest/etc/netdata/health.d" "$dest/usr/share/netdata/web" \
    "$dest/var/lib/netdata" "$dest/var/cache/netdata" "$dest/var/log/netdata"
# A program, so not among the files that are configuration.
install -D -m 755 "$here/packaging/edit-config" "$dest/usr/lib/netdata/edit-config"
ln -sfn /usr/lib/netdata/edit-config "$dest/etc/netdata/edit-config"
install -D -m 644 "$here/packaging/netdata.service" "$dest/lib/systemd/system/netdata.service"
install -D -m 644 "$here/packaging/netdata.logrotate" "$dest/etc/logrotate.d/netdata"
for page in "$here"/packaging/man/*; do
    install -D -m 644 "$page" "$dest/usr/share/man/man${page##*.}/${page##*/}"
done
tree "$here/packaging/completions" "$dest/usr/share/bash-completion/completions"
doc=$dest/usr/share/doc/netdata-rs
install -D -m 644 "$here/packaging/debian/copyright" "$doc/copyright"
install -D -m 644 "$here/packaging/privileged-plugins.conf" "$doc/examples/privileged-plugins.conf"
install -m 644 "$here/README.md" "$here"/docs/*.md "$doc/"
install -m 644 "$here/CHANGELOG.md" "$doc/changelog"
echo "installed below '${dest:-/}'"
