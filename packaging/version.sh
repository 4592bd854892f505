#!/bin/sh
# Prints the version of this checkout: v1.2.0 at a tag, v1.2.0-5-g0123abc five
# commits later, v0.0.0-120-g0123abc where there is no tag yet, and -dirty
# after it if files differ from the commit; "unknown" without a repository.
set -eu
cd "$(dirname "$0")/.."

# Root may make packages in the checkout of somebody else.
repo() { git -c safe.directory='*' "$@" 2>/dev/null; }

repo describe --tags --match 'v[0-9]*' --dirty && exit
if commit=$(repo describe --always --dirty --exclude '*'); then
	echo "v0.0.0-$(repo rev-list --count HEAD)-g$commit"
else
	echo unknown
fi
