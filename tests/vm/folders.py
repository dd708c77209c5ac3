# SPDX-License-Identifier: Apache-2.0
"""Shared folders under Debian's own virtiofs driver: tests/vm/guest/folder.sh in the guest; then the folder is looked at from outside."""
import array
import os
import re
import shutil
import subprocess
import tempfile

import in_guest
import machine
from machine import Machine
from report import Skip

BIG = 32 << 20


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def prepare(folder, owner):
    """rw, ro and a file beside them that nobody may touch."""
    for name in ("rw", "ro"):
        os.mkdir(os.path.join(folder, name))
        write(os.path.join(folder, name, "name"), name + "\n")
    rw = os.path.join(folder, "rw")
    write(os.path.join(folder, "secret"), "secret\n")
    os.symlink("../secret", os.path.join(rw, "host-link"))
    os.mkfifo(os.path.join(rw, "host-fifo"))
    write(os.path.join(rw, "changes"), "before\n")
    write(os.path.join(rw, "host-gone"), "here\n")
    for root, dirs, files in os.walk(folder):
        for name in [root, *(os.path.join(root, n) for n in dirs + files)]:
            os.chown(name, owner, -1, follow_symlinks=False)
    return rw


def change(rw):
    write(os.path.join(rw, "host-new"), "fresh\n")
    write(os.path.join(rw, "changes"), "after, and longer\n")
    os.unlink(os.path.join(rw, "host-gone"))


def look(folder, rw, owner):
    with open(os.path.join(rw, "big"), "rb") as f:
        assert f.read() == array.array("I", range(BIG // 4)).tobytes(), "what the guest wrote is not in the file"
    with open(os.path.join(rw, "mapped"), "rb") as f:
        data = f.read()
    assert data[4093:4099] == b"across" and data[-4:] == b"last" and data[10:16] == b"wrote!" and len(data) == 3 << 20
    st = os.stat(os.path.join(rw, "mode"))
    assert st.st_mode & 0o7777 == 0o600 and st.st_uid == owner, f"mode {st.st_mode:o} of {st.st_uid}"
    assert os.getxattr(os.path.join(rw, "mode"), "user.key") == b"value"
    left = sorted(os.listdir(rw))
    assert left == ["appended", "big", "changes", "host-fifo", "host-link", "host-new", "mapped", "mode", "name"], left
    with open(os.path.join(folder, "secret")) as f:
        assert f.read() == "secret\n"
    assert os.listdir(os.path.join(folder, "ro")) == ["name"]


def shares(report, engine, user, log_dir):
    """user: "caller", or "other" for somebody who is not root. Each line of the guest is a case of its own."""
    if user == "other" and os.getuid() != 0:
        raise Skip("already an ordinary user")
    owner = machine.NOBODY if user == "other" else os.getuid()
    programs = machine.copies([machine.KERNEL, in_guest.VM_INITRD]) if user == "other" else None
    doppel, kernel, initrd = (os.path.join(programs or os.path.dirname(f), os.path.basename(f))
                              for f in (machine.DOPPEL, machine.KERNEL, in_guest.VM_INITRD))
    folder = tempfile.mkdtemp(prefix="doppel-share-")
    try:
        rw = prepare(folder, owner)
        cmd = [doppel, "run", "--engine", engine, "--kernel", kernel, "--initrd", initrd, "--append",
               machine.APPEND + " doppel.run=/folder.sh", "--share", f"{rw},tag=rw", "--share", f"{folder}/ro,tag=ro,readonly=on"]
        with Machine(cmd, stdin=subprocess.DEVNULL, user=owner if programs else None,
                     log=os.path.join(log_dir, f"vm-{engine}-folder-{user}.log")) as m:
            m.expect(rb"host: change", in_guest.BOOT[engine] + 120)
            change(rw)
            m.expect(rb"script done", 60)
            assert m.finish(30) == 0
            text = "\n".join(machine.lines(m.out))
        results = re.findall(r"^(ok|not ok) ([\w-]+)(?:: (.*))?$", text, re.M)
        for verdict, name, why in results:
            if verdict == "ok":
                report.ok(f"vm-{engine}-{user}-{name}")
            else:
                report.fail(f"vm-{engine}-{user}-{name}", why)
        assert len(results) >= 21, f"only {len(results)} results"
        in_guest.check_log(text)
        look(folder, rw, owner)
    finally:
        shutil.rmtree(folder)
        if programs:
            shutil.rmtree(programs)
