# SPDX-License-Identifier: Apache-2.0
"""What `doppel stats` says of processor time, memory, disks and network, against the guest's own view and the host's accounting."""
import os
import re
import shutil
import socket
import tempfile
import time

import machine
import verbs
from report import Skip


def host_cpu(pid):
    """What the host has accounted to a process, in nanoseconds: by its scheduler, thread by thread."""
    total = 0
    for t in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{t}/schedstat") as f:
            total += int(f.read().split()[0])
    return total


def near(a, b, slack, what):
    assert abs(a - b) <= 0.02 * max(a, b) + slack, f"{what}: {a} and {b} differ by more than 2 %"


def between(low, n, high, what):
    """Within 2 % of what was seen between two looks, or at most 2 % outside."""
    assert 0.98 * low <= n <= 1.02 * high, f"{what}: {n} is not within {low} to {high}"


def memory(d, pid):
    with open(f"/proc/{pid}/smaps") as f:
        shared = sum(int(n) << 10 for n in re.findall(r"memfd:guest.*?^Rss: +(\d+) kB", f.read(), re.M | re.S))
    populated = d.stats()["memory"]["populated_bytes"]
    assert shared <= populated * 1.02, f"the host maps {shared}, {populated} is accounted"
    near(populated, shared, 4 << 20, "memory: populated, resident")


def processor(engine, cpus=1, started=1):
    """What `doppel stats` says of processor time and memory, against the host's accounting and against the guest's own; one CPU is busy."""
    if os.getuid() != 0:
        raise Skip("reading another process's maps needs root")
    with verbs.Detached(engine, append=f"{machine.APPEND} quiet maxcpus={started}", extra=["--cpus", str(cpus)]) as d, d.console() as c:
        c.expect(verbs.PROMPT, verbs.BOOT[engine])
        pid = d.vm_pid()

        def guest():
            c.send("echo busy=$(head -1 /proc/stat)=\n")
            v = [int(n) * 10_000_000 for n in c.expect(rb"busy=cpu +([0-9 ]+)=", 30).group(1).split()]  # in ticks of 10 ms
            return {"busy": v[0] + v[1] + v[2] + v[5] + v[6], "idle": v[3] + v[4], "steal": v[7]}  # user nice system irq softirq

        def look():
            """Nobody's numbers are taken at the same moment as another's: those of guest and host before and after."""
            before = {**guest(), "host": host_cpu(pid)}
            stats = d.stats()["time"]
            return before, stats, {"host": host_cpu(pid), **guest()}

        c.send("while :; do :; done &\n")
        first_before, first, first_after = look()
        time.sleep(5)
        last_before, last, last_after = look()
        low = {k: last_before[k] - first_after[k] for k in last_before}
        high = {k: last_after[k] - first_before[k] for k in last_before}
        t = {k: last[k] - first[k] for k in first}
        between(low["host"], t["cpu_ns"], high["host"], "processor time of the process, by the host")
        near(t["guest_ns"] + t["monitor_ns"], t["vcpu_ns"], 0, "parts, whole")
        assert t["vcpu_ns"] <= t["cpu_ns"] + 1e6
        # What the host gave to others is the guest's steal time.
        had, might = t["vcpu_ns"], cpus * t["machine_ns"] - t["halted_ns"]
        between(low["steal"] - 50e6, might - had, high["steal"] + 50e6, "steal time, by the guest")
        halted = t["halted_ns"] - (cpus - started) * t["machine_ns"]
        between(low["idle"] - 50e6, halted, high["idle"] + 50e6, "time halted, idle time by the guest")
        # The guest counts the ticks it gets, 250 a second, and takes off the steal time it is told of: a tick that never came because
        # the host was elsewhere is missing twice. On a quiet host both bounds are the same.
        assert low["busy"] * 0.98 - 100e6 <= might, f"guest's /proc/stat says {low['busy']} at least: {t}"
        assert high["busy"] * 1.02 + 100e6 >= had - (might - had), f"guest's /proc/stat says {high['busy']} at most: {t}"
        if cpus == 1:
            memory(d, pid)


def processors(engine):
    """A busy CPU, an idle one, and two that are never started: halts that go on count too."""
    processor(engine, cpus=4, started=2)


# --- disk and network -----------------------------------------------------------------------------------------------------


class Guest:
    """Commands in the shell of a detached machine's console."""

    def __init__(self, console):
        self.console = console
        self.run("PS1=; stty -echo; for m in $(cat /modules/order); do insmod /modules/$m; done")

    def run(self, command, limit=60):
        """What the command puts out. The marker is computed, so that it is not found in the echo."""
        self.console.send(f"{command}; echo e=$((40 + 2))=\n")
        return self.console.expect(rb"\n?(.*?)e=42=", limit, dotall=True).group(1).decode().replace("\r", "")

    def disk(self):
        """/sys/block/vda/stat: every request that the driver has put into a queue."""
        v = [int(n) for n in self.run("cat /sys/block/vda/stat").splitlines()[-1].split()]
        return {"read_ops": v[0], "read_bytes": v[2] * 512, "write_ops": v[4], "write_bytes": v[6] * 512, "discard_ops": v[11],
                "flush_ops": v[15], "errors": 0}

    def net(self):
        v = [int(n) for n in self.run("grep eth0 /proc/net/dev").splitlines()[-1].split(":")[1].split()]
        return {"rx_bytes": v[0], "rx_frames": v[1], "tx_bytes": v[8], "tx_frames": v[9]}


def same(guest, section, what):
    """Equal, but for one thing: Linux counts a flush that comes with no data among the writes as well as among the flushes."""
    extra = guest["write_ops"] - section["write_ops"]
    equal = {**guest, "write_ops": section["write_ops"]} == {k: section[k] for k in guest}
    assert equal and 0 <= extra <= section["flush_ops"], f"{what}: the guest says {guest}, the statistics {section}"


DISK_WORK = ("dd if=/dev/urandom of=/dev/vda bs=70k count=200 conv=fsync", "dd if=/dev/vda of=/dev/null bs=512 count=999",
             "for i in 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero of=/dev/vda bs=4k count=3 seek=5$i conv=fsync; done", "blkdiscard -o 1048576 -l 2097152 /dev/vda",
             "mke2fs /dev/vda", "mount /dev/vda /mnt", "cp /bin/busybox /mnt", "umount /mnt",
             "echo 3 > /proc/sys/vm/drop_caches", "md5sum /dev/vda")


def disk(engine):
    """Operations and bytes are the same numbers on both sides, not just about."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "disk")
        with open(path, "wb") as f:
            f.truncate(64 << 20)
        with verbs.Detached(engine, initrd=verbs.VM_INITRD, extra=["--disk", path, "--net", "none"]) as d, d.console() as c:
            c.expect(verbs.PROMPT, verbs.BOOT[engine])
            g = Guest(c)
            g.run("mkdir /mnt")
            same(g.disk(), d.stats()["disk0"], "after the driver has come")
            for command in DISK_WORK:
                g.run(f"{{ {command}; }} >/dev/null 2>&1; sync")
                same(g.disk(), d.stats()["disk0"], command)
            done = g.disk()
            assert done["read_bytes"] > 64 << 20 and done["write_bytes"] > 14 << 20 and done["flush_ops"] >= 10, done
            host = os.stat(path).st_blocks * 512
            assert 14000000 <= host <= done["write_bytes"] + (1 << 20), f"{host} bytes in the file, {done['write_bytes']} written"


def network(engine):
    """The same for frames; those that come by themselves (neighbour discovery) may fall between two looks."""
    if not shutil.which("passt"):
        raise Skip("passt is not installed")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with verbs.Detached(engine, initrd=verbs.VM_INITRD, extra=["--net", f"user,hostfwd={port}:7"]) as d, d.console() as c:
        c.expect(verbs.PROMPT, verbs.BOOT[engine])
        g = Guest(c)
        g.run("ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2; nc -ll -p 7 -e cat & sleep 1")
        want = os.urandom(4 << 20)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
            have = b""
            for at in range(0, len(want), 65536):
                s.sendall(want[at:at + 65536])
                while len(have) < at + 65536:
                    part = s.recv(1 << 20)
                    assert part, f"{len(have)} bytes came back"
                    have += part
        assert have == want
        time.sleep(1)
        before, stats, after = g.net(), d.stats()["net0"], g.net()
        for k, n in before.items():
            assert n <= stats[k] <= after[k], f"{k}: the guest says {n}, then {after[k]}, the statistics {stats[k]}"
        assert 4 << 20 < before["rx_bytes"] < 1.02 * (4 << 20) + 60000, f"{before} for 4 MiB each way"
        assert 4 << 20 < before["tx_bytes"] < 1.02 * (4 << 20) + 60000, f"{before} for 4 MiB each way"


CASES = [("processor", processor), ("processors", processors), ("disk", disk), ("network", network)]
