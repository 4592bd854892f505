#!/bin/sh
# After the files are there. dpkg says configure and the version of before, if
# there was one; rpm says how many versions are installed now.
set -e
case "$1" in
configure) before=${2:-} ;;
1) before= ;;
[2-9]) before=yes ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	# Agents ask another coordinator meanwhile, or wait.
	if [ -n "$before" ]; then
		systemctl try-restart dcos-overlay-coordinator.service || :
	fi
fi
# The configuration is the operator's to complete, so nothing is started.
if [ -z "$before" ]; then
	echo "Say which overlays there are in /etc/dcos-overlay/network.json, then: systemctl enable --now dcos-overlay-coordinator.service"
fi
