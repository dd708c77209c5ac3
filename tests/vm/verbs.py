# SPDX-License-Identifier: Apache-2.0
"""The everyday verbs, on a detached machine: ps, stop, pause, resume, console, stats, and what is left of machines that were killed."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import machine
from report import Skip

BOOT = {"bt": 60, "interp": 120, "kvm": 30}
PROMPT = rb"doppel:/root# "


class Detached:
    """A detached machine in a runtime directory of its own; ended with the block. With `user`, another user's (only root can)."""

    def __init__(self, engine, name="probe", extra=(), append=machine.APPEND, initrd=machine.INITRD, user=None):
        self.name, self.extra = name, extra
        self.dir = tempfile.mkdtemp(prefix="doppel-verbs-")
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.dir}
        self.who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        self.copies = None if user is None else machine.copies([machine.KERNEL, initrd])
        if user is not None:
            os.chown(self.dir, user, user)
        self.doppel, kernel, initrd = (os.path.join(self.copies or os.path.dirname(f), os.path.basename(f))
                                       for f in (machine.DOPPEL, machine.KERNEL, initrd))
        self.boot = machine.doppel_cmd(engine, append=append, kernel=kernel, initrd=initrd)[2:]

    def start(self):
        p = self.run("run", *self.boot, "--name", self.name, "-d", *self.extra)
        assert p.returncode == 0 and p.stdout == self.name + "\n", f"run -d: {p.returncode} {p.stdout} {p.stderr}"

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.run("stop", self.name, "--force")
        shutil.rmtree(self.dir)
        if self.copies:
            shutil.rmtree(self.copies)

    def run(self, *args, timeout=30, **kw):
        return subprocess.run([self.doppel, *args], env=self.env, stdin=kw.pop("stdin", subprocess.DEVNULL), capture_output=True,
                              text=True, errors="replace", timeout=timeout, **self.who, **kw)

    def ok(self, *args, **kw):
        p = self.run(*args, **kw)
        assert p.returncode == 0, f"{args}: status {p.returncode}: {p.stderr}"
        return p.stdout

    def ps(self):
        return {m["name"]: m for m in json.loads(self.ok("ps", "--format", "json"))}

    def stats(self):
        return json.loads(self.ok("stats", self.name, "--format", "json"))

    def files(self):
        return sorted(os.listdir(os.path.join(self.dir, "doppel")))

    def vm_pid(self):
        with open(f"/proc/{self.ps()[self.name]['pid']}/task/{self.ps()[self.name]['pid']}/children") as f:
            return int(f.read().split()[0])

    @contextlib.contextmanager
    def console(self, *args):
        c = Console([self.doppel, "console", self.name, *args], self.env, self.who)
        try:
            yield c
        finally:
            c.close()


class Console:
    """A `doppel console` on pipes."""

    def __init__(self, cmd, env, who):
        self.proc = subprocess.Popen(cmd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **who)
        os.set_blocking(self.proc.stdout.fileno(), False)
        self.out = b""

    def send(self, text):
        self.proc.stdin.write(text.encode())
        self.proc.stdin.flush()

    def expect(self, regex, limit, dotall=False):
        end = time.monotonic() + limit
        while True:
            self.out += self.proc.stdout.read() or b""
            m = re.search(regex, self.out, re.S if dotall else 0)
            if m:
                self.out = self.out[m.end():]
                return m
            if self.proc.poll() is not None or time.monotonic() > end:
                self.out += self.proc.stdout.read() or b""
                raise AssertionError(f"no {regex} within {limit} s: {self.out[-300:]} {self.proc.poll()}")
            time.sleep(0.02)

    def close(self):
        self.proc.terminate()
        self.proc.communicate(timeout=10)


def wait_until(what, limit, test):
    end = time.monotonic() + limit
    while not test():
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        time.sleep(0.05)


def detach(engine):
    with Detached(engine) as d:
        m = d.ps()["probe"]
        assert m["state"] == "running" and m["cpus"] == 1 and m["memory_bytes"] == 512 << 20 and m["engine"] == engine, m
        p = d.run("run", "-d", "--name", "probe", "--kernel", machine.KERNEL)
        assert p.returncode == 10 and "is running (pid" in p.stderr, p.stderr
        with d.console() as c:
            c.expect(machine.BANNER, BOOT[engine])
            c.expect(PROMPT, 30)
            c.send("echo typed-$((40 + 2))\n")
            c.expect(rb"typed-42", 30)
        assert json.loads(d.ok("stop", "probe", "--force", "--format", "json")) == {"name": "probe", "end": "doppel stop"}
        assert d.ps() == {} and d.files() == ["probe.log"], d.files()
        p = d.run("stop", "probe")
        assert p.returncode == 10 and "no machine called 'probe'" in p.stderr
    with tempfile.TemporaryDirectory() as runtime:
        env = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        for bad in (["--kernel", "/nowhere"], ["--kernel", machine.DOPPEL]):
            p = subprocess.run([machine.DOPPEL, "run", "-d", *bad], env=env, capture_output=True, text=True, timeout=30)
            assert p.returncode == 10 and p.stderr.startswith("doppel: ") and p.stderr.count("\n") == 1, p
            assert not [f for f in os.listdir(os.path.join(runtime, "doppel")) if not f.endswith(".log")] \
                if os.path.exists(os.path.join(runtime, "doppel")) else True


VM_INITRD = os.path.join(machine.TOP, "build", "tests", "vm", "initramfs.cpio.gz")


def stop(engine):
    """The power button, with a program of tests/vm/guest in the place of acpid."""
    with Detached(engine, initrd=VM_INITRD) as d:
        with d.console() as c:
            c.expect(PROMPT, BOOT[engine])
            p = d.run("stop", "probe", "--timeout", "0.5")
            assert p.returncode == 16 and "has not ended" in p.stderr, p  # nobody listens yet
            c.send("/vmtest --power-button\n")
            c.expect(rb"waiting for the power button", 30)
            end = json.loads(d.ok("stop", "probe", "--format", "json"))
            assert end["end"] == "power-off", end
            c.proc.wait(10)
            assert c.proc.returncode == 0
        assert d.ps() == {}


def pause(engine):
    with Detached(engine) as d:
        assert json.loads(d.ok("pause", "probe", "--format", "json"))["state"] == "paused"
        before = d.ps()["probe"]
        assert before["state"] == "paused", before
        time.sleep(0.5)
        after = d.ps()["probe"]
        assert after["uptime_ns"] == before["uptime_ns"] and after["vcpu_ns"] - before["vcpu_ns"] < 20e6, (before, after)
        p = d.run("stop", "probe")
        assert p.returncode == 10 and "resume" in p.stderr, p.stderr  # it could not see the button
        d.ok("resume", "probe")
        with d.console() as c:
            c.expect(PROMPT, BOOT[engine])
        d.ok("reset", "probe")
        with d.console("--scrollback", "0") as c:
            c.expect(machine.BANNER, BOOT[engine])


def console(engine):
    with Detached(engine) as d, d.console() as first:
        first.expect(PROMPT, BOOT[engine])
        p = d.run("console", "probe")
        assert p.returncode == 10 and "--steal" in p.stderr, p
        with d.console("--read-only") as viewer:
            viewer.expect(machine.BANNER, 5)  # from the scrollback
            viewer.send("echo viewer-$((40 + 2))\n")
            first.send("seq 1 30000; echo end-$((40 + 2))\n")
            first.expect(rb"end-42", 60)
            viewer.expect(rb"end-42", 10)
            assert b"viewer-42" not in viewer.out
            with d.console("--steal", "--scrollback", "0") as second:
                first.send("echo first-$((40 + 2))\n")
                second.send("echo second-$((40 + 2))\n")
                viewer.expect(rb"second-42", 30)
                assert b"first-42" not in viewer.out
        # Ctrl-A d detaches, on a terminal.
        with machine.Machine(["env", "XDG_RUNTIME_DIR=" + d.dir, machine.DOPPEL, "console", "probe", "--steal"], stdin="pty") as m:
            m.expect(PROMPT, 10)
            m.send("\x01d")
            assert m.finish(10) == 0
        assert d.ps()["probe"]["state"] == "running"


# --- killed machines ------------------------------------------------------------------------------------------------------


def killed(engine):
    """kill -9 of either process: nothing lives on, and whoever comes next finds the name free."""
    with Detached(engine) as d:
        vm, pid = d.vm_pid(), d.ps()["probe"]["pid"]
        os.kill(vm, signal.SIGKILL)
        wait_until("doppel ends", 10, lambda: not os.path.exists(f"/proc/{pid}"))
        assert d.files() == ["probe.log"], d.files()
        again = [*machine.doppel_cmd(engine)[2:], "--name", "probe", "-d"]
        for comes_next in ("ps", "run"):
            d.ok("run", *again)
            vm, pid = d.vm_pid(), d.ps()["probe"]["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_until("doppel-vm ends", 10, lambda: not os.path.exists(f"/proc/{vm}"))
            assert d.files() == ["probe.lock", "probe.log", "probe.sock"], d.files()
            if comes_next == "ps":
                assert d.ps()["probe"]["state"] == "dead"
                assert d.ps() == {} and d.files() == ["probe.log"], d.files()
        d.ok("run", *again)
        assert d.ps()["probe"]["state"] == "running"


# --- clients that mean no good --------------------------------------------------------------------------------------------


def hostile(engine):
    """Clients that send nonsense, read nothing, or come in numbers cost their own connections and nothing else."""
    def connect(d):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(os.path.join(d.dir, "doppel", "probe.sock"))
        s.settimeout(5)
        return s

    def message(kind, body=b"", magic=0x4c544344, version=1, status=0):
        return struct.pack("<IHHIi", magic, version, kind, 16 + len(body), status) + body

    with Detached(engine) as d, d.console() as c:
        c.expect(PROMPT, BOOT[engine])
        for junk in (b"x", b"\0" * 16, message(1, magic=7), message(1, version=2), message(1, b"?"), message(0), message(0x8001),
                     message(9, b"\xff" * 8), message(9, b"short"), message(10), message(10, b"x" * 2000), message(1, status=1),
                     message(1)[:15], message(1) + b"?", os.urandom(60000)):
            with connect(d) as s:
                s.send(junk)
                try:
                    assert s.recv(10) == b"", f"an answer to {junk[:20]}"
                except ConnectionResetError:
                    pass
        with connect(d) as s:  # asks and asks and reads nothing
            with contextlib.suppress(OSError):
                for _ in range(5000):
                    s.send(message(2))
        idle = connect(d)
        idle.send(message(9, struct.pack("<II", 0, 1 << 18)))  # attached, never reads
        many = [connect(d) for _ in range(30)]
        c.send("seq 1 20000; echo end-$((40 + 2))\n")
        c.expect(rb"end-42", 60)
        for s in (*many, idle):
            s.close()
        assert d.ps()["probe"]["state"] == "running"
        if os.getuid() == 0:
            os.chmod(d.dir, 0o755)
            p = subprocess.run([machine.DOPPEL, "stop", "probe", "--force"], env=d.env, capture_output=True, text=True, timeout=20,
                               user=65534, group=65534, extra_groups=[]) if os.access(machine.DOPPEL, os.X_OK) else None
            assert p is None or p.returncode != 0
            assert d.ps()["probe"]["state"] == "running"


CASES = [("detach", detach), ("stop", stop), ("pause", pause), ("console", console), ("killed", killed), ("hostile-clients", hostile)]
