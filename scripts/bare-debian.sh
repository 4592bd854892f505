#!/bin/sh
# Makes the bare Debian that the packages are tried in: what debootstrap calls
# minbase, with systemd, and with iptables, which a package of ours needs. It is
# of the release and from the mirror that this machine's apt uses, and is kept
# as a tar archive, whose path it prints. Run it as root.
set -eu
export PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH" LC_ALL=C.UTF-8

die() { echo "bare-debian: $*" >&2; exit 1; }

suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || die "/etc/os-release names no release; this takes a Debian"
cache=/var/cache/dcos-overlay-test
archive=$cache/$suite-$(dpkg --print-architecture).tar

mkdir -p "$cache"
exec 9>"$cache/lock"
flock -w 600 9 || die "another one has held $cache/lock for ten minutes"
if [ -e "$archive" ]; then
	echo "$archive"
	exit
fi

mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
	awk -v suite="$suite" '$1 == suite && $2 == "main" { print $3; exit }')
[ -n "$mirror" ] || die "apt has no source for $suite main"
proxy=$(apt-config shell proxy Acquire::http::Proxy)
eval "$proxy"
if [ -n "${proxy:-}" ]; then
	export http_proxy="$proxy" https_proxy="$proxy"
fi

# What a run that was killed has left: nobody else is here, by the lock.
rm -rf "$cache"/tree.* "$archive.new"
# On the disk, for a machine's /tmp may be too small or mounted without devices.
tree=$(mktemp -d "$cache/tree.XXXXXX")
trap 'rm -rf "$tree" "$archive.new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
timeout 900 debootstrap --variant=minbase --include=systemd,iptables "$suite" "$tree" "$mirror" >"$tree.log" 2>&1 ||
	die "debootstrap of $suite from $mirror: $(tail -n 3 "$tree.log"); the whole log is $tree.log"
rm -rf "$tree.log" "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
# What mktemp made is for root alone.
chmod 755 "$tree"
tar -C "$tree" -cf "$archive.new" .
mv "$archive.new" "$archive"
echo "$archive"
