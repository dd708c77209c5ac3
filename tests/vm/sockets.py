# SPDX-License-Identifier: Apache-2.0
"""vsock under Debian's own driver: the guest runs tests/vm/guest/vsock.c, this is the host's end."""
import array
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading

import in_guest
import machine
from machine import Machine, command

ECHO, SINK, SOURCE, HALF, DEAF, CALL, END = range(7000, 7007)
CID = 77
MANY = 40
LIMIT = 60  # seconds for anything: a busy host


def numbers(count):
    return array.array("I", range(count // 4)).tobytes()


class Host:
    def __init__(self, folder):
        self.path = os.path.join(folder, "sock")

    def plain(self):
        """Python's own time limit makes connect() fail with EAGAIN where the backlog is full (connect(2)): the kernel's waits."""
        s = socket.socket(socket.AF_UNIX)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", LIMIT, 0))
        s.connect(self.path)
        s.settimeout(LIMIT)
        return s

    def dial(self, port):
        """A connection to the guest's port, or None if it refuses."""
        s = self.plain()
        s.sendall(b"CONNECT %d\n" % port)
        line = b""
        while not line.endswith(b"\n"):
            byte = s.recv(1)
            if not byte:
                assert line == b"", line
                return None
            line += byte
        assert line.startswith(b"OK ") and line[3:-1].isdigit(), line
        return s

    def listen(self, port):
        s = socket.socket(socket.AF_UNIX)
        s.bind(f"{self.path}_{port}")
        s.listen(4)
        s.settimeout(LIMIT)
        return s


def read_all(s):
    parts = []
    while True:
        part = s.recv(1 << 18)
        if not part:
            return b"".join(parts)
        parts.append(part)


def echo(h, text=b"hello"):
    with h.dial(ECHO) as s:
        s.sendall(text)
        s.shutdown(socket.SHUT_WR)
        got = read_all(s)
    assert got == text, f"{len(got)} bytes of {len(text)}: {got[:40]}"


def dialing(h):
    echo(h)
    assert h.dial(7999) is None, "a port without listener accepts"
    for junk in (b"CONNECT x\n", b"CONNECT\n", b"CONNECT 99999999999\n", b"connect 7000\n", b"\n", b"\0" * 100, b"CONNECT " + b"7" * 5000):
        with h.plain() as s, contextlib.suppress(ConnectionError):
            s.sendall(junk)
            s.shutdown(socket.SHUT_WR)
            assert read_all(s) == b"", f"an answer to {junk[:20]}"
    echo(h)
    assert os.stat(h.path).st_mode & 0o077 == 0, "others may connect to the guest"


def streams(h):
    data = numbers(4 << 20)
    with h.dial(SINK) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"%d from 2\n" % len(data)
    with h.dial(SOURCE) as s:
        s.sendall(b"%d\n" % len(data))
        assert read_all(s) == data, "the guest's bytes"
    for n in (0, 1, 3, 4096, 65535, 65536, 65537):
        with h.dial(SOURCE) as s:
            s.sendall(b"%d\n" % n)
            got = read_all(s)
        assert got == numbers(n + 4)[:n], f"{len(got)} bytes instead of {n}"


def half_closed(h, m):
    with h.dial(HALF) as s:
        assert read_all(s) == b"bye\n"
        s.sendall(numbers(100000))
    heard = m.expect(rb"half closed: heard (\d+) from 2", LIMIT)[1]
    assert heard == b"100000", heard


def at_once(h):
    wrong = []

    def one(i):
        try:
            echo(h, b"%d," % i * 3000)
        except Exception as e:  # pylint: disable=broad-except
            wrong.append(f"{i}: {e!r}")

    threads = [threading.Thread(target=one, args=(i,)) for i in range(MANY)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[:3]
    for _ in range(100):
        echo(h, b"again")


def stubborn(h):
    """Who does not read, and who says nothing, holds up nobody else."""
    with contextlib.ExitStack() as held:
        deaf = held.enter_context(h.dial(DEAF))
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                deaf.send(bytes(65536))
            raise AssertionError("64 MB fit into a connection that nobody reads")
        lazy = held.enter_context(h.dial(SOURCE))
        lazy.sendall(b"%d\n" % (16 << 20))
        for _ in range(100):
            held.enter_context(h.plain())
        for _ in range(10):
            echo(h, bytes(100000))
        assert len(read_all(lazy)) == 16 << 20
    echo(h)


def calls(h):
    with h.listen(9000) as listener, h.dial(CALL) as control:
        control.sendall(b"9000\n")
        s, _ = listener.accept()
        with s:
            s.settimeout(LIMIT)
            got = read_all(s)
            s.sendall(b"%d bytes\n" % len(got))
        assert got == numbers(4 << 20)
        assert read_all(control) == b"%d bytes" % len(got)
    for port in (9000, 9001):  # a socket file without listener; none
        with h.dial(CALL) as control:
            control.sendall(b"%d\n" % port)
            assert read_all(control) == b"error 104", "ECONNRESET"


def vsock(report, engine, log_dir):
    """Each kind of use is a case of its own."""
    folder = tempfile.mkdtemp(prefix="doppel-vsock-")
    h = Host(folder)
    try:
        with Machine(command(engine, initrd=in_guest.VM_INITRD, append=machine.APPEND + " doppel.run=/vsock.sh",
                             extra=["--vsock", f"cid={CID},path={h.path}"]), stdin=subprocess.DEVNULL,
                     log=os.path.join(log_dir, f"vm-{engine}-vsock.log")) as m:
            m.expect(rb"vsock services", in_guest.BOOT[engine])
            for name, function, *args in (("dial", dialing), ("stream", streams), ("half-closed", half_closed, m), ("at-once", at_once),
                                          ("stubborn", stubborn), ("call", calls)):
                report.run(f"vm-{engine}-vsock-{name}", function, h, *args)
            h.dial(END).close()
            m.expect(rb"script done", LIMIT)
            assert m.finish(30) == 0
            in_guest.check_log("\n".join(machine.lines(m.out)))
        assert not os.path.exists(h.path), "the socket is left behind"
    finally:
        shutil.rmtree(folder)
