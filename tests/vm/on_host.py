# SPDX-License-Identifier: Apache-2.0
"""Cases that look at doppel from the host: terminal, standard input, signals, residue, exit statuses, idle CPU, memory."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import termios
import time

import machine
from in_guest import BOOT
from machine import Machine, command
from report import Skip

ESC = "\x01"  # Ctrl-A


def check_mode(m):
    """The terminal is in the mode it was found in."""
    after = termios.tcgetattr(m.slave)
    names = ("iflag", "oflag", "cflag", "lflag", "ispeed", "ospeed", "cc")
    differs = [f"{n} {b} -> {a}" for n, b, a in zip(names, m.mode, after) if a != b]
    assert not differs, "terminal mode differs afterwards: " + ", ".join(differs)


def up(m, engine):
    """Waits for the shell."""
    m.expect(machine.BANNER, BOOT[engine])
    m.expect(rb"# ", 60)


def power_off(m):
    m.send("poweroff -f\n")
    status = m.finish(30)
    assert status == 0, f"exit status {status} after poweroff"


def session(pid):
    """Processes of the session that a Machine's process leads (doppel, doppel-vm), dead ones left out."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(entry))
    return found


def wait_gone(pid, seconds=5):
    end = time.monotonic() + seconds
    while session(pid) and time.monotonic() < end:
        time.sleep(0.05)
    left = session(pid)
    assert not left, f"processes left: {left}"


def vm_pid(m):
    for pid in session(m.proc.pid):
        with open(f"/proc/{pid}/comm") as f:
            if f.read().strip().startswith("doppel-vm"):
                return pid
    raise AssertionError("no doppel-vm process")


# --- terminal and standard input -------------------------------------------------------------------------------------


def terminal(engine):
    """Interactive shell with job control; the terminal's mode is the same afterwards."""
    with Machine(command(engine), stdin="pty") as m:
        up(m, engine)
        raw = termios.tcgetattr(m.slave)
        assert not raw[3] & termios.ECHO and not raw[3] & termios.ICANON, "terminal not raw while the guest has it"
        m.send("echo $((6 * 7))-$0\r")
        m.expect(rb"42-", 20)
        m.send("sleep 1000\r")
        time.sleep(1)
        m.send("\x03")
        m.expect(rb"# ", 20)
        m.send("sleep 1000\r")
        time.sleep(1)
        m.send("\x1a")
        m.expect(rb"Stopped", 20)
        m.send("jobs; kill %1; poweroff -f\r")
        assert m.finish(60) == 0
        check_mode(m)


def escape(engine):
    with Machine(command(engine), stdin="pty") as m:
        up(m, engine)
        m.send(ESC + "p")
        time.sleep(1)
        m.send("echo back-$((1 + 1))\r")
        time.sleep(1)
        assert b"back-2" not in m.out, "the guest ran while paused"
        m.send(ESC + "p")
        m.expect(rb"back-2", 30)
        m.send(ESC + "d")
        end = time.monotonic() + 10
        while not re.search(rb"(?i)rip", m.err) and time.monotonic() < end:
            m.read_some(0.1)
        assert re.search(rb"(?i)rip", m.err), f"no dump on standard error: {m.err[-200:]}"
        m.send("echo still-$((1 + 1))\r")
        m.expect(rb"still-2", 30)
        m.send(ESC + "x")
        status = m.finish(10)
        assert status == 8, f"exit status {status}, not 8"
        check_mode(m)


def end_by(engine, sig, want, whom):
    """doppel or doppel-vm gets a signal: status, terminal, no process left."""
    with Machine(command(engine), stdin="pty") as m:
        up(m, engine)
        os.kill(m.proc.pid if whom == "doppel" else vm_pid(m), sig)
        status = m.finish(15)
        assert status == want, f"exit status {status}, not {want}"
        wait_gone(m.proc.pid)
        check_mode(m)


def ignored(engine):
    """What it was started with ignored does not touch it, SIGTERM does; and it learns of its machine's end also where its parent wanted
    to hear of none."""
    for prefix, signals in ((["nohup"], [signal.SIGHUP]),
                            (["sh", "-c", "trap '' INT QUIT TERM CHLD; exec \"$@\"", "sh"], [signal.SIGINT, signal.SIGQUIT])):
        with Machine([*prefix, *command(engine)]) as m:
            up(m, engine)
            for sig in signals:
                m.proc.send_signal(sig)
            time.sleep(0.5)
            m.send("echo alive-$((1 + 1))\n")
            m.expect(rb"alive-2", 30)
            m.proc.terminate()
            status = m.finish(15)
            assert status == 8, f"exit status {status} after SIGTERM, not 8"
            wait_gone(m.proc.pid)


def hangup(engine):
    """The terminal goes away."""
    m = Machine(command(engine), stdin="pty")
    up(m, engine)
    os.close(m.master)
    os.close(m.slave)
    m.master = None
    try:
        m.proc.send_signal(signal.SIGHUP)
        status = m.proc.wait(15)
        assert status == 8, f"exit status {status}, not 8"
        wait_gone(m.proc.pid)
    finally:
        m.close()


def sigkill(engine):
    """SIGKILL of doppel: nothing is left behind, the terminal is sane."""
    places = [p for p in ("/dev/shm", tempfile.gettempdir()) if os.path.isdir(p)]
    had = {p: set(os.listdir(p)) for p in places}
    with Machine(command(engine), stdin="pty") as m:
        up(m, engine)
        m.proc.kill()
        m.proc.wait()
        wait_gone(m.proc.pid)
        check_mode(m)
    for p in places:
        left = [f for f in set(os.listdir(p)) - had[p] if "doppel" in f]
        assert not left, f"left in {p}: {left}"


def stdin_pipe(engine):
    with Machine(command(engine), stdin="pipe") as m:
        m.send("echo from-$((40 + 2))\n")  # before anybody reads: must not get lost
        up(m, engine)
        m.expect(rb"from-42", 30)
        m.proc.stdin.close()
        time.sleep(0.5)
        assert m.proc.poll() is None, "the machine ended with its standard input"
        m.proc.terminate()
        status = m.finish(15)
        assert status == 8, f"exit status {status} after SIGTERM, not 8"


def stdin_file(engine):
    with tempfile.TemporaryFile() as f:
        f.write(b"echo file-$((40 + 2))\npoweroff -f\n")
        f.seek(0)
        with Machine(command(engine), stdin=f) as m:
            m.expect(machine.BANNER, BOOT[engine])
            m.expect(rb"file-42", 60)
            assert m.finish(30) == 0


def stdin_null(engine):
    append = machine.APPEND + " doppel.run=/bin/true"
    with Machine(command(engine, append=append), stdin=subprocess.DEVNULL) as m:
        m.expect(rb"/bin/true exit status 0", BOOT[engine])
        assert m.finish(30) == 0


def serial_file(engine):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "serial")
        append = machine.APPEND + " doppel.run=/bin/true"
        with Machine(command(engine, append=append, extra=["--serial", "file:" + path]), stdin=subprocess.DEVNULL) as m:
            assert m.finish(BOOT[engine]) == 0
            assert machine.BANNER not in m.out
        with open(path, "rb") as f:
            assert machine.BANNER in f.read()
        with Machine(command(engine, append=append, extra=["--serial", "none"]), stdin=subprocess.DEVNULL) as m:
            assert m.finish(BOOT[engine]) == 0
            assert m.out == b"", f"output with --serial none: {m.out[:80]}"


def stats(engine):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "stats")
        append = machine.APPEND + " quiet doppel.run=/bin/true"
        with Machine(command(engine, append=append, extra=["--stats", path, "--name", "probe"]), stdin=subprocess.DEVNULL) as m:
            assert m.finish(BOOT[engine]) == 0
        with open(path) as f:
            data = json.load(f)
    assert isinstance(data, dict) and data, "empty statistics"


def profile(engine):
    """The report of --profile: parts add up, the busiest ones are there; the statistics carry the same; perf's map names blocks."""
    with tempfile.TemporaryDirectory() as d:
        path, stats_path = os.path.join(d, "profile"), os.path.join(d, "stats")
        append = machine.APPEND + " quiet doppel.run=/bin/true"
        extra = ["--profile=" + path, "--stats", stats_path, "--perf-map", "--name", "probe"]
        with Machine(command(engine, append=append, extra=extra), stdin=subprocess.DEVNULL) as m:
            assert m.finish(BOOT[engine]) == 0
        with open(path) as f:
            text = f.read()
        with open(stats_path) as f:
            data = json.load(f)
    pid = re.search(rb"/tmp/perf-(\d+)\.map names", m.err)
    assert pid, f"--perf-map says nothing: {m.err[:200]}"
    with open(f"/tmp/perf-{int(pid[1])}.map") as f:
        lines = f.readlines()
    os.unlink(f"/tmp/perf-{int(pid[1])}.map")
    head = re.match(r"profile of probe, engine (\w+): (\d+) samples", text)
    assert head and int(head[2]) > 100, "few samples, or another report: " + text[:200]
    assert data["profile"]["samples"] == int(head[2])
    code, work = data["profile_code"], data["profile_work"]
    # The 40 largest of each list.
    part = (sum(code.values()) + sum(work.values())) / int(head[2])
    assert 0.97 < part <= 1, f"the parts are {part:.3f} of the whole"
    assert "kernel code" in code and "SYSCALL" in data["profile_events"], str(code)
    assert data["profile_functions"] and data["profile_blocks"]
    # Few instants are a device's: on a fast host no sample may hit one, but its accesses are counted.
    assert "hottest blocks" in text and re.search(r"serial0 +[1-9]", text), "no accesses of serial0"
    assert len(lines) > 1000 and all(re.match(r"[0-9a-f]+ [0-9a-f]+ guest-(kernel|user|user32):[0-9a-f]+\n", s) for s in lines)


# --- what it costs --------------------------------------------------------------------------------------------------------


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(engine):
    with Machine(command(engine), stdin="pipe") as m:
        up(m, engine)
        time.sleep(3)
        pids = session(m.proc.pid)
        used = -sum(map(cpu_seconds, pids))
        time.sleep(8)
        used += sum(map(cpu_seconds, pids))
        power_off(m)
    assert used / 8 < (0.01 if engine == "bt" else 0.02), f"an idle guest uses {100 * used / 8:.1f} % of a core"


def overhead(engine):
    """Resident memory that is not the guest's own pages (those live in a memfd), all processes together."""
    with Machine(command(engine), stdin="pipe") as m:
        up(m, engine)
        total, parts = 0, []
        for pid in session(m.proc.pid):
            name, mine = "", 0
            with open(f"/proc/{pid}/smaps") as f:
                for line in f:
                    head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line)
                    if head:
                        name = head[1]
                    elif line.startswith("Pss:") and not name.startswith("/memfd:"):
                        mine += int(line.split()[1])
            total += mine
            parts.append(f"{pid}: {mine} KiB")
        power_off(m)
    assert total < 64 * 1024, f"{total // 1024} MiB beside the guest's memory ({', '.join(parts)})"


# --- command line, files, users ---------------------------------------------------------------------------------------------


def doppel(*args, **kw):
    return subprocess.run([machine.DOPPEL, *args], capture_output=True, stdin=subprocess.DEVNULL, timeout=60, **kw)


def one_line_error(p, status, *args):
    text = p.stderr.decode(errors="replace")
    assert p.returncode == status, f"{args}: exit status {p.returncode}, not {status}: {text}"
    assert text.startswith("doppel: ") and text.count("\n") == 1, f"{args}: not one line of error: {text!r}"


def usage():
    wrong = [["frobnicate"], ["run", "--frobnicate"], ["run", "--memory", "12x"], ["run", "--memory", "1"], ["run", "--cpus", "0"],
             ["run", "--cpus", "64"], ["run", "--engine", "warp"], ["run", "--serial", "telepathy"], ["run", "stray"],
             ["run", "--kernel"], ["run", "--append", "x" * 5000], ["check", "--all"], ["run", "--memory", "9999999999999999999999G"]]
    for args in wrong:
        one_line_error(doppel(*args), 2, *args)
    for args in (["help"], ["help", "run"], ["run", "--help"], ["check"]):
        p = doppel(*args)
        assert p.returncode == 0 and p.stdout and not p.stderr, f"{args}: status {p.returncode}"


def bad_files():
    with open(machine.KERNEL, "rb") as f:
        good = f.read()
    with open(machine.DOPPEL, "rb") as f:
        elf = bytearray(f.read(65536))
    arm = bytearray(elf)
    arm[18:20] = (183).to_bytes(2, "little")  # EM_AARCH64
    cases = {"empty": b"", "text": b"hello\n" * 100, "short": good[:600], "half": good[: len(good) // 2], "elf-no-note": bytes(elf),
             "elf-arm": bytes(arm), "random": os.urandom(100000), "zeros": bytes(8192), "setup-only": good[:4096]}
    with tempfile.TemporaryDirectory() as d:
        for name, content in cases.items():
            path = os.path.join(d, name)
            with open(path, "wb") as f:
                f.write(content)
            one_line_error(doppel("run", "--kernel", path), 10, name)
        one_line_error(doppel("run", "--kernel", os.path.join(d, "missing")), 10, "missing")
        one_line_error(doppel("run", "--kernel", d), 10, "folder")
        one_line_error(doppel("run", "--kernel", machine.KERNEL, "--initrd", os.path.join(d, "missing")), 10, "no initrd")
        big = os.path.join(d, "big")
        with open(big, "wb") as f:
            f.truncate(1 << 30)
        one_line_error(doppel("run", "--kernel", machine.KERNEL, "--initrd", big, "--memory", "256M"), 10, "big initrd")


def ordinary_user(engine):
    """Everything works without root: run as nobody from a copy that nobody may read."""
    if os.getuid() != 0:
        raise Skip("already an ordinary user")
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        for f in (machine.DOPPEL, machine.DOPPEL + "-vm", machine.KERNEL, machine.INITRD):
            shutil.copy(f, d)
        cmd = [os.path.join(d, "doppel"), "run", "--engine", engine, "--kernel", os.path.join(d, "vmlinuz"), "--initrd",
               os.path.join(d, os.path.basename(machine.INITRD)), "--append", machine.APPEND + " doppel.run=/bin/true"]
        with Machine(cmd, stdin=subprocess.DEVNULL, user=65534) as m:
            m.expect(rb"/bin/true exit status 0", BOOT[engine])
            assert m.finish(30) == 0


def install():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["make", "-s", "install", "DESTDIR=" + d, "PREFIX=/usr", "DEPS=0"], cwd=machine.TOP, check=True,
                       stdout=subprocess.DEVNULL)
        for f in ("bin/doppel", "bin/doppel-vm", "share/man/man1/doppel.1"):
            assert os.path.isfile(os.path.join(d, "usr", f)), f
        assert subprocess.run([os.path.join(d, "usr/bin/doppel"), "check"], capture_output=True, timeout=60).returncode == 0
