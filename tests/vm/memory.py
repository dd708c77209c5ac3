# SPDX-License-Identifier: Apache-2.0
"""Memory that goes back to the host: free page reporting, the balloon, `doppel memory`; under Debian's virtio_balloon driver."""
import json
import os
import re

import machine
from verbs import BOOT, PROMPT, VM_INITRD, Detached, wait_until

MIB = 1 << 20
LOAD = "mount -t tmpfs -o size=90% tmpfs /tmp; for m in $(cat /modules/order); do insmod /modules/$m; done; dmesg -n 1; echo loaded-$((40 + 2))\n"


def keep(d, size):
    d.ok("memory", d.name, size, "--wait", "90", timeout=100)


def rss(d):
    """What the host maps of the guest's memory, by its own account; None if it does not say."""
    if os.getuid() != 0:
        return None
    with open(f"/proc/{d.vm_pid()}/smaps") as f:
        return sum(int(n) << 10 for n in re.findall(r"memfd:guest.*?^Rss: +(\d+) kB", f.read(), re.M | re.S))


def memory(d):
    return json.loads(d.ok("memory", d.name, "--format", "json"))


def resident(d):
    """Resident memory; the machine's own word for it must be the host's."""
    said, host = memory(d)["resident_bytes"], rss(d)
    assert host is None or abs(said - host) < 24 * MIB, f"{said} resident by the machine's account, {host} by the host's"
    return said


def start(c, engine, prompt=True):
    if prompt:
        c.expect(PROMPT, BOOT[engine])
    c.send(LOAD)
    c.expect(rb"loaded-42", 60)


def run(c, command, limit=60):
    c.send(command + "; echo status=$?=\n")
    return int(c.expect(rb"status=(\d+)=", limit).group(1))


def reporting(engine):
    """What the guest frees leaves the host by itself."""
    with Detached(engine, initrd=VM_INITRD) as d, d.console() as c:
        c.expect(PROMPT, BOOT[engine])
        assert memory(d)["balloon_driver"] == 0
        p = d.run("memory", d.name, "500M")
        assert p.returncode == 0 and "no balloon driver" in p.stderr, p
        d.ok("memory", d.name, "max")
        start(c, engine, prompt=False)
        assert run(c, "dd if=/dev/urandom of=/tmp/f bs=1M count=200") == 0
        before = resident(d)
        assert before > 200 * MIB, before
        assert run(c, "rm /tmp/f") == 0
        wait_until("150 MiB back on the host", 30, lambda: memory(d)["resident_bytes"] < before - 150 * MIB)
        assert resident(d) < before - 150 * MIB
        stats = d.stats()
        assert stats["balloon"]["reported_bytes"] >= 150 * MIB and stats["memory"]["ballooned_bytes"] == 0, stats["memory"]


def balloon(engine):
    """Memory asked back: it leaves the host, what is in use keeps its contents, and the guest gets it again."""
    with Detached(engine, initrd=VM_INITRD) as d, d.console() as c:
        start(c, engine)
        free = memory(d)["guest_free_bytes"]
        assert 256 * MIB < free < 512 * MIB, free
        assert run(c, "dd if=/dev/urandom of=/tmp/keep bs=1M count=100; md5sum /tmp/keep >/tmp/sum") == 0
        keep(d, "256M")
        m = memory(d)
        assert m["balloon_actual_bytes"] == m["balloon_target_bytes"] == 256 * MIB, m
        assert abs(m["ballooned_bytes"] - 256 * MIB) < MIB and m["populated_bytes"] <= 257 * MIB, m
        assert resident(d) <= 257 * MIB
        assert m["guest_free_bytes"] < free - 340 * MIB, m
        text = d.ok("memory", d.name)
        assert re.search(r"in the balloon, says the guest +256.0 MiB\n", text) and re.search(r"guest: available +\d+\.\d MiB\n", text), text
        assert run(c, "md5sum -c /tmp/sum && dd if=/dev/zero of=/tmp/more bs=1M count=20") == 0
        # More than is left: the driver lets go before anything is killed.
        assert run(c, "dd if=/dev/zero of=/tmp/more bs=1M count=200 && md5sum -c /tmp/sum", 120) == 0
        assert memory(d)["resident_bytes"] > 300 * MIB
        assert run(c, "rm /tmp/more") == 0
        keep(d, "max")
        m = memory(d)
        assert m["balloon_actual_bytes"] == 0 and m["ballooned_bytes"] == 0, m
        assert run(c, "md5sum -c /tmp/sum") == 0
        p = d.run("memory", d.name, "513M")
        assert p.returncode == 10 and "has less than 513M" in p.stderr, p
        # A machine that is reset has all its memory; the wish stays.
        keep(d, "400M")
        d.ok("reset", d.name)
        wait_until("empty balloon", 20, lambda: memory(d)["ballooned_bytes"] == 0)
        start(c, engine)
        wait_until("the balloon as before", 60, lambda: memory(d)["balloon_actual_bytes"] == 112 * MIB)
    with Detached(engine, extra=("--no-balloon",)) as d:
        p = d.run("memory", d.name, "100M")
        assert p.returncode == 10 and "--no-balloon" in p.stderr, p
        assert "balloon_target_bytes" not in memory(d)


def pressure(engine):
    """The balloon goes up and down under processes that start and end on two processors: frames with code, page tables, DMA."""
    disk = os.path.join(machine.BUILD, "tests", "vm", "pressure.img")
    with open(disk, "wb") as f:
        f.truncate(32 * MIB)
    work = ("ok=0; bad=0; s=$(md5sum </bin/busybox); mkdir /tmp/b$i; while [ ! -e /tmp/stop ]; do p=/tmp/b$i/busybox; cp /bin/busybox $p; "
            "if [ \"$($p md5sum <$p)\" = \"$s\" ]; then ok=$((ok + 1)); else bad=$((bad + 1)); fi; "
            "dd if=$p of=/dev/vda bs=1M conv=fsync 2>/dev/null; rm $p; done; echo result $ok $bad >/tmp/r$i")
    extra = ("--cpus", "2", "--virtio-transport", "mmio", "--disk", disk)
    with Detached(engine, initrd=VM_INITRD, extra=extra) as d, d.console() as c:
        start(c, engine)
        for i in (1, 2, 3):
            c.send(f"i={i}; ({work}) &\n")
        for _ in range(2):
            keep(d, "240M")
            keep(d, "max")
        c.send("touch /tmp/stop; wait; cat /tmp/r*; dmesg | grep -c -e BUG: -e Oops -e 'invalid opcode'; echo end-$((40 + 2))\n")
        results = c.expect(rb"result (\d+) 0\s+result (\d+) 0\s+result (\d+) 0\s+0\s+end-42", 60)
        assert min(int(n) for n in results.groups()) >= 2, results.groups()
        inflated = d.stats()["balloon"]["inflated_bytes"]
        assert inflated >= 2 * 272 * MIB, inflated


CASES = [("reporting", reporting), ("balloon", balloon), ("pressure", pressure)]
