#!/bin/sh
# Builds what is released into a directory: for each architecture a tarball,
# .deb and .rpm packages and an SBOM, and SHA256SUMS of them all.
#
#   packaging/dist.sh [DIRECTORY]      (default dist)
#
# The same source and Go give the same bytes, wherever and whenever it is built.
# From the environment:
#   ARCHES             what to build for (default: amd64 arm64)
#   VERSION            default: what version.sh says
#   SOURCE_DATE_EPOCH  the date that everything bears, in seconds since 1970
#                      (default: that of the last commit)
#   NFPM               the packager (default: the pinned one, by go run)
set -eu
umask 022
export LC_ALL=C TZ=UTC

say() { echo "dist: $*"; }
die() { echo "dist: $*" >&2; exit 1; }

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
VERSION=${VERSION:-$("$root/packaging/version.sh")}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" -c safe.directory='*' log -1 --format=%ct)} ||
	die "there is no commit to take the date from; give SOURCE_DATE_EPOCH"
export SOURCE_DATE_EPOCH

# Later ones add MSIX, and a library for it that not every module proxy has.
NFPM=${NFPM:-go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0}

# Debian and rpm compare versions by their own rules: 1.2.0~rc1 comes before
# 1.2.0, and 1.2.0+5.g0123abc after it. A - parts the version from the release.
PACKAGE_VERSION=$(echo "$VERSION" | sed -E 's/^v//; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/; s/-dirty$/.dirty/; s/-/~/g')
case $PACKAGE_VERSION in
[0-9]*) ;;
*) die "version $VERSION is none that packages can have; give one, such as VERSION=v1.2.0" ;;
esac
export PACKAGE_VERSION

# What the host of the build is set to must not show in what is built.
unset GOAMD64 GOARM64 GOEXPERIMENT GOFIPS140 GOOS GOARCH
export GOFLAGS=-buildvcs=false CGO_ENABLED=0
ldflags="-s -w -X github.com/dcos/dcos-overlay/internal/version.described=$VERSION"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

build() { # architecture directory
	for program in dcos-overlay:plugins/dcos-overlay dcos-ipam:plugins/dcos-ipam dcos-overlay-call:plugins/dcos-overlay-call \
		dcos-overlay-coordinator:coordinator dcos-overlay-companion:companion dcos-overlayctl:ctl; do
		(cd "$root" && GOARCH=$1 go build -trimpath -ldflags "$ldflags" -o "$2/${program%%:*}" "./${program#*:}")
	done
}

# words writes what dcos-overlayctl says of itself, and the manual pages of the
# other programs: the same for all architectures, and said by one that runs here.
words() { # directory
	(cd "$root" && go build -trimpath -ldflags "$ldflags" -o "$work/dcos-overlayctl" ./ctl)
	"$work/dcos-overlayctl" man "$1/man"
	(cd "$root" && go run ./packaging/manpages --version "$VERSION" docs/reference.md "$1/man")
	gzip -n -9 "$1"/man/*.[18]
	mkdir "$1/completions"
	for shell in bash zsh fish; do
		"$work/dcos-overlayctl" completion "$shell" >"$1/completions/dcos-overlayctl.$shell"
	done
}

# samples copies conf/, with the units as packages have them.
samples() { # directory
	mkdir "$1/conf" "$1/units"
	(cd "$root/conf" && find . -name testdata -prune -o -type f ! -name '*.go' -exec install -D -m 644 {} "$1/conf/{}" \;)
	for unit in "$root"/conf/systemd/*.service; do
		sed 's,/usr/local/bin/,/usr/bin/,' "$unit" >"$1/units/$(basename "$unit")"
	done
	install -m 644 "$root/packaging/agent/agent.json" "$1/agent.json"
}

# tarball has the plugins in a directory of their own, which
# MESOS_NETWORK_CNI_PLUGINS_DIR can name as it is.
tarball() { # architecture stage
	name=dcos-overlay-${VERSION#v}-linux-$1
	tree=$work/$name
	mkdir -p "$tree/cni" "$tree/bin"
	cp "$2/bin/dcos-overlay" "$2/bin/dcos-ipam" "$2/bin/dcos-overlay-call" "$tree/cni/"
	cp "$2/bin/dcos-overlay-coordinator" "$2/bin/dcos-overlay-companion" "$2/bin/dcos-overlayctl" "$tree/bin/"
	cp -r "$2/conf" "$2/man" "$2/completions" "$tree/"
	install -m 644 "$root/LICENSE" "$root/README.md" "$2/sbom.cdx.json" "$tree/"
	(cd "$root/docs" && find . -type f -exec install -D -m 644 {} "$tree/docs/{}" \;)
	tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -cf - "$name" |
		gzip -n >"$out/$name.tar.gz"
}

packages() { # architecture stage
	cp -r "$root/packaging/agent" "$root/packaging/coordinator" "$root/LICENSE" "$root/docs" "$2/"
	find "$2" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	for package in agent coordinator ctl; do
		for format in deb rpm; do
			(cd "$2" && ARCH=$1 $NFPM package -f "$root/packaging/$package.yaml" -p "$format" -t "$out/" >"$work/log" 2>&1) ||
				{ cat "$work/log" >&2; die "nfpm failed at the .$format of $package"; }
		done
	done
}

rm -f "$out"/dcos-overlay* "$out/SHA256SUMS"
say "version $VERSION, $(date -d "@$SOURCE_DATE_EPOCH" +%FT%TZ), into $out"
common=$work/common
mkdir "$common"
words "$common"
samples "$common"
for arch in ${ARCHES:-amd64 arm64}; do
	say "$arch"
	stage=$work/$arch
	cp -r "$common" "$stage"
	build "$arch" "$stage/bin"
	(cd "$root" && go run ./packaging/sbom --version "$VERSION" "$stage"/bin/*) >"$stage/sbom.cdx.json"
	cp "$stage/sbom.cdx.json" "$out/dcos-overlay-${VERSION#v}-linux-$arch.cdx.json"
	tarball "$arch" "$stage"
	packages "$arch" "$stage"
done
(cd "$out" && sha256sum dcos-overlay* >SHA256SUMS)
say "$(wc -l <"$out/SHA256SUMS") files, listed in SHA256SUMS"
