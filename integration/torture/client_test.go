package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// opKind is what a client asks for.
type opKind string

const (
	opClaim   opKind = "claim"
	opRelease opKind = "release"
	opDelete  opKind = "delete"
	opStatus  opKind = "status"
	// opRead is how the agent's record is found in etcd when all is over.
	opRead opKind = "read"
)

// outcome is what a client knows of what it asked for.
type outcome string

const (
	done outcome = "done"
	// refused: the coordinator said no, with a reason.
	refused outcome = "refused"
	// unknown: no answer came, or one that says that it may or may not have
	// happened. It may even happen later.
	unknown outcome = "unknown"
	// unsent: there was no connection, so it did not happen.
	unsent outcome = "unsent"
)

// op is one request and what came of it. It is about one agent: a delete of
// two is two.
type op struct {
	kind  opKind
	agent int
	ip    netip.Addr
	// overlays are those that a claim asks for or a status reports on.
	overlays []string
	// more says that a claim asks for two subnets of red.
	more bool
	// call and ret are when it was asked for and answered.
	call, ret time.Time
	outcome   outcome
	code      api.Code
	// record and revision are the answer of a claim; record is that of a
	// read, too, nil for none.
	record   *lease.Agent
	revision int64
}

func (o op) String() string {
	s := fmt.Sprintf("%s agent%d %s %v: %s %s", o.kind, o.agent, o.ip, o.overlays, o.outcome, o.code)
	if o.record != nil {
		s += fmt.Sprintf(" %v at revision %d", unitsOf(o.record), o.revision)
	}
	return s
}

// recorder collects what all clients did.
type recorder struct {
	mu  sync.Mutex
	ops []op
}

func (r *recorder) add(ops ...op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, ops...)
}

// client acts for one agent, as its plugin and its companion do, and now and
// then for an operator who deletes agents.
type client struct {
	cluster *cluster
	n       int
	rng     *rand.Rand
	// targets are the coordinators that it asks.
	targets []int
	http    map[netip.Addr]*http.Client
	// at is the agent's present address, held what it last heard it holds.
	at   netip.Addr
	held []string
}

func newClient(c *cluster, n int, seed uint64) *client {
	cl := &client{
		cluster: c, n: n, rng: rand.New(rand.NewPCG(seed, uint64(n)+2)),
		targets: []int{0, 1, 2}, http: map[netip.Addr]*http.Client{},
	}
	for _, ip := range agentIPs(n) {
		cl.http[ip] = httpFrom(c, ip)
	}
	cl.at = agentIPs(n)[0]
	return cl
}

// dialError tells a request that was never sent.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

// httpFrom calls with the source address ip, as the agent there does.
func httpFrom(c *cluster, ip netip.Addr) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			// Less than a client's patience: a host that is cut off is
			// known for it, and the next one is asked.
			ctx, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
			defer cancel()
			conn, err := c.clients.DialFrom(ctx, ip, network, address)
			if err != nil {
				return nil, dialError{err}
			}
			return conn, nil
		},
	}}
}

func (c *client) close() {
	for _, h := range c.http {
		h.CloseIdleConnections()
	}
}

// run asks for one thing after the other until ctx ends.
func (c *client) run(ctx context.Context, rec *recorder) {
	defer c.close()
	for ctx.Err() == nil {
		ops := c.next()
		c.ask(ops)
		if ops[0].outcome == unsent {
			pass(ctx, time.Duration(c.rng.IntN(100))*time.Millisecond)
			continue
		}
		c.learn(ops[0])
		rec.add(ops...)
	}
}

// next decides what to ask for.
func (c *client) next() []op {
	switch dice := c.rng.IntN(100); {
	case dice < 55:
		overlays := [][]string{nil, {"red"}, {"blue"}, {"red", "blue"}}[c.rng.IntN(4)]
		if c.rng.IntN(8) == 0 {
			// The agent's address has changed, and it claims from there.
			c.at = agentIPs(c.n)[c.rng.IntN(2)]
		}
		more := slices.Contains(overlays, "red") && c.rng.IntN(4) == 0
		return []op{{kind: opClaim, agent: c.n, ip: c.at, overlays: overlays, more: more}}
	case dice < 75:
		return []op{{kind: opRelease, agent: c.n, ip: c.at}}
	case dice < 85:
		return []op{{kind: opStatus, agent: c.n, ip: c.at, overlays: c.held}}
	}
	var ops []op
	for range 1 + c.rng.IntN(2) {
		n := c.rng.IntN(agents)
		ops = append(ops, op{kind: opDelete, agent: n, ip: agentIPs(n)[c.rng.IntN(2)]})
	}
	return ops
}

// ask sends one request, which is all of ops, and notes in them what came of
// it.
func (c *client) ask(ops []op) {
	first := &ops[0]
	var method, path string
	var in, out any
	var answer api.ClaimResponse
	switch first.kind {
	case opClaim:
		method, path, out = http.MethodPut, api.PathLease, &answer
		claim := api.ClaimRequest{ID: idOf(first.agent), Overlays: first.overlays}
		if first.more {
			claim.AtLeast = map[string]api.SubnetCount{"red": {Subnets: 2}}
		}
		in = claim
	case opRelease:
		method, path = http.MethodDelete, api.PathLease
	case opStatus:
		method, path = http.MethodPut, api.PathStatus
		in = c.status(first.overlays)
	case opDelete:
		method, path = http.MethodPost, api.PathAgentsDelete
		var ips []string
		for _, o := range ops {
			ips = append(ips, o.ip.String())
		}
		// Without force an agent that has just reported is not deleted.
		in = api.DeleteAgentsRequest{Agents: ips, Force: c.rng.IntN(2) == 0}
	}
	target := c.cluster.hosts[c.targets[c.rng.IntN(len(c.targets))]].CoordinatorURL() + strings.Replace(path, "{ip}", first.ip.String(), 1)
	// The coordinators take up to 4 s to say that etcd does not answer; most
	// clients have heard or given up before.
	patience := 300*time.Millisecond + time.Duration(c.rng.IntN(700))*time.Millisecond
	if c.rng.IntN(10) == 0 {
		patience += 4 * time.Second
	}
	call := time.Now()
	result, code := send(c.http[c.at], patience, method, target, in, out)
	ret := time.Now()
	for i := range ops {
		ops[i].call, ops[i].ret, ops[i].outcome, ops[i].code = call, ret, result, code
		if result == refused && len(ops) > 1 {
			// One of two may have been deleted before the other was refused.
			ops[i].outcome = unknown
		}
	}
	if result == done && first.kind == opClaim {
		first.record, first.revision = &answer.Agent, answer.Revision
	}
}

func idOf(n int) string { return fmt.Sprintf("agent%d", n) }

func (c *client) status(overlays []string) api.StatusRequest {
	state := lease.State{Status: lease.StatusOK}
	if c.rng.IntN(3) == 0 {
		state = lease.State{Status: lease.StatusFailed, Error: fmt.Sprintf("trouble %d", c.rng.IntN(1000))}
	}
	req := api.StatusRequest{ID: idOf(c.n), Overlays: []api.OverlayStatus{}}
	for _, o := range overlays {
		req.Overlays = append(req.Overlays, api.OverlayStatus{Name: o, State: state})
	}
	return req
}

// learn notes what the agent believes to hold after o.
func (c *client) learn(o op) {
	switch {
	case o.kind == opClaim && o.outcome == done:
		c.held = nil
		for _, held := range o.record.Overlays {
			c.held = append(c.held, held.Name)
		}
	case o.kind == opRelease && o.outcome == done, o.kind == opStatus && o.outcome == refused:
		c.held = nil
	}
}

// send makes one request, once.
func send(h *http.Client, patience time.Duration, method, target string, in, out any) (outcome, api.Code) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return unsent, api.CodeInternal
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return unsent, api.CodeInternal
	}
	resp, err := h.Do(req)
	if err != nil {
		var dial dialError
		if errors.As(err, &dial) {
			return unsent, ""
		}
		return unknown, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return unknown, ""
	}
	if resp.StatusCode < 300 {
		if out != nil && json.Unmarshal(text, out) != nil {
			return unknown, api.CodeInternal
		}
		return done, ""
	}
	var e api.ErrorBody
	if json.Unmarshal(text, &e) != nil || e.Error == nil {
		return unknown, api.CodeInternal
	}
	switch e.Error.Code {
	case api.CodeUnavailable, api.CodeInternal:
		return unknown, e.Error.Code
	}
	return refused, e.Error.Code
}
