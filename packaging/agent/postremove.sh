#!/bin/sh
# After the files are gone.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
# dpkg only: the lease, and the reservations of this boot.
if [ "$1" = purge ]; then
	rm -rf /var/lib/dcos-overlay /run/dcos-overlay
fi
