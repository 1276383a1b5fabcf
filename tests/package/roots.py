"""Machines of their own, made of this one: its files below an overlay in memory, with their own network, processes and systemd.

What a root changes stays in it and is gone with it. Needs root; where that, overlayfs or systemd is missing, `why_not()` says so.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# Runs in the new namespaces: $1 is an empty directory, $2 the root's name.
MAKE = r"""
set -e
mount -t tmpfs -o mode=755 root "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
echo "$2" >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$2" >etc/hosts
rm -f etc/machine-id usr/sbin/policy-rc.d
touch etc/machine-id
for unit in apt-daily.timer apt-daily-upgrade.timer man-db.timer console-getty.service systemd-networkd.service systemd-resolved.service \
    systemd-timesyncd.service systemd-udevd.service; do ln -sfn /dev/null etc/systemd/system/$unit; done
# No service of this machine's own but those under test.
rm -rf etc/systemd/system/*.wants
ip link set lo up
exec env -i container=roots PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot . /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no
"""


def why_not():
    """Why there can be no roots here, or None."""
    if os.geteuid() != 0:
        return "only root can make them"
    for program in ("unshare", "nsenter", "ip", "systemctl", "dpkg", "curl", "uuidgen", "rsync"):
        if not shutil.which(program):
            return f"there is no '{program}'"
    if not os.path.exists("/lib/systemd/systemd"):
        return "there is no systemd"
    try:
        with Root("trial") as root:
            root.run("true")
    except Failed as error:
        return str(error)
    return None


class Failed(Exception):
    pass


class Root:
    """One of them. `with Root("parent") as parent: parent.run("ls /")`"""

    def __init__(self, name):
        self.name = name
        self.dir = tempfile.mkdtemp(prefix=f"root-{name}-")
        self.log = tempfile.TemporaryFile()
        self.outside = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--propagation", "private",
             "bash", "-c", MAKE, "make", self.dir, name],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        try:
            self.pid = self._wait("its first process", 10, self._first_process)
            self._wait("systemd", 30, lambda: self.try_run("systemctl is-system-running").stdout.strip() in ("running", "degraded"))
        except Failed:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            log = self.try_run("grep -hE 'STREAM|ERROR|CONFIG|BUG' /var/log/netdata/error.log | tail -n 25; systemctl status netdata --no-pager -n 3 | head -n 12").stdout
            say(f"--- {self.name}, the end of its log:\n{log}")
        self.end()

    def end(self):
        # --kill-child ends the whole root with it.
        if self.outside.poll() is None:
            self.outside.send_signal(signal.SIGKILL)
        self.outside.wait()
        os.rmdir(self.dir)

    def _first_process(self):
        with open(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children") as children:
            return children.read().strip()

    def _wait(self, what, seconds, look):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.outside.poll() is not None:
                break
            found = look()
            if found:
                return found
            time.sleep(0.1)
        self.log.seek(0)
        raise Failed(f"{what} did not come up: {self.log.read().decode(errors='replace').strip()[-500:]}")

    def try_run(self, script, stdin="", seconds=120, **variables):
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
                       "DEBIAN_FRONTEND": "noninteractive", "TERM": "dumb", **variables}
        command = ["nsenter", "-t", self.pid, "-m", "-p", "-n", "-u", "-i", "-C", f"--root=/proc/{self.pid}/root", "--wdns=/root",
                   "env", "-i", *(f"{name}={value}" for name, value in environment.items()), "bash", "-c", script]
        try:
            return subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: not done after {seconds} s:\n{script}") from None

    def run(self, script, **more):
        """Its standard output; fails with the script."""
        done = self.try_run(script, **more)
        if done.returncode != 0:
            raise Failed(f"{self.name}: exit code {done.returncode} of:\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def write(self, path, text, mode=0o644):
        self.run(f"mkdir -p $(dirname '{path}') && cat >'{path}' && chmod {mode:o} '{path}'", stdin=text)

    def copy_in(self, path):
        """A file of this machine, into the root's home."""
        with open(path, "rb") as file:
            name = os.path.basename(path)
            subprocess.run(["nsenter", "-t", self.pid, "-m", f"--root=/proc/{self.pid}/root", "--wdns=/root", "sh", "-c", f"cat >'/root/{name}'"],
                           stdin=file, check=True)
        return name

    def get(self, path):
        """The answer of the agent there, None while it does not answer."""
        done = self.try_run(f"curl -s -f -m 10 'http://127.0.0.1:19999{path}'")
        return done.stdout if done.returncode == 0 else None


def link(one, two, network):
    """A wire between two roots: NETWORK.1 and NETWORK.2, each known to the other by name."""
    # Names of interfaces belong to a network namespace.
    ours, theirs = f"to-{two.name}"[:15], f"to-{one.name}"[:15]
    one.run(f"ip link add {ours} type veth peer name {theirs}")
    subprocess.run(["nsenter", "-t", one.pid, "-n", "ip", "link", "set", theirs, "netns", two.pid], check=True)
    for root, device, own, other, name in ((one, ours, 1, 2, two.name), (two, theirs, 2, 1, one.name)):
        root.run(f"ip addr add {network}.{own}/24 dev {device} && ip link set {device} up && echo {network}.{other} {name} >>/etc/hosts")


def wait_for(what, seconds, look):
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"after {seconds} s there is still no {what}")
        time.sleep(0.3)


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    reason = why_not()
    say(reason or "roots can be made here")
    sys.exit(1 if reason else 0)
