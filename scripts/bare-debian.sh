#!/bin/sh
# Makes the bare Debian that the packages are tried in: what debootstrap calls
# minbase, with systemd, and with iptables, which a package of ours needs. It is
# of the release and from the mirror that this machine's apt uses, and is kept
# as a tar archive, whose path it prints. Run it as root.
. "$(dirname "$0")/debian.sh"

suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || die "/etc/os-release names no release; this takes a Debian"
archive=$cache/$suite-$(dpkg --print-architecture).tar
if [ -e "$archive" ]; then
	echo "$archive"
	exit
fi

mirror
# What a run that was killed has left: nobody else is here, by the lock.
rm -rf "$cache"/tree.* "$archive.new"
# On the disk, for a machine's /tmp may be too small or mounted without devices.
tree=$(mktemp -d "$cache/tree.XXXXXX")
trap 'rm -rf "$tree" "$archive.new"' EXIT
bootstrap "$suite" systemd,iptables "$tree"
tar -C "$tree" -cf "$archive.new" .
mv "$archive.new" "$archive"
echo "$archive"
