// Command dcos-overlay is the CNI plugin that puts a container on an overlay.
package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/version"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("dcos-overlay", version.String())
		return
	}
	p := &plugin{
		// Standard output is the result's; the runtime keeps or shows this.
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		out: os.Stdout,
	}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}, cniversion.All,
		"CNI plugin dcos-overlay "+version.String()+": puts a container on an overlay network of this agent")
	if err = cnierror.Run(os.Getenv("CNI_COMMAND"), err); err != nil {
		if printing := err.Print(); printing != nil {
			p.log.Error("the error can't be printed", "error", printing)
		}
		os.Exit(1)
	}
}
