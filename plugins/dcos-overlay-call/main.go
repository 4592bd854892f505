// Command dcos-overlay-call asks the coordinators on behalf of the plugins, and
// is nobody else's to call: it is package errand's other side.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/errand"
	"github.com/dcos/dcos-overlay/internal/version"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(errand.Program, version.String())
		return
	}
	if err := errand.Serve(context.Background(), os.Stdin, os.Stdout, open); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v; it is for the plugins to run, not for people\n", errand.Program, err)
		os.Exit(1)
	}
}

func open(o errand.Options) (errand.Do, error) {
	client, err := apiclient.New(apiclient.Options{
		Masters: o.Masters, LocalIP: o.LocalIP, CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile,
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, r errand.Request) (any, error) { return ask(ctx, client, r) }, nil
}

func ask(ctx context.Context, client *apiclient.Client, r errand.Request) (any, error) {
	switch r.Call {
	case errand.CallClaim:
		var req api.ClaimRequest
		if err := json.Unmarshal(r.Body, &req); err != nil {
			return nil, fmt.Errorf("read the claim: %w", err)
		}
		return client.Claim(ctx, r.IP, req)
	case errand.CallClaimAddress, errand.CallReleaseAddress:
		var req api.AddressRequest
		if err := json.Unmarshal(r.Body, &req); err != nil {
			return nil, fmt.Errorf("read whose address: %w", err)
		}
		if r.Call == errand.CallReleaseAddress {
			return nil, client.ReleaseAddress(ctx, r.IP, r.Overlay, r.Address, req.Container, req.Interface)
		}
		return client.ClaimAddress(ctx, r.IP, r.Overlay, r.Address, req)
	case errand.CallReport:
		var req api.StatusRequest
		if err := json.Unmarshal(r.Body, &req); err != nil {
			return nil, fmt.Errorf("read the report: %w", err)
		}
		return nil, client.Report(ctx, r.IP, req)
	case errand.CallAgents:
		return client.Agents(ctx)
	case errand.CallOverlay:
		return client.Overlay(ctx, r.Overlay)
	case errand.CallOverlayStatus:
		return client.OverlayStatus(ctx, r.Overlay)
	}
	return nil, fmt.Errorf("there is no call %q: the plugin and %s are of different versions", r.Call, errand.Program)
}
