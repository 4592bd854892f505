// Package version says which version of dcos-overlay a program is of.
package version

import "runtime/debug"

// described is what git describe said where the program was built. The linker
// sets it: the Makefile's LDFLAGS, and packaging/dist.sh.
var described string

// String is the version, such as v1.2.0, or v1.2.0-5-g0123abc five commits
// later. For a program that was built by go build or go install it is what Go
// knows, and "(devel)" if that is nothing.
func String() string {
	if described != "" {
		return described
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
