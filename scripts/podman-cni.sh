#!/bin/sh
# Gets Debian 12's podman, the last that Debian builds with CNI, for the tests
# on a later one: with the libraries that it needs and those may lack, from the
# mirror that this machine's apt uses. It is kept apart, and installed
# nowhere; the lab lays it over the root of the host that runs it. Prints its
# directory. Run it as root.
. "$(dirname "$0")/debian.sh"

suite=bookworm
kept=$cache/podman-cni
if [ -d "$kept" ]; then
	echo "$kept"
	exit
fi

mirror
# What a run that was killed has left: nobody else is here, by the lock.
rm -rf "$cache"/podman.*
# apt drops root's rights to download, so the directory is for all to read.
work=$(mktemp -d "$cache/podman.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
mkdir -p "$work/lists/partial" "$work/tree"
apart() { # verb arguments…: apt-get with sources and lists of our own
	timeout 300 apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@" >"$work/log" 2>&1 ||
		die "apt-get $* for $suite from $mirror: $(tail -n 3 "$work/log")"
}
apart update
cd "$work"
apart download podman libsubid4 libdevmapper1.02.1
for package in ./*.deb; do
	dpkg-deb -x "$package" tree
done
mkdir -p kept/usr
mv tree/usr/bin tree/usr/lib kept/usr
# Debian 12 has libraries of early boot in /lib; since 13 that is /usr/lib.
cp -a tree/lib/. kept/usr/lib
mv kept "$kept"
echo "$kept"
