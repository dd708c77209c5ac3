#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a user does inside a whole Debian, as the user `debian` with sudo; argument: seconds for each stressor (default 60).
# Prints PASS or FAIL a step, FAIL with the end of what the step said. Exit status 1 if one failed.
# On another system with apt and systemd it does the same, so the steps themselves can be checked elsewhere.
seconds=${1:-60}
failed=0
log=$(mktemp)
dir=$(mktemp -d)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# step NAME COMMAND...: runs it, says how it went.
step() {
	name=$1
	shift
	begin=$(date +%s)
	if "$@" >"$log" 2>&1; then
		echo "PASS $name ($(($(date +%s) - begin)) s)"
	else
		echo "FAIL $name: status $?"
		tail -n 15 "$log" | sed 's/^/    /'
		failed=1
	fi
}

install() { sudo apt-get install -y -q --no-install-recommends "$@"; }

compile() {
	cat >"$dir/hello.c" <<-'END'
		#include <math.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <string.h>
		static int order(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
		int main(void)
		{
			int v[] = {5, 3, 9, 1};
			qsort(v, 4, sizeof(v[0]), order);
			printf("%d %d %d %d %.6f %s\n", v[0], v[1], v[2], v[3], sqrt(2.0), strrchr("a/b", '/'));
			return 0;
		}
	END
	gcc -O2 -Wall -Werror -o "$dir/hello" "$dir/hello.c" -lm && [ "$("$dir/hello")" = "1 3 5 9 1.414214 /b" ]
}

# stress NAME OPTIONS...: a stressor on every processor, its results verified.
stress() {
	name=$1
	shift
	step "stress-ng $name" stress-ng --verify --metrics-brief -t "$seconds" "$@"
}

step "apt update" sudo apt-get update -q
step "apt install a package" install tree
step "the package works" tree --version
step "apt install a compiler, tests, stressors" install gcc libc6-dev libpython3.11-testsuite stress-ng
step "gcc compiles, the program runs" compile
step "python test_json" python3 -m test -q test_json
step "python test_threading" python3 -m test -q test_threading
n=$(nproc)
stress cpu --cpu "$n"
stress vm --vm "$n" --vm-bytes 128M
stress fork --fork "$n"
stress futex --futex "$n"
stress switch --switch "$n"
stress memcpy --memcpy "$n"
stress fp --fp "$n"
stress atomic --atomic "$n"
step "no failed units" sh -c '[ -z "$(systemctl list-units --failed --no-legend --plain)" ]'
rm -rf "$log" "$dir"
exit $failed
