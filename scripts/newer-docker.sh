#!/bin/sh
# Runs a command, such as the demo or tests of this checkout, beside a newer
# Docker Engine than this machine has: in a tree of a later Debian, with this
# machine's Go and the checkout. The tree is made once, and kept. Run it as root.
#
#   scripts/newer-docker.sh go run ./integration/demo
#   SUITE=trixie scripts/newer-docker.sh go test -run TestFaults ./integration
#
# SUITE is Debian's; forky without it. DOCKERD is another dockerd to use, one
# that needs no libraries, and DOCKERD_ARGS are more arguments for it:
#
#   CGO_ENABLED=0 GOBIN=/tmp/moby go install github.com/moby/moby/v2/cmd/dockerd@v2.0.0-beta.24
#   DOCKERD=/tmp/moby/dockerd DOCKERD_ARGS=--firewall-backend=nftables scripts/newer-docker.sh …
. "$(dirname "$0")/debian.sh"

[ $# -gt 0 ] || die "which command?"
suite=${SUITE:-forky}
kept=$cache/docker-$suite
checkout=$(cd "$(dirname "$0")/.." && pwd)
# install-deps.sh says what for, but for nftables: some Engines run nft.
packages=docker.io,docker-cli,containerd,runc,iptables,nftables,iproute2,conntrack,procps,kmod,strace,busybox-static,iputils-ping,curl,openssl,etcd-server,etcd-client,git,make,ca-certificates

if [ ! -d "$kept" ]; then
	mirror
	rm -rf "$cache"/newer.*
	tree=$(mktemp -d "$cache/newer.XXXXXX")
	trap 'rm -rf "$tree"' EXIT
	bootstrap "$suite" "$packages" "$tree"
	mv "$tree" "$kept"
	trap - EXIT
fi
# What runs now may want the lock, too.
exec 9>&-

goroot=$(go env GOROOT) modules=$(go env GOMODCACHE) built=$(go env GOCACHE)
export goroot modules built checkout kept DOCKERD="${DOCKERD:-}" DOCKERD_ARGS="${DOCKERD_ARGS:-}"
# All mounts are in a namespace that ends with the command.
# shellcheck disable=SC2016
exec unshare --mount --propagation private sh -euc '
	mount --bind "$kept" "$kept"
	mount -t proc proc "$kept/proc"
	for dir in sys dev; do mount --rbind "/$dir" "$kept/$dir"; done
	for dir in tmp run usr/local/sbin; do mount -t tmpfs tmpfs "$kept/$dir"; done
	for dir in "$goroot" "$modules" "$built" "$checkout"; do
		mkdir -p "$kept$dir"
		mount --bind "$dir" "$kept$dir"
	done
	cp -L /etc/resolv.conf "$kept/etc/resolv.conf"
	if [ -n "$DOCKERD$DOCKERD_ARGS" ]; then
		real=/usr/sbin/dockerd
		if [ -n "$DOCKERD" ]; then
			real=/usr/local/sbin/dockerd.real
			cp "$DOCKERD" "$kept$real"
		fi
		# Under nftables Docker wants forwarding on, and does not turn it on.
		cat >"$kept/usr/local/sbin/dockerd" <<-END
			#!/bin/sh
			case "$DOCKERD_ARGS" in *nftables*) sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 ;; esac
			exec $real $DOCKERD_ARGS "\$@"
		END
		chmod 755 "$kept/usr/local/sbin/dockerd"
	fi
	exec chroot "$kept" env PATH="$goroot/bin:$PATH" GOMODCACHE="$modules" GOCACHE="$built" GOFLAGS=-buildvcs=false \
		sh -c "cd \"\$0\" && exec \"\$@\"" "$checkout" "$@"
' sh "$@"
