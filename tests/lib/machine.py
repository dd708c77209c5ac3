# SPDX-License-Identifier: Apache-2.0
"""A machine under test: command lines for doppel and for QEMU, and a process whose serial console can be waited on.

Used by tests/vm and bench; standard library only. A Machine owns one process group and one end of a pipe, a
pseudo-terminal or a file for its standard input; close() always ends that process, and only that one.
"""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import termios
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"))
GUEST = os.path.join(TOP, "build", "guest")
DOPPEL = os.path.join(BUILD, "doppel")
KERNEL = os.path.join(GUEST, "vmlinuz")
INITRD = os.path.join(GUEST, "initramfs.cpio.gz")
BANNER = b"doppel: user space reached"
APPEND = "console=ttyS0"


def doppel_cmd(engine, initrd=INITRD, append=APPEND, memory="512M", kernel=KERNEL, extra=()):
    return [DOPPEL, "run", "--engine", engine, "--kernel", kernel, "--initrd", initrd, "--append", append,
            "--memory", memory, *extra]


def qemu_cmd(initrd=INITRD, append=APPEND, memory="512M", kernel=KERNEL, extra=()):
    return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "pc", "-m", memory, "-nodefaults",
            "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
            "-append", append, *extra]


def command(engine, **kw):
    """The command line for an engine name; "qemu" stands for QEMU TCG, the yardstick."""
    return qemu_cmd(**kw) if engine == "qemu" else doppel_cmd(engine, **kw)


def have_qemu():
    return shutil.which("qemu-system-x86_64") is not None


def engines():
    """The engines that `doppel check` says work here, fastest first (lockstep left out: it is a debugging mode)."""
    out = subprocess.run([DOPPEL, "check", "--format", "json"], capture_output=True, text=True, timeout=60).stdout
    works = [e["name"] for e in json.loads(out)["engines"] if e["works"] and e["name"] != "lockstep"]
    return sorted(works, key=["kvm", "bt", "interp"].index)


NOBODY = 65534  # an ordinary user, when the tests run as root


def copies(files):
    """A folder with doppel's programs and `files` that every user may read, which cannot be said of the tree; the caller removes it."""
    folder = tempfile.mkdtemp(prefix="doppel-bin-")
    os.chmod(folder, 0o755)
    for f in (DOPPEL, DOPPEL + "-vm", DOPPEL + "-fs", *files):
        shutil.copy(f, folder)
    return folder


class Timeout(Exception):
    pass


def default_signals():
    """As under a login shell: nothing is ignored, which the keyboard's signals are when the tests run in the background, and SIGHUP
    under nohup."""
    for sig in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(sig, signal.SIG_DFL)


def log_in():
    """As under a login shell, with the terminal as the controlling one of the session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    default_signals()


class Machine:
    """stdin: "pipe", "pty" (standard output too), or an open file or subprocess.DEVNULL."""

    def __init__(self, cmd, stdin="pipe", log=None, user=None):
        self.out = b""
        self.log = log
        self.master = None
        who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        self.start = time.monotonic()
        self.err_read, err_write = os.pipe()
        if stdin == "pty":
            self.master, slave = pty.openpty()
            self.mode = termios.tcgetattr(slave)  # as found
            self.proc = subprocess.Popen(cmd, stdin=slave, stdout=slave, stderr=err_write, start_new_session=True, preexec_fn=log_in, **who)
            self.slave = slave
            self.read_fd = self.write_fd = self.master
        else:
            self.proc = subprocess.Popen(cmd, stdin=subprocess.PIPE if stdin == "pipe" else stdin,
                                         stdout=subprocess.PIPE, stderr=err_write, start_new_session=True,
                                         preexec_fn=default_signals, **who)
            self.read_fd = self.proc.stdout.fileno()
            self.write_fd = self.proc.stdin.fileno() if stdin == "pipe" else None
        os.close(err_write)
        os.set_blocking(self.err_read, False)
        self.err = b""

    def read_some(self, timeout):
        """Takes what there is on the console within timeout; False at its end."""
        ready, _, _ = select.select([self.read_fd, self.err_read], [], [], max(0, timeout))
        if self.err_read in ready:
            try:
                self.err += os.read(self.err_read, 65536)
            except BlockingIOError:
                pass
        if self.read_fd in ready:
            try:
                data = os.read(self.read_fd, 65536)
            except OSError:
                data = b""
            self.out += data
            return data != b""
        return True

    def expect(self, pattern, timeout=60):
        """Waits until the console since the last match shows pattern; returns the match and forgets what precedes it."""
        regex = re.compile(pattern if isinstance(pattern, bytes) else pattern.encode(), re.S)
        end = time.monotonic() + timeout
        pos = getattr(self, "pos", 0)
        while True:
            m = regex.search(self.out, pos)
            if m:
                self.pos = m.end()
                return m
            if time.monotonic() > end:
                raise Timeout(f"no {pattern!r} within {timeout} s")
            # With a pseudo-terminal our own slave end keeps the master open: the end of the process is the end of output.
            if not self.read_some(min(0.2, end - time.monotonic())) or (self.proc.poll() is not None and not self._more()):
                if not regex.search(self.out, pos):
                    raise Timeout(f"console ended before {pattern!r}")

    def _more(self):
        n = len(self.out)
        return self.read_some(0.05) and len(self.out) > n

    def send(self, text):
        os.write(self.write_fd, text if isinstance(text, bytes) else text.encode())

    def finish(self, timeout=60):
        """Waits for the process to end by itself; its exit status (negative: signal)."""
        end = time.monotonic() + timeout
        while self.proc.poll() is None:
            if time.monotonic() > end:
                raise Timeout(f"still running after {timeout} s")
            if not self.read_some(0.05):
                time.sleep(0.01)
        while self._more():
            pass
        return self.proc.returncode

    def close(self):
        """Ends the process if it still runs, and everything it left in its session."""
        if self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.proc.pid, signal.SIGKILL)
                self.proc.wait()
        if self.log:
            with open(self.log, "wb") as f:
                f.write(self.out)
                f.write(b"\n--- standard error ---\n" + self.err)
        for f in (self.proc.stdin, self.proc.stdout):
            if f:
                f.close()
        os.close(self.err_read)
        if self.master is not None:
            os.close(self.slave)
            os.close(self.master)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def lines(raw):
    """Console output as text lines, carriage returns and terminal escapes removed."""
    return re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]|\r", b"", raw).decode("utf-8", "replace").split("\n")
