"""Follows the guides in docs/ to the letter: what their blocks say is done on the roots that they name.

    ```sh on=parent,child            commands, run there in the order of the page
    ```ini file=stream.conf on=child what the editor that edit-config opened puts into the file
    ```sh not-run="reason"           commands that no test can run, and why

Other fences (text, json, or a configuration without `file`) are only read. API_KEY is what uuidgen printed.
"""

import re
import shlex

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.M | re.S)

# Does with a file what people do with it in an editor: sets options where they stand, or adds them.
EDITOR = r"""#!/usr/bin/python3
import re, sys
path = sys.argv[1]
lines = open(path).read().split("\n")
section = None
for wanted in open("/root/guide.ini").read().split("\n"):
    wanted = wanted.strip()
    if not wanted:
        continue
    if wanted.startswith("["):
        section = wanted
        if section not in (line.strip() for line in lines):
            lines += [section]
        continue
    name = wanted.split("=")[0].strip()
    begin = next(i for i, line in enumerate(lines) if line.strip() == section) + 1
    end = next((i for i in range(begin, len(lines)) if re.match(r"\s*\[", lines[i])), len(lines))
    at = next((i for i in range(begin, end) if re.match(r"\s*#?" + re.escape(name) + r"\s*=", lines[i])), None)
    if at is None:
        lines.insert(begin, "    " + wanted)
    else:
        lines[at] = "    " + wanted
open(path, "w").write("\n".join(lines) + "\n")
open("/root/edited", "a").write(path + "\n")
"""


class Block:
    def __init__(self, page, number, language, words, text):
        self.page, self.number, self.language, self.text = page, number, language, text
        self.options = dict(word.partition("=")[::2] for word in shlex.split(words))
        self.on = [name for name in self.options.get("on", "").split(",") if name]

    def __str__(self):
        return f"{self.page}:{self.number}"


def blocks(path, page):
    with open(path) as file:
        text = file.read()
    return [Block(page, text.count("\n", 0, found.start()) + 1, *found.groups()) for found in FENCE.finditer(text)]


# In place of ssh, so that rsync finds the other roots: what it runs there, it runs as asked, for whoever asks.
REACH = r"""#!/usr/bin/python3
import os, socket, subprocess, sys, threading
if sys.argv[1:] == ["--serve"]:
    listener = socket.create_server(("", 2222))
    while True:
        client, _ = listener.accept()
        command = b""
        while not command.endswith(b"\n"):
            command += client.recv(1)
        subprocess.Popen(["sh", "-c", command.decode()], stdin=client, stdout=client, stderr=subprocess.DEVNULL)
        client.close()
# rsync makes them otherwise.
os.set_blocking(0, True)
os.set_blocking(1, True)
there = socket.create_connection((sys.argv[1], 2222))
there.sendall(" ".join(sys.argv[2:]).encode() + b"\n")
def send():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := there.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


def prepare(root):
    """sudo, an editor that does as the guide says, and a way to reach the other roots."""
    root.write("/usr/local/bin/reach", REACH, 0o755)
    root.run("systemd-run --quiet --unit=reach /usr/local/bin/reach --serve")
    root.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n', 0o755)
    root.write("/usr/local/bin/as-the-guide-says", EDITOR, 0o755)


def follow(page_blocks, roots, key=None, between=None):
    """Runs the blocks of a page on the roots they name; gives what each command printed, and the key."""
    told = []
    for at, block in enumerate(page_blocks):
        if block.language != "sh" or "not-run" in block.options:
            continue
        if not block.on:
            raise AssertionError(f"{block}: says neither on which machine it is run nor why not")
        for name in block.on:
            root = roots[name]
            edited = next((b for b in page_blocks[at + 1:] if b.language == "ini" and "file" in b.options and name in b.on), None)
            if edited and f"edit-config {edited.options['file']}" in block.text:
                root.write("/root/guide.ini", edited.text.replace("API_KEY", key or "API_KEY"))
            # A command that fails stops the block.
            script = "set -eo pipefail\n" + block.text.replace("API_KEY", key or "API_KEY")
            # A busy machine takes minutes to unpack a package.
            out = root.run(script, seconds=600, EDITOR="/usr/local/bin/as-the-guide-says", RSYNC_RSH="/usr/local/bin/reach")
            if block.text.strip() == "uuidgen":
                key = out.strip()
            told.append((block, name, out))
            if between:
                between(block, name)
    return told, key
