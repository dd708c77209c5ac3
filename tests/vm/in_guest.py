# SPDX-License-Identifier: Apache-2.0
"""Cases that look at the guest from inside, on one engine each: the script of guest programs, the kernel log, time, reboot."""
import os
import random
import re
import subprocess
import time

import machine
from machine import Machine, command

VM_INITRD = os.path.join(machine.TOP, "build", "tests", "vm", "initramfs.cpio.gz")
ALLOWED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernel-log.allowed")
# What a boot and a script may take at most. These are for machines under load, not promises of speed.
BOOT = {"bt": 60, "interp": 240, "qemu": 60, "kvm": 30}
SCRIPT = {"bt": 180, "interp": 600, "qemu": 180, "kvm": 60}
# Known gaps of the yardstick, so that the cases themselves can be checked against it.
QEMU_FAILS = {"fault-info", "arith-fault", "avx"}


def allowed_patterns():
    with open(ALLOWED) as f:
        return [re.compile(line.rstrip("\n")) for line in f if line.strip() and not line.startswith("#")]


def check_log(text):
    """Kernel messages of level warning and worse must be ones that QEMU's log shows too."""
    body = text.split("log begin\n", 1)[1].split("log end", 1)[0]
    patterns = allowed_patterns()
    strange = []
    for line in body.splitlines():
        message = re.sub(r"^<\d+>\[ *[\d.]+\] ", "", line)
        if not any(p.search(message) for p in patterns):
            strange.append(message)
    assert not strange, "kernel warnings that QEMU does not give: " + " | ".join(strange[:5])


def script(report, engine, log_dir):
    """Every user-space test; each line of the guest is a case of its own."""
    append = machine.APPEND + " doppel.run=/script.sh"
    log = os.path.join(log_dir, f"vm-{engine}-script.log")
    with Machine(command(engine, initrd=VM_INITRD, append=append), stdin=subprocess.DEVNULL, log=log) as m:
        m.expect(machine.BANNER, BOOT[engine])
        m.expect(rb"vmtest done", SCRIPT[engine])
        m.expect(rb"elf32 done", 60)
        first = float(m.expect(rb"clock ([\d.]+)\r", SCRIPT[engine])[1])
        t0 = time.monotonic()
        second = float(m.expect(rb"clock ([\d.]+)\r", 60)[1])
        real, guest = time.monotonic() - t0, second - first
        m.expect(rb"script done", 60)
        status = m.finish(30)
        text = "\n".join(machine.lines(m.out))
    results = re.findall(r"^(ok|not ok) ([\w-]+)(?:: (.*))?$", text, re.M)
    for verdict, name, why in results:
        case = f"vm-{engine}-{name}"
        if verdict == "ok":
            report.ok(case)
        elif engine == "qemu" and name in QEMU_FAILS:
            report.skip(case, "known gap of QEMU TCG")
        else:
            report.fail(case, why)
    assert len(results) >= 50, f"only {len(results)} results; see {log}"
    assert status == 0, f"exit status {status} after poweroff"
    assert abs(guest - real) < 0.1 * real + 0.1, f"guest clock advanced {guest:.2f} s in {real:.2f} s"
    check_log(text)


def reboot(engine):
    with Machine(command(engine), stdin="pipe") as m:
        for _ in range(2):
            m.expect(machine.BANNER, BOOT[engine])
            m.expect(rb"# ", 30)
            m.send("reboot -f\n")
        m.expect(machine.BANNER, BOOT[engine])
        m.expect(rb"# ", 30)
        m.send("poweroff -f\n")
        assert m.finish(30) == 0


def no_reboot(engine):
    with Machine(command(engine, extra=["--no-reboot"]), stdin="pipe") as m:
        m.expect(machine.BANNER, BOOT[engine])
        m.expect(rb"# ", 30)
        m.send("reboot -f\n")
        status = m.finish(30)
    assert status == 6, f"exit status {status}, not 6"


def panic(engine):
    """The kernel kills itself: a panic with panic=-1 resets the machine."""
    append = machine.APPEND + " panic=-1 rdinit=/nonexistent root=none"
    with Machine(command(engine, append=append, extra=["--no-reboot"]), stdin=subprocess.DEVNULL) as m:
        m.expect(rb"Kernel panic", BOOT[engine])
        status = m.finish(30)
    assert status == 6, f"exit status {status}, not 6"


def memory_size(engine):
    for size, least, most in (("128M", 60, 128), ("2G", 1800, 2048)):
        with Machine(command(engine, memory=size), stdin="pipe") as m:
            m.expect(machine.BANNER, BOOT[engine])
            m.expect(rb"# ", 30)
            m.send("grep MemTotal /proc/meminfo\n")
            total = int(m.expect(rb"MemTotal: *(\d+) kB", 20)[1]) // 1024
            m.send("poweroff -f\n")
            assert m.finish(30) == 0
        assert least <= total <= most, f"{size}: the guest sees {total} MiB"


def garbage(engine, seed):
    """A nonsensical kernel command line may stop the guest, never the monitor."""
    rng = random.Random(seed)
    words = ["mem=", "nosmp", "acpi=", "noapic", "nolapic", "tsc=", "clocksource=", "idle=", "earlyprintk=ttyS0", "lpj=",
             "pci=", "maxcpus=", "nopti", "hpet=", "no_timer_check", "memmap=", "iommu=", "debug", "nox2apic", "vdso=0"]
    parts = [b"console=ttyS0", b"panic=-1"]
    for _ in range(rng.randrange(1, 12)):
        parts.append(rng.choice(words).encode() + bytes(rng.randrange(1, 256) for _ in range(rng.randrange(0, 40))))
    rng.shuffle(parts)
    line = os.fsdecode(b" ".join(parts)[:4000])
    with Machine(command(engine, append=line, extra=["--no-reboot"]), stdin=subprocess.DEVNULL) as m:
        try:
            m.expect(machine.BANNER, 30)
        except machine.Timeout:
            pass
        if m.proc.poll() is None:
            m.proc.terminate()
        status = m.finish(20)
        err = m.err.decode(errors="replace")
    assert status in (0, 4, 6, 8), f"seed {seed}: exit status {status}: {err.strip()}"
