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
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create dcos-overlay.conf || :
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	# Device files take effect with the next device that is made.
	if systemctl -q is-active systemd-networkd.service; then
		networkctl reload || :
	fi
	if systemctl -q is-active NetworkManager.service; then
		nmcli general reload conf || :
	fi
	# Containers keep their network meanwhile: the kernel carries their packets.
	if [ -n "$before" ]; then
		systemctl try-restart dcos-overlay-companion.service || :
	fi
fi
# The configuration is the operator's to complete, so nothing is started.
if [ -z "$before" ]; then
	echo "Name the coordinators in /etc/dcos-overlay/agent.json, then: systemctl enable --now dcos-overlay-companion.service"
fi
