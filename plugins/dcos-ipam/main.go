// Command dcos-ipam is the CNI IPAM plugin that hands out addresses of the
// subnets that this agent holds of an overlay. dcos-overlay runs the same code
// in its own process; other main plugins exec this one.
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
		fmt.Println("dcos-ipam", version.String())
		return
	}
	p := &plugin{
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		out: os.Stdout,
	}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}, cniversion.All,
		"CNI plugin dcos-ipam "+version.String()+": addresses of this agent's overlay subnets")
	if err = cnierror.Run(os.Getenv("CNI_COMMAND"), err); err != nil {
		if printing := err.Print(); printing != nil {
			p.log.Error("the error can't be printed", "error", printing)
		}
		os.Exit(1)
	}
}
