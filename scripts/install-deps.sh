#!/bin/sh
# Installs what the tests and the demo need on a Debian that has Go, git and
# make, and checks that the kernel has what they use. Asks the network for
# nothing when nothing is missing. Starts no daemon. Run it as root.
set -eu

export PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

say() { echo "install-deps: $*"; }
die() { echo "install-deps: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "only root can install packages and make namespaces; run: sudo $0"

# --- Packages, by the program that tells whether one is there -------------

missing=""
want() { # program package
	command -v "$1" >/dev/null && return
	case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}
want ip iproute2
want ss iproute2
want iptables iptables
want dockerd docker.io
want containerd containerd
want runc runc
# From Debian 13 on podman is built without CNI, and Debian 12's is got beside
# it, below.
want podman podman
want conntrack conntrack
want ps procps
want sysctl procps
want nsenter util-linux
want mount mount
want hostname hostname
want strace strace
want modprobe kmod
# What the manuals' commands need: a cluster of etcd, certificates, and the
# program that judges alert rules.
want etcd etcd-server
want etcdctl etcd-client
want openssl openssl
want curl curl
want ping iputils-ping
want promtool prometheus
# The packages are tried on a bare Debian, and looked at, and their manual pages
# shown.
want debootstrap debootstrap
want rpm rpm
want man man-db
# The page is looked at in a browser, with a font that makes the manual's
# pictures the same everywhere, and judged by a script that npm brings.
want chromium chromium
want npm npm
[ -d /usr/share/fonts/opentype/inter ] || missing="$missing fonts-inter"
# The race detector is built with cgo.
want gcc gcc
[ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
# Its programs run in containers without a C library, so the static one.
if ! command -v busybox >/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then
	missing="$missing busybox-static"
fi
[ -s /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"

# A package's daemon is started unless this file, if there is one, forbids it:
# see /usr/share/doc/init-system-helpers/README.policy-rc.d.gz.
policy=/usr/sbin/policy-rc.d
aside=$policy.before-dcos-overlay
guard() {
	if [ -e "$policy" ]; then
		mv "$policy" "$aside"
	fi
	printf '#!/bin/sh\n# Made by install-deps.sh of dcos-overlay, for as long as it installs.\nexit 101\n' >"$policy"
	chmod 755 "$policy"
}
unguard() {
	if grep -qs 'Made by install-deps.sh of dcos-overlay' "$policy"; then
		rm -f "$policy"
	fi
	if [ -e "$aside" ]; then
		mv "$aside" "$policy"
	fi
}

quietly() { # what command…: runs it, and shows what it said if it fails
	what=$1
	shift
	say "$what"
	if ! "$@" >"$log" 2>&1 </dev/null; then
		tail -n 30 "$log" >&2
		die "$what: failed; what it said is above"
	fi
}

install() {
	command -v apt-get >/dev/null ||
		die "missing:$missing; this is no Debian, install them by its own means"
	quietly "reading the package lists" apt-get -q update
	guard
	# $missing is a list of words.
	# shellcheck disable=SC2086
	quietly "installing$missing" apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends $missing
	unguard
	# From Debian 13 on the client is a package of its own.
	if ! command -v docker >/dev/null; then
		guard
		quietly "installing docker-cli" apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends docker-cli
		unguard
	fi
}

log=$(mktemp)
# unguard also undoes what a run that was killed has left.
trap 'unguard; rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
unguard
command -v docker >/dev/null || want docker docker.io
if [ -n "$missing" ]; then
	install
else
	say "all packages are there"
fi

case $(podman --version) in
*" "[0-4].*) ;;
*) quietly "getting a podman with CNI" "$(dirname "$0")/podman-cni.sh" ;;
esac

# --- axe, which judges the page: of the version and sum in the lock file ------

page=$(dirname "$0")/../integration/page
if ! cmp -s "$page/package-lock.json" "$page/node_modules/.installed"; then
	quietly "installing axe-core" npm --prefix "$page" ci --ignore-scripts --no-audit --no-fund
	cp "$page/package-lock.json" "$page/node_modules/.installed"
fi

# --- The kernel: tried in a network namespace that ends with the trial ------

[ -e /proc/self/ns/net ] || die "/proc is not mounted, or the kernel has no namespaces; mount it: mount -t proc proc /proc"
[ -d /sys/kernel ] || die "/sys is not mounted; mount it: mount -t sysfs sysfs /sys"
[ -c /dev/null ] || die "/dev has no devices; mount it: mount -t devtmpfs devtmpfs /dev"
grep -qs : /proc/self/cgroup || die "the kernel has no cgroups, which Docker needs"

# Those that are built in have no module, and the trial decides.
for module in overlay vxlan bridge veth br_netfilter nf_conntrack; do
	modprobe -q "$module" 2>/dev/null || :
done
unshare --net true 2>/dev/null || die "this root can't make namespaces; in a container, run it with --privileged"
failed=""
trial() { # name command
	unshare --net sh -c "$2" >/dev/null 2>"$log" || {
		failed="$failed $1"
		say "$1: $(tail -n 1 "$log")"
	}
}
trial vxlan "ip link add trial type vxlan id 1024 dstport 64000 nolearning"
trial bridge "ip link add trial type bridge"
trial veth "ip link add trial type veth peer name laitr"
trial iptables "iptables -w -t nat -S && ip6tables -w -t nat -S && iptables -w -t raw -S"
trial conntrack "conntrack -L"
trial overlay "grep -qw overlay /proc/filesystems"
[ -z "$failed" ] || die "the kernel does not do:$failed; load their modules, or use a kernel that has them"
say "the kernel has vxlan, bridge, veth, iptables, conntrack, overlay and namespaces"
