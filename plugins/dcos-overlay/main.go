// Whoever runs for milliseconds does not ask cgroups how many cores it may use.
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command dcos-overlay is the CNI plugin that puts a container on an overlay.
package main

import (
	"log/slog"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

func main() {
	p := &plugin{
		// Standard output is the result's; the runtime keeps or shows this.
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		out: os.Stdout,
	}
	skel.PluginMainFuncs(skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}, version.All,
		"CNI plugin dcos-overlay: puts a container on an overlay network of this agent")
}
