# shellcheck shell=sh
# Read by the scripts that get something of Debian's and keep it: they wait for
# each other, and use the mirror that this machine's apt uses. Gives them die,
# $cache, where they keep things, and mirror.
set -eu
export PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH" LC_ALL=C.UTF-8

die() { echo "$(basename "$0" .sh): $*" >&2; exit 1; }

cache=/var/cache/dcos-overlay-test
mkdir -p "$cache"
exec 9>"$cache/lock"
flock -w 600 9 || die "another one has held $cache/lock for ten minutes"
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mirror() { # sets $mirror, and the proxy that apt uses for it
	mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')
	[ -n "$mirror" ] || die "apt has no source for Debian main"
	proxy=$(apt-config shell proxy Acquire::http::Proxy)
	eval "$proxy"
	if [ -n "${proxy:-}" ]; then
		export http_proxy="$proxy" https_proxy="$proxy"
	fi
}

bootstrap() { # suite packages tree: what debootstrap calls minbase, with packages
	# debootstrap knows no suite that is younger than it; all are made as sid is.
	like=/usr/share/debootstrap/scripts/$1
	[ -e "$like" ] || like=/usr/share/debootstrap/scripts/sid
	timeout 900 debootstrap --variant=minbase --include="$2" "$1" "$3" "$mirror" "$like" >"$3.log" 2>&1 ||
		die "debootstrap of $1 from $mirror: $(tail -n 3 "$3.log"); the whole log is $3.log"
	rm -rf "$3.log" "$3"/var/cache/apt/archives/*.deb "$3"/var/lib/apt/lists/*
	# What mktemp made is for root alone.
	chmod 755 "$3"
}
