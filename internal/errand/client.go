package errand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// grace is how much longer than the call itself the program may take: it
	// has to read, to write, and to say that the call took too long.
	grace = time.Second
	// openTimeout bounds the wait for a program that was just started.
	openTimeout = 10 * time.Second
	// callTimeout bounds a call whose context has no deadline.
	callTimeout = 30 * time.Second
)

// Client asks coordinators by the program. It is for one goroutine at a time.
type Client struct {
	cmd     *exec.Cmd
	in, out *os.File
	enc     *json.Encoder
	dec     *json.Decoder
	// began is when the program was started, and the zero value once it has
	// said that it can make use of its Options.
	began time.Time
	// broken is why it is of no more use.
	broken error
}

// Open starts the program at path, and does not wait for it: that it can't make
// use of o is the error of the first call.
func Open(path string, o Options) (*Client, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", path, err), childIn.Close(), in.Close())
	}
	c := &Client{cmd: exec.Command(path), in: in, out: out, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = childIn, childOut, os.Stderr
	c.began = time.Now()
	err = c.cmd.Start()
	childIn.Close()
	childOut.Close()
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	// A pipe takes as much as this without a reader.
	if err := c.send(c.began.Add(openTimeout), o); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the program.
func (c *Client) Close() {
	c.in.Close()
	c.out.Close()
	// What it has to say is of no interest any more. It holds nothing.
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// Claim is apiclient.Client's.
func (c *Client) Claim(ctx context.Context, ip netip.Addr, req api.ClaimRequest) (out api.ClaimResponse, err error) {
	return out, c.call(ctx, Request{Call: CallClaim, IP: ip}, req, &out)
}

// ClaimAddress is apiclient.Client's.
func (c *Client) ClaimAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, req api.AddressRequest) (out api.ClaimResponse, err error) {
	return out, c.call(ctx, Request{Call: CallClaimAddress, IP: ip, Overlay: overlay, Address: addr}, req, &out)
}

// ReleaseAddress is apiclient.Client's.
func (c *Client) ReleaseAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, container, ifName string) error {
	r := Request{Call: CallReleaseAddress, IP: ip, Overlay: overlay, Address: addr}
	return c.call(ctx, r, api.AddressRequest{Container: container, Interface: ifName}, nil)
}

// Report is apiclient.Client's.
func (c *Client) Report(ctx context.Context, ip netip.Addr, req api.StatusRequest) error {
	return c.call(ctx, Request{Call: CallReport, IP: ip}, req, nil)
}

// Agents is apiclient.Client's.
func (c *Client) Agents(ctx context.Context) (out api.AgentsResponse, err error) {
	return out, c.call(ctx, Request{Call: CallAgents}, nil, &out)
}

// Overlay is apiclient.Client's.
func (c *Client) Overlay(ctx context.Context, name string) (out network.Overlay, err error) {
	return out, c.call(ctx, Request{Call: CallOverlay, Overlay: name}, nil, &out)
}

// OverlayStatus is apiclient.Client's.
func (c *Client) OverlayStatus(ctx context.Context, name string) (out api.Overlay, err error) {
	return out, c.call(ctx, Request{Call: CallOverlayStatus, Overlay: name}, nil, &out)
}

// call makes one call. The deadline of ctx goes with it; that ctx is cancelled
// before ends no call.
func (c *Client) call(ctx context.Context, r Request, body, out any) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%w (%w)", api.ErrUnreachable, err)
	}
	if body != nil {
		var err error
		if r.Body, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(callTimeout)
	}
	if err := c.begin(until.Add(grace)); err != nil {
		return err
	}
	r.TimeoutMS = max(time.Until(until).Milliseconds(), 1)
	if err := c.send(until.Add(grace), r); err != nil {
		return err
	}
	return c.receive(until.Add(grace), out)
}

// begin waits until the program was started, the first time.
func (c *Client) begin(until time.Time) error {
	if c.began.IsZero() {
		return nil
	}
	if most := c.began.Add(openTimeout); most.Before(until) {
		until = most
	}
	if err := c.receive(until, nil); err != nil {
		// It ends where it can't make use of its Options.
		c.broken = err
		return err
	}
	c.began = time.Time{}
	return nil
}

// send sends v.
func (c *Client) send(until time.Time, v any) error {
	if c.broken != nil {
		return c.broken
	}
	err := c.in.SetWriteDeadline(until)
	if err == nil {
		err = c.enc.Encode(v)
	}
	return c.noAnswer(err)
}

// receive reads the answer to what was sent, and where all went well out's
// value.
func (c *Client) receive(until time.Time, out any) error {
	if c.broken != nil {
		return c.broken
	}
	var a Answer
	err := c.out.SetReadDeadline(until)
	if err == nil {
		err = c.dec.Decode(&a)
	}
	if err == nil && a.Kind == "" && out != nil {
		err = c.dec.Decode(out)
	}
	if err != nil {
		return c.noAnswer(err)
	}
	return a.err()
}

// noAnswer breaks c where err is one.
func (c *Client) noAnswer(err error) error {
	if err != nil {
		c.broken = fmt.Errorf("%w (%s gave no answer: %w)", api.ErrUnreachable, c.cmd.Path, err)
	}
	return c.broken
}

// Find looks for the program: beside the running one, in the directories of
// cniPath (CNI_PATH), and in those of PATH.
func Find(cniPath string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", Program, err)
	}
	beside := filepath.Dir(self)
	for _, dir := range append([]string{beside}, filepath.SplitList(cniPath)...) {
		path := filepath.Join(dir, Program)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	if path, err := exec.LookPath(Program); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("the program %s, by which coordinators are asked, is missing from %s: copy it there, beside %s",
		Program, beside, filepath.Base(self))
}
