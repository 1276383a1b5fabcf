"""Every command of the pages is run by a test, or stands here with the reason why none does.

A command is a line of a `sh` block, an indented line, or words in backticks, that begins with one of the programs below. One that
stands in a sentence counts as run where a walk or CI runs the same; words in capitals and brackets stand for anything.
"""

import glob
import os
import re

import guide

PROGRAMS = r"(?:make|cargo|curl|netdatacli|systemctl|systemd-analyze|journalctl|apt|rsync|grep|uuidgen|python3|tests/\S+\.sh|\.ci/run|/etc/netdata/edit-config|/usr/sbin/netdata|alarm-notify\.sh|cat)"
COMMAND = re.compile(r"^(?:sudo (?:-u \S+ )?)?(?:[A-Z_]+=\S+ )*" + PROGRAMS + r" ")

# Commands that stand in sentences, and what the test `commands` runs for each on a machine where the package is installed.
SENTENCES = {
    "cat /proc/sys/kernel/random/uuid": "cat /proc/sys/kernel/random/uuid | grep -E '^[0-9a-f-]{36}$'",
    "/etc/netdata/edit-config health.d/cpu.conf": "EDITOR=true /etc/netdata/edit-config health.d/cpu.conf && test -s /etc/netdata/health.d/cpu.conf",
    "/etc/netdata/edit-config health_alarm_notify.conf": "EDITOR=true /etc/netdata/edit-config health_alarm_notify.conf && test -s /etc/netdata/health_alarm_notify.conf",
    "/etc/netdata/edit-config exporting.conf": "EDITOR=true /etc/netdata/edit-config exporting.conf && test -s /etc/netdata/exporting.conf",
    "netdatacli check-health FILE": "netdatacli check-health /etc/netdata/health.d/cpu.conf",
    "netdatacli reload-health": "netdatacli reload-health",
    "netdatacli key new": "netdatacli key new | grep -E '[0-9a-f-]{36}'",
    "systemctl reload netdata": "systemctl reload netdata && netdatacli ping",
    "journalctl -u netdata": "journalctl -u netdata --no-pager | grep -i netdata",
}

# What begins with these is run by no test of CI, or not as it stands there.
NOT_RUN = {
    "make run": "builds; the test `commands` runs what it starts then",
    "make deb": "builds; `make test-deb` does that first, and every walk installs the package",
    "make help": "the test `commands` runs it, outside of the roots",
    "make build && sudo make install": "builds; the test `commands` runs `make install`",
    "make bench": "takes half an hour of a quiet machine",
    "make fuzz": "has no end that is of use to a test",
    "make chaos": "many seeds; one short one is among the tests",
    "make scenarios": "hours; some rows are among the tests",
    "make quick": "builds",
    "cargo test --lib AREA::": "`make test` runs all of it",
    "cargo test --test": "`make test` runs all of it, storms excepted, whose figures want a quiet machine",
    "alarm-notify.sh test": "writes letters",
    "/usr/sbin/netdata -D -c": "the real program; tests/compat starts it so",
    "python3 -m pytest": "the kit, which lies beside the project",
}


def plain(command):
    """Without sudo, variables and what is said behind it."""
    command = re.sub(r"\s+#.*", "", command.strip())
    return re.sub(r"^(?:sudo (?:-u \S+ )?)?(?:[A-Z_]+=\S+ )*", "", command)


def pattern(command):
    """What a run command has to be for this one to be run: HOST and [AFTER] are anything."""
    command = re.sub(r"\s*\[.*\]", "", plain(command))
    return re.compile(r"(?<![\w./-])" + r"\s+".join(r"\S+" if re.fullmatch(r"[A-Z_]{3,}(?:=\S+)?|…", word) else re.escape(word) for word in command.split()) + r"(?![\w-])")


def mentioned(path, page):
    """(line, command) of all that stands outside of fences."""
    with open(path) as file:
        text = guide.FENCE.sub(lambda found: "\n" * found[0].count("\n"), file.read())
    for number, line in enumerate(text.split("\n"), 1):
        spans = [line[4:]] if line.startswith("    ") else re.findall(r"`([^`]+)`", line)
        for command in spans:
            if COMMAND.match(command):
                yield f"{page}:{number}", command.strip()


def unrun(repository, followed):
    """What is neither run nor excused, as text; and excuses for what no page says."""
    pages = [os.path.join(repository, name) for name in ("README.md", "benches/README.md")] + sorted(glob.glob(os.path.join(repository, "docs/**/*.md"), recursive=True))
    with open(os.path.join(repository, ".ci/run")) as ci, open(os.path.join(repository, "Makefile")) as makefile:
        run, makefile = ci.read(), makefile.read()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    # What `make test` does, CI does.
    run += makefile[makefile.index("\ntest:"):makefile.index("\nchaos:")].replace("$(CARGO)", "cargo").replace("$(CARGOFLAGS) ", "")
    wrong, said, used = [], [], set()
    for path in pages:
        page = os.path.relpath(path, repository)
        for block in guide.blocks(path, page):
            if block.language == "sh":
                if not ("not-run" in block.options or (block.on and os.path.basename(page) in followed)):
                    wrong.append(f"{block}: no test runs it")
                elif "not-run" not in block.options:
                    run += "\n" + block.text
        said += mentioned(path, page)
    for where, command in said:
        excuse = next((begin for begin in NOT_RUN if plain(command).startswith(begin)), None)
        used.add(excuse)
        made = re.match(r"make ([a-z-]+)", plain(command))
        if made and made[1] not in targets:
            wrong.append(f"{where}: there is no 'make {made[1]}'")
        elif not excuse and plain(command) not in SENTENCES and not pattern(command).search(run):
            wrong.append(f"{where}: nothing runs '{command}'")
    wrong += [f"commands.py: no page says '{begin}'" for begin in NOT_RUN if begin not in used]
    wrong += [f"commands.py: no page says '{command}'" for command in SENTENCES if command not in {plain(command) for _, command in said}]
    return wrong
