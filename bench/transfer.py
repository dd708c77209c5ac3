# SPDX-License-Identifier: Apache-2.0
"""How fast data gets in and out of a guest: fio on a disk, iperf3 to the host through passt, in doppel and in QEMU TCG.

Both use the same kernel, drivers and image file, through the host's page cache (cache=writeback), io_uring and passt. Nobody else
reads or writes the image; it is filled before, and its content is in the page cache, so the monitors are measured, not the medium.
"""
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import machine

TOOLS = os.path.join(machine.GUEST, "tools.img")
INITRD = os.path.join(machine.TOP, "build", "bench", "io.cpio.gz")
IMAGE_MIB = 256
# Group -> boots of a guest: kind, CPUs, lines. What the lines are: guest/io.sh. `fill` writes to an image that is empty.
GROUPS = {
    "disk": [
        ("raw", 1, ["seqread", "seqwrite", "randread", "randwrite", "randrw", "write-sync"]),
        ("raw", 2, ["randread-2jobs"]),
        ("qcow2", 1, ["seqread", "seqwrite", "randread", "randwrite", "randrw", "write-sync"]),
        ("qcow2-new", 1, ["fill"]),
    ],
    "network": [
        ("net", 1, ["tx", "rx"]),
        ("net", 2, ["tx-2", "rx-2"]),
    ],
}
# Lines whose operations are small: the rate is that of operations.
SMALL = ("randread", "randwrite", "randrw", "write-sync", "randread-2jobs")


def full_name(kind, line):
    return f"{kind}-{line}"


def lines_of(group):
    return [full_name(kind, line) for kind, _, lines in GROUPS[group] for line in lines]


def small(name):
    return name.split("-", 1)[1] in SMALL


class Images:
    """Files for the lines about disks, made when they are first wanted."""

    def __init__(self, folder):
        self.folder = folder

    def get(self, kind):
        path = os.path.join(self.folder, kind + ".img")
        if kind == "qcow2-new":
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, f"{IMAGE_MIB}M"], check=True)
        elif kind == "qcow2" and not os.path.exists(path):
            subprocess.run(["qemu-img", "convert", "-O", "qcow2", self.get("raw"), path], check=True)
        elif kind == "raw" and not os.path.exists(path):
            with open(path, "wb") as f:
                for _ in range(IMAGE_MIB):
                    f.write(os.urandom(1 << 20))
        return path


class Passt:
    """passt for QEMU, which wants a path to connect to, with the addresses that doppel gives it."""

    def __init__(self):
        # Started by root it makes its socket as somebody else.
        self.folder = tempfile.TemporaryDirectory(prefix="doppel-bench-")
        os.chmod(self.folder.name, 0o777)
        self.path = os.path.join(self.folder.name, "passt.sock")
        cmd = ["passt", "--foreground", "--quiet", "--socket", self.path, "--address=10.0.2.15", "--netmask=255.255.255.0",
               "--gateway=10.0.2.2", "--mtu=65520", "--one-off"]
        if not subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True, check=False).stdout:
            cmd += ["--ipv4-only", "--interface=lo", "--mac-addr=02:00:00:00:00:02"]
        self.proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + 10
        while not os.path.exists(self.path):
            if self.proc.poll() is not None or time.monotonic() > end:
                sys.exit(f"bench/run: passt does not start: {self.proc.stderr.read().decode(errors='replace')[-300:]}")
            time.sleep(0.02)

    def close(self):
        self.proc.terminate()
        self.proc.wait()
        self.folder.cleanup()


def disk_options(contender, image, kind, cpus):
    form = "raw" if kind == "raw" else "qcow2"
    if contender != "qemu":
        return ["--disk", f"{TOOLS},readonly=on,format=raw", "--disk", f"{image},format={form}"]
    return ["-drive", f"file={TOOLS},format=raw,if=none,id=tools,readonly=on", "-device", "virtio-blk-pci,drive=tools",
            "-drive", f"file={image},format={form},if=none,id=disk,cache=writeback,aio=io_uring,discard=unmap",
            "-device", f"virtio-blk-pci,drive=disk,num-queues={cpus}"]


def net_options(contender, passt):
    if contender != "qemu":
        return ["--disk", f"{TOOLS},readonly=on,format=raw", "--net", "user,loopback=on"]
    return ["-drive", f"file={TOOLS},format=raw,if=none,id=tools,readonly=on", "-device", "virtio-blk-pci,drive=tools",
            "-netdev", f"stream,id=net,server=off,addr.type=unix,addr.path={passt.path}",
            "-device", "virtio-net-pci,netdev=net,host_mtu=65520"]


def run_guest(contender, cpus, setting, extra, timeout):
    """{line: (bytes per second, operations per second)}"""
    append = f"{machine.APPEND} quiet doppel.run=/io.sh \"IO_RUN={setting}\""
    count = ["-smp" if contender == "qemu" else "--cpus", str(cpus)]
    with machine.Machine(machine.command(contender, initrd=INITRD, append=append, extra=[*count, *extra]),
                         stdin=subprocess.DEVNULL) as m:
        m.finish(timeout)
        text = "\n".join(machine.lines(m.out))
        if "io done" not in text or " failed" in text:
            sys.exit(f"bench/run: {contender}: {setting}: the guest ended with:\n{text[-600:]}{m.err.decode(errors='replace')[-300:]}")
    return {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"^io (\S+) (\d+) (\d+)$", text, re.M)}


class Results:
    """Rates of each line for each contender in every round; and what is left out, and why."""

    def __init__(self, names, opt):
        self.opt = opt
        self.rounds = {}
        self.folder = tempfile.TemporaryDirectory(prefix=".io.", dir=os.path.join(machine.TOP, "build", "bench"))
        self.images = Images(self.folder.name)
        self.left_out = []
        self.boots = []
        for group, boots in GROUPS.items():
            missing = [p for p in ("passt", "iperf3") if not shutil.which(p)] if group == "network" else []
            for kind, cpus, lines in boots:
                lines = [line for line in lines if full_name(kind, line) in names]
                if lines and not missing:
                    self.boots.append((group, kind, cpus, lines))
            if missing and any(n in names for n in lines_of(group)):
                self.left_out.append(f"no {group} lines: not installed: {', '.join(missing)}")

    def disk(self, contender, kind, cpus, lines):
        options = disk_options(contender, self.images.get(kind), kind, cpus)
        return run_guest(contender, cpus, f"disk {self.opt.io_seconds} {' '.join(lines)}", options, self.opt.timeout)

    def network(self, contender, kind, cpus, lines):
        del kind
        port = 5301
        server = subprocess.Popen(["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        passt = Passt() if contender == "qemu" else None
        try:
            return run_guest(contender, cpus, f"network {self.opt.io_seconds} {port} {' '.join(lines)}",
                             net_options(contender, passt), self.opt.timeout)
        finally:
            if passt:
                passt.close()
            server.terminate()
            server.wait()

    def round(self, contender):
        rounds = self.rounds.setdefault(contender, {})
        for group, kind, cpus, lines in self.boots:
            for line, rates in getattr(self, group)(contender, kind, cpus, lines).items():
                rounds.setdefault(full_name(kind, line), []).append(rates)

    def all_rates(self, contender, name):
        """Operations or bytes a second, whichever the line is about, of all rounds."""
        return [r[1 if small(name) else 0] for r in self.rounds.get(contender, {}).get(name, [])]

    def rate(self, contender, name):
        return statistics.median(self.all_rates(contender, name) or [0])

    def text(self, contender, name):
        """The median, and the lowest and highest if there are several."""
        unit, scale = ("op/s", 1) if small(name) else ("MB/s", 1e6)
        rates = [r / scale for r in self.all_rates(contender, name)]
        spread = f" ({min(rates):.0f}-{max(rates):.0f})" if len(rates) > 1 else ""
        return f"{statistics.median(rates):.0f}{spread} {unit}" if rates else ""

    def print(self, contenders):
        print(f"\n{'':22}" + "".join(f"{c:>26}" for c in contenders) +
              ("".join(f"{c + '/qemu':>14}" for c in contenders if c != "qemu") if "qemu" in contenders else ""))
        for group, boots in GROUPS.items():
            rows = [(full_name(kind, line), cpus) for kind, cpus, lines in boots for line in lines]
            rows = [(name, cpus) for name, cpus in rows if any(self.rate(c, name) for c in contenders)]
            if rows:
                print(group)
            for name, cpus in rows:
                rates = [self.rate(c, name) for c in contenders]
                text = f"  {name + (f' ({cpus} CPUs)' if cpus > 1 else ''):20}"
                text += "".join(f"{self.text(c, name):>26}" for c in contenders)
                if "qemu" in contenders and self.rate("qemu", name):
                    text += "".join(f"{r / self.rate('qemu', name):>14.2f}" for c, r in zip(contenders, rates) if c != "qemu")
                print(text)
        for line in self.left_out:
            print(line)

    def close(self):
        self.folder.cleanup()
