#!/bin/sh
# Boots the Debian in a directory, with its systemd as process 1, in namespaces
# of its own and in a part of the cgroups with the name that is given. It ends
# when it is killed, and leaves the cgroups behind, which must be empty. Mounts
# must be private already.
#
#   boot.sh DIRECTORY NAME
set -eu
export ROOT="$1" UNIFIED=
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
	[ -e "$tree/cgroup.procs" ] || continue
	mkdir -p "$tree/$2"
	echo $$ >"$tree/$2/cgroup.procs"
	[ "$tree" != /sys/fs/cgroup ] || UNIFIED=yes
done
exec unshare --mount --propagation unchanged --pid --fork --kill-child --uts --ipc --net --cgroup sh -euc '
mount --bind "$ROOT" "$ROOT"
cd "$ROOT"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
if [ "$UNIFIED" ]; then
	mount -t cgroup2 cgroup2 sys/fs/cgroup
else
	mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
	mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
	mount -t cgroup -o none,name=systemd,xattr cgroup sys/fs/cgroup/systemd
	mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
fi
mount -t tmpfs -o mode=755 tmpfs dev
for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
	set -- $device
	mknod -m 666 "dev/$1" c "$2" "$3"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount --move . /
exec chroot . /usr/bin/env -i container=namespaces /lib/systemd/systemd --log-target=null --unit=multi-user.target
'
