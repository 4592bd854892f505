#!/usr/bin/env bash
# Runs a command with a temporary directory of its own, which is removed when the
# command has ended. What was left by one that was killed is removed by the next.
set -euo pipefail

temp=${TMPDIR:-/tmp}
# Nobody else makes or removes one meanwhile.
exec 8<"$temp"
flock --timeout 60 8 || { echo "in-tempdir: another program keeps $temp locked" >&2; exit 1; }
for dir in "$temp"/dcos-overlay-test-*; do
	# Whoever still uses it has a lock on it.
	if [[ -d $dir ]] && flock --nonblock "$dir" true; then
		rm -rf "$dir"
	fi
done
# Numbered: go test runs again what has another TMPDIR than the last time.
n=1
while [[ -e $temp/dcos-overlay-test-$n ]]; do n=$((n + 1)); done
dir=$temp/dcos-overlay-test-$n
mkdir --mode 700 "$dir"
# The command and all that it starts inherit the lock: it ends with the last.
exec 9<"$dir"
flock 9
exec 8<&-
trap 'rm -rf "$dir"' EXIT
TMPDIR=$dir "$@"
