#!/bin/sh
# Before the files go: dpkg says remove, rpm that 0 versions will be left.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl --no-reload disable --now dcos-overlay-coordinator.service || :
elif command -v systemctl >/dev/null; then
	systemctl --no-reload disable dcos-overlay-coordinator.service || :
fi
