#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Real programs, each timed as a whole: runs inside the tree of build/guest/programs, natively (chroot) or in a guest. Arguments: how often
# each (the best counts), then which. Prints `prog NAME ns`, or `prog NAME failed`.
# What they work on is made here from the tree's own files, so it is the same everywhere.
export PATH=/usr/bin:/bin LC_ALL=C HOME=/tmp PYTHONDONTWRITEBYTECODE=1
times=$1
shift
cd /tmp || exit 1

prepare() {
	cat /usr/lib/python3*/*.py >text
	head -c 3000000 text >small
	cp /programs/*.c .
	cat >work.py <<'X'
import json, re, math
def fannkuch(n):
    p, q, s, sign, most, check = list(range(n)), list(range(n)), list(range(n)), 1, 0, 0
    while True:
        if p[0]:
            q[:] = p; flips = 1; t = q[q[0]]
            f = q[0]
            while t:
                q[:f + 1] = q[f::-1]; flips += 1; f = q[0]; t = q[f] if f else 0
            most = max(most, flips); check += sign * flips
        if sign == 1:
            p[0], p[1] = p[1], p[0]; sign = -1
        else:
            p[1], p[2] = p[2], p[1]; sign = 1
            for i in range(2, n):
                if s[i]:
                    s[i] -= 1; break
                s[i] = i
                if i == n - 1:
                    return check, most
                p.insert(i + 1, p.pop(0))
fannkuch(8)
x, v = [0.0, 1.0, 5.0], [0.1, 0.0, -0.1]
for i in range(60000):
    for k in range(3):
        v[k] -= x[k] / (1 + math.sqrt(sum(c * c for c in x))) * 0.01
        x[k] += v[k] * 0.01
d = [{"id": i, "name": "n%d" % i, "list": list(range(i % 20))} for i in range(12000)]
assert json.loads(json.dumps(d)) == d
text = open("small").read(1000000)
words = {}
for w in re.findall(r"[a-zA-Z_]\w*", text):
    words[w] = words.get(w, 0) + 1
sorted(words.items(), key=lambda i: (-i[1], i[0]))
X
	cat >work.sql <<'X'
PRAGMA journal_mode = MEMORY;
CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER, c TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
INSERT INTO t SELECT i, (i * 7919) % 100003, 'row number ' || i FROM n;
COMMIT;
CREATE INDEX tb ON t(b);
SELECT count(*), sum(length(c)) FROM t WHERE b BETWEEN 1000 AND 60000;
SELECT count(*) FROM t x JOIN t y ON x.b = y.a;
UPDATE t SET c = c || '.' WHERE a % 3 = 0;
SELECT max(c) FROM t WHERE c LIKE '%999%';
X
	cat >work.pl <<'X'
my %n; my $sum = 0;
for my $round (1 .. 2) {
	open my $f, "<", "text" or die;
	while (<$f>) { $n{lc $1}++ while /([A-Za-z_]\w+)/g; s/\s+/ /g; $sum += length; }
}
my @top = sort { $n{$b} <=> $n{$a} || $a cmp $b } keys %n;
print "$top[0] $sum\n";
X
}

gcc_() { gcc -O2 -c bench.c -o a.o && gcc -O2 -c newc.c -o b.o && gcc a.o b.o -shared -o ab.so 2>/dev/null; gcc -O2 -c bench.c -o a.o; }
python() { python3 work.py; }
perl_() { perl work.pl; }
sqlite() { rm -f db; sqlite3 db <work.sql; }
xz_() { xz -k -f -3 -T1 small && xz -t small.xz; }
zstd_() { zstd -q -f -9 -T1 text -o text.zst && zstd -q -f -d text.zst -o text.out && [ "$(sha256sum <text)" = "$(sha256sum <text.out)" ]; }
seven() { rm -f a.7z; 7zr a -bd -mx=3 -mmt=1 a.7z small && 7zr t a.7z; }
git_() {
	rm -rf repo && mkdir repo && cd repo && git init -q . && git config user.name n && git config user.email e@f || return 1
	for i in 1 2 3 4; do
		cp /usr/lib/python3*/[a-d]*.py . && echo "# $i" >>ast.py && echo "# $i" >>bdb.py && git add -A && git commit -q -m "$i" || return 1
	done
	git log --stat >/dev/null && git diff HEAD~3 >/dev/null && git gc -q && git fsck 2>/dev/null && cd ..
}

# Whole runs of a program: the best.
whole() {
	name=$1 function=$2 best=
	for i in $(seq "$times"); do
		begin=$(date +%s%N)
		(cd /tmp && $function) >/tmp/log 2>&1 || { echo "prog $name failed: $(tail -n 2 /tmp/log | tr '\n' ' ')"; return; }
		end=$(date +%s%N)
		[ -n "$best" ] && [ "$best" -le $((end - begin)) ] || best=$((end - begin))
	done
	echo "prog $name $best"
}

# openssl counts what it can do in a second: ns for a KiB, or for a signature.
speed() {
	name=$1
	shift
	openssl speed -mr -seconds 1 "$@" 2>/dev/null | mawk -F: -v n="$name" '/^\+F:/ { t = 1024e9 / $NF } /^\+F2:/ { t = 1e9 / $4 }
		END { if (!t) { print "prog " n " failed"; exit } printf "prog %s %.0f\n", n, t }'
}

prepare
for line; do
	case $line in
	gcc) whole gcc gcc_ ;;
	python) whole python python ;;
	perl) whole perl perl_ ;;
	sqlite) whole sqlite sqlite ;;
	xz) whole xz xz_ ;;
	zstd) whole zstd zstd_ ;;
	7z) whole 7z seven ;;
	git) whole git git_ ;;
	aes) speed aes -bytes 8192 -evp aes-128-gcm ;;
	sha256) speed sha256 -bytes 8192 -evp sha256 ;;
	rsa) speed rsa rsa2048 ;;
	*) echo "prog $line failed: there is no such line" ;;
	esac
done
echo "prog done"
