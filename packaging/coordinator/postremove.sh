#!/bin/sh
# After the files are gone.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
# dpkg only: the data of the etcd inside the coordinator. With DynamicUser= the
# first is a link to the second.
if [ "$1" = purge ]; then
	rm -rf /var/lib/dcos-overlay-coordinator /var/lib/private/dcos-overlay-coordinator
fi
