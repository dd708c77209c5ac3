# SPDX-License-Identifier: Apache-2.0
"""The virtio console under Debian's driver: a shell on hvc0, the terminal's size, output that is held up, input that is pasted."""
import fcntl
import hashlib
import os
import struct
import subprocess
import tempfile
import termios
import time

import machine
from machine import Machine, command
from on_host import cpu_seconds
from verbs import BOOT, VM_INITRD, Detached

# The driver is a module: the guest's first messages are on the serial port, hvc0 takes over when it is there.
APPEND = "console=ttyS0 console=hvc0 doppel.run=/hvc.sh"
PROMPT = rb"hvc0# "


def set_size(m, cols, rows):
    fcntl.ioctl(m.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def size_is(m, cols, rows):
    """The guest hears of it a little later."""
    for _ in range(50):
        m.send("echo size=$(stty size)=\n")
        if m.expect(rb"size=(\d* ?\d*)=", 20).group(1) == b"%d %d" % (rows, cols):
            return
        time.sleep(0.1)
    raise AssertionError(f"the guest's terminal never was {cols} x {rows}")


def terminal(engine, transport, cpus):
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "serial")
        extra = ["--console", "virtio", "--serial", f"file:{log}", "--virtio-transport", transport, *cpus]
        with Machine(command(engine, initrd=VM_INITRD, append=APPEND, extra=extra), stdin="pty") as m:
            set_size(m, 101, 37)
            m.expect(PROMPT, BOOT[engine])
            m.send("dmesg | grep -o 'console .hvc0. enabled'; echo '<0>to the console' >/dev/kmsg\n")
            m.expect(rb"console \[hvc0\] enabled.*\] to the console", 20)
            size_is(m, 101, 37)
            set_size(m, 132, 50)
            size_is(m, 132, 50)
            # What is typed while the guest is busy elsewhere waits for it.
            m.send("sleep 1; echo first\n")
            m.send("echo second-$((40 + 2))\n")
            m.expect(rb"first.*second-42", 30)
            m.send("poweroff -f\n")
            assert m.finish(30) == 0
        with open(log, "rb") as f:
            text = f.read()
        assert b"Linux version" in text and b"loading" in text and b"second-42" not in text, text[-300:]


def held_up(engine):
    """A reader that takes its time: nothing is lost, and while nothing moves nothing is used."""
    extra = ["--console", "virtio"]
    with Machine(command(engine, initrd=VM_INITRD, append=APPEND, extra=extra), stdin="pipe") as m:
        m.expect(PROMPT, BOOT[engine])
        m.send("stty -echo -opost; seq 1 100000 >/tmp/n; cat /tmp/n; echo end-$((40 + 2))\n")
        m.expect(rb"\n1\n2\n", 60)
        time.sleep(1)  # the pipe fills up, then the console, then the guest waits
        pid = int(subprocess.run(["pgrep", "-P", str(m.proc.pid), "doppel-vm"], capture_output=True, text=True).stdout.split()[0])
        used = -cpu_seconds(pid)
        time.sleep(2)
        used += cpu_seconds(pid)
        assert used < 0.4, f"{used} s of processor time in 2 s of waiting"
        begin, end = m.pos, m.expect(rb"end-42", 120).start()
        out = m.out[begin:end]
        assert b"1\n2\n" + out == b"".join(b"%d\n" % i for i in range(1, 100001)), "output was lost or came twice"


def pasted(engine):
    """64 KiB at once into a detached machine, through the control socket; then the terminal's size from there."""
    with Detached(engine, extra=("--console", "virtio"), append=APPEND, initrd=VM_INITRD) as d, d.console() as c:
        c.expect(PROMPT, BOOT[engine])
        data = "".join(f"line {i:07}\n" for i in range(5000))
        c.send("stty -echo; cat >/tmp/pasted\n")
        time.sleep(0.5)
        c.send(data + "\x04")
        c.send("md5sum /tmp/pasted; echo end-$((40 + 2))\n")
        assert hashlib.md5(data.encode()).hexdigest().encode() in c.expect(rb"(?s).*end-42", 60).group(0)
        c.close()
        with Machine(["env", "XDG_RUNTIME_DIR=" + d.dir, machine.DOPPEL, "console", "probe", "--scrollback", "0"], stdin="pty") as m:
            set_size(m, 90, 30)
            m.send("stty echo\n")
            m.expect(PROMPT, 20)
            size_is(m, 90, 30)
            m.send("\x01d")
            assert m.finish(10) == 0


def cases(engine, best):
    """(name, function, arguments...)"""
    yield ("hvc-pci", terminal, engine, "pci", ("--cpus", "2") if engine == best else ())
    if engine == best:
        yield ("hvc-mmio", terminal, engine, "mmio", ())
        yield ("hvc-held-up", held_up, engine)
        yield ("hvc-pasted", pasted, engine)
