# SPDX-License-Identifier: Apache-2.0
"""Machines with everything that has processes and sockets of its own (network, shared folder, vsock, gdb), detached, as the caller and as an
ordinary user: the verbs, and that whatever ends them, nothing is left or in the way of the next start."""
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import machine
import verbs
from machine import Machine
from report import Skip


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Full:
    """The options, and what they bring about. `folder` is the caller's to remove."""

    def __init__(self, user):
        self.folder = tempfile.mkdtemp(prefix="doppel-full-")
        self.sockets = [os.path.join(self.folder, n) for n in ("vsock", "gdb")]
        self.options = ["--share", f"{self.folder},tag=t", "--vsock", f"cid=9,path={self.sockets[0]}", "--gdb", "unix:" + self.sockets[1]]
        if shutil.which("passt"):
            self.options += ["--net", f"user,hostfwd={free_port()}:7"]
        if user is not None:
            os.chown(self.folder, user, user)

    def processes(self):
        """passt, which is nobody's child: the one that has the forwarded port in its command line."""
        port = self.options[-1].split("=")[-1].split(":")[0].encode()
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    line = f.read()
                if line.startswith(b"passt\0") and port in line:
                    found[int(pid)] = "passt"
        return found


def family(pid):
    """A process and its children, by name."""
    found = {pid: "doppel"}
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        for child in f.read().split():
            with contextlib.suppress(OSError), open(f"/proc/{child}/comm") as name:
                found[int(child)] = name.read().strip()
    return found


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def where(pids):
    """The state of each thread of the processes, and the number of the system call that it is in."""
    found = []
    for pid, name in pids.items():
        with contextlib.suppress(OSError):
            for t in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{t}/syscall") as f, open(f"/proc/{pid}/task/{t}/stat") as s:
                    found.append(f"{name} {t} {s.read().rsplit(')', 1)[1].split()[0]} {f.read().split()[0]}")
    return "; ".join(found)


def gone(pids):
    verbs.wait_until(f"processes end: {pids}", 15, lambda: not any(runs(p) for p in pids))


def debugger(d, path):
    """gdb's protocol: connecting holds the machine, detaching lets it go on."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(path)
        s.sendall(b"+$?#3f")
        got = b""
        while b"$T" not in got and b"$S" not in got:
            part = s.recv(4096)
            assert part, got
            got += part
        assert d.ps()["probe"]["state"] == "held"
        s.sendall(b"+$D#44")
        verbs.wait_until("the machine goes on", 10, lambda: d.ps()["probe"]["state"] == "running")


def together(engine, user):
    """All verbs on a machine that has everything; then each way it may be killed."""
    if user == "other" and os.getuid() != 0:
        raise Skip("already an ordinary user")
    uid = machine.NOBODY if user == "other" else None
    full = Full(uid)
    try:
        with verbs.Detached(engine, extra=full.options, user=uid) as d:
            with d.console() as c:
                c.expect(verbs.PROMPT, verbs.BOOT[engine])
            d.ok("pause", "probe")
            assert d.ps()["probe"]["state"] == "paused"
            d.ok("resume", "probe")
            debugger(d, full.sockets[1])
            assert d.stats()["time"]["vcpu_ns"] > 0
            d.ok("reset", "probe")
            with d.console("--scrollback", "0") as c:
                c.expect(verbs.PROMPT, verbs.BOOT[engine])
            for victim in ("doppel", "doppel-vm", None):
                all_of_them = {**family(d.ps()["probe"]["pid"]), **full.processes()}
                names = sorted(all_of_them.values())
                want = ["doppel", "doppel-fs", "doppel-vm"] + ["passt"] * ("--net" in full.options)
                assert names == want, f"{names} run, not {want}"
                if victim:
                    os.kill(next(p for p, name in all_of_them.items() if name == victim), signal.SIGKILL)
                else:
                    d.ok("stop", "probe", "--force")
                gone(all_of_them)
                if victim != "doppel":  # who is killed cannot clean up
                    assert d.files() == ["probe.log"], d.files()
                    assert os.listdir(full.folder) == [], os.listdir(full.folder)
                if victim:
                    d.start()  # finds locks and sockets of a dead machine, or nothing
                    assert d.ps()["probe"]["state"] == "running"
    finally:
        shutil.rmtree(full.folder)


def interrupted(engine):
    """Ctrl-C, at any moment of a start and later, leaves no process, no socket, no lock."""
    full = Full(None)
    runtime = tempfile.mkdtemp(prefix="doppel-verbs-")
    rng = random.Random(1)
    try:
        for delay in [rng.random() * 0.4 for _ in range(12)] + [3]:
            cmd = ["env", "XDG_RUNTIME_DIR=" + runtime, *machine.doppel_cmd(engine), "--serial", "none", "--name", "probe", *full.options]
            with Machine(cmd, stdin="pty") as m:
                time.sleep(delay)
                everything = {}
                with contextlib.suppress(OSError):
                    everything = family(m.proc.pid)
                everything.update(full.processes())
                m.send("\x03")
                try:
                    status = m.finish(20)
                except machine.Timeout as e:
                    everything = {**family(m.proc.pid), **full.processes()}
                    raise AssertionError(f"{e}, {delay:.3f} s after the start: {where(everything)}; it said: {m.err[-200:]}") from e
                # Before it has taken over signals and terminal, it is ended by the signal like any program.
                assert status in (8, -signal.SIGINT), f"exit status {status} {delay:.3f} s after the start: {m.err[-200:]}"
                gone({**everything, **full.processes()})
            left = [*os.listdir(full.folder), *(os.listdir(runtime + "/doppel") if os.path.exists(runtime + "/doppel") else [])]
            assert left == [], f"{left} left, {delay:.3f} s after the start"
    finally:
        shutil.rmtree(full.folder)
        shutil.rmtree(runtime)


CASES = [("caller", together, "caller"), ("other", together, "other"), ("ctrl-c", interrupted)]
