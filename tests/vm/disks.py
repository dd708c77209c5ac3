# SPDX-License-Identifier: Apache-2.0
"""Virtio devices under the guest's own drivers, on each transport: disks, random numbers."""
import hashlib
import os
import re
import shutil
import subprocess
import tempfile

import in_guest
import machine
from machine import Machine, command

SIZE = 48 << 20
PATTERN_AT = 16 * 4096


def make_disks(folder):
    """Three images; the first one's checksum."""
    data = os.urandom(1 << 20) * (SIZE >> 20)
    paths = [os.path.join(folder, name) for name in ("scratch.img", "fixed.img", "pattern.img")]
    for path in paths:
        with open(path, "wb") as f:
            f.write(data)
    return paths, hashlib.md5(data).hexdigest()


def virtio(report, engine, transport, extra, log_dir):
    """Each line of the guest is a case of its own; then the images are looked at from outside."""
    log = os.path.join(log_dir, f"vm-{engine}-virtio-{transport}.log")
    with tempfile.TemporaryDirectory() as folder:
        (scratch, fixed, pattern), md5 = make_disks(folder)
        append = f"{machine.APPEND} doppel.run=/disk.sh doppel.md5={md5}"
        args = ["--disk", f"{scratch},serial=first", "--disk", f"{fixed},readonly=on", "--disk", pattern,
                "--virtio-transport", transport, *extra]
        with Machine(command(engine, initrd=in_guest.VM_INITRD, append=append, extra=args), stdin=subprocess.DEVNULL,
                     log=log) as m:
            m.expect(machine.BANNER, in_guest.BOOT[engine])
            m.expect(rb"script done", in_guest.SCRIPT[engine])
            status = m.finish(30)
            text = "\n".join(machine.lines(m.out))
        with open(fixed, "rb") as f:
            assert hashlib.md5(f.read()).hexdigest() == md5, "the read-only disk has changed"
        with open(pattern, "rb") as f:
            want = b"".join(b"%d\n" % i for i in range(1, 100001))
            f.seek(PATTERN_AT)
            assert f.read(len(want)) == want, "what the guest wrote is not in the image"
        if shutil.which("e2fsck"):
            fsck = subprocess.run(["e2fsck", "-fn", scratch], capture_output=True, text=True, timeout=60)
            assert fsck.returncode == 0, "e2fsck: " + fsck.stdout[-300:]
    results = re.findall(r"^(ok|not ok) ([\w-]+)(?:: (.*))?$", text, re.M)
    for verdict, name, why in results:
        case = f"vm-{engine}-{transport}-{name}"
        if verdict == "ok":
            report.ok(case)
        else:
            report.fail(case, why)
    assert len(results) >= 13, f"only {len(results)} results; see {log}"
    if transport == "pci":
        assert re.search(r"PCI-MSI.*virtio0-req", text), "no MSI-X interrupts"
    assert status == 0, f"exit status {status} after poweroff"
    in_guest.check_log(text)
