package doctor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// coordinators answer what a test wants.
type coordinators struct {
	health []apiclient.Health
	agents api.AgentsResponse
	err    error
}

func (c coordinators) Health(context.Context) []apiclient.Health { return c.health }

func (c coordinators) AgentsStatus(context.Context) (api.AgentsResponse, error) {
	return c.agents, c.err
}

type noDocker struct{}

func (noDocker) Check(context.Context, docker.Network) (string, error) {
	return "", docker.ErrUnavailable
}

// patient is examined in a namespace without anything in it.
type patient struct {
	*testing.T
	Doctor
	lines []Line
}

func newPatient(t *testing.T, c coordinators) *patient {
	netnstest.Enter(t)
	return newPatientHere(t, c)
}

func newPatientHere(t *testing.T, c coordinators) *patient {
	conf := agentconf.Config{
		IP: netip.MustParseAddr("10.0.0.1"), Network: lease.DefaultNetworkConfig(),
		StateDir: t.TempDir(), RunDir: t.TempDir(), VXLANFilter: true, VTEPTxOffload: true,
	}
	p := &patient{T: t}
	p.Doctor = Doctor{
		Host: host.New(conf, slog.New(slog.NewTextHandler(io.Discard, nil))), Docker: noDocker{}, Coordinator: c,
		Pings: 3, Timeout: time.Second, Tell: func(l Line) { p.lines = append(p.lines, l) },
	}
	return p
}

// says wants a line of that level with that text, and a remedy unless it is ok.
func (p *patient) says(level Level, text string) {
	p.Helper()
	for _, l := range p.lines {
		if l.Level == level && strings.Contains(l.Name+": "+l.Text, text) {
			if (l.Remedy == "") != (level == OK) {
				p.Errorf("the remedy of %+v", l)
			}
			return
		}
	}
	p.Errorf("there is no %q of level %s in %+v", text, level, p.lines)
}

func agent(ip string, n byte) lease.Agent {
	return lease.Agent{
		ID: "id" + ip, IP: netip.MustParseAddr(ip), Config: lease.DefaultNetworkConfig(),
		VTEP:     lease.VTEP{IP: netip.PrefixFrom(netip.AddrFrom4([4]byte{44, 128, 0, n}), 20), MAC: [6]byte{0x70, 0xb3, 0xd5, 0x80, 0, n}},
		Overlays: []lease.Overlay{{Name: "dcos", Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{9, 0, n, 0}), 24)}}},
	}
}

func TestWithoutLease(t *testing.T) {
	p := newPatient(t, coordinators{err: apiclient.ErrUnreachable, health: []apiclient.Health{{URL: "http://a", Reason: "refused"}}})
	p.Doctor.Run(t.Context())
	p.says(Fail, "lease: this host holds none")
	p.says(Warn, "companion: none runs")
	p.says(Fail, "coordinator http://a: no answer: refused")
	p.says(Fail, "coordinator: no coordinator answered")

	p.lines = nil
	p.Doctor.Host.Conf.Network.DockerBridge = false
	p.Doctor.Run(t.Context())
	p.says(OK, "lease: none yet")
}

func TestCoordinators(t *testing.T) {
	now := time.Now()
	p := newPatient(t, coordinators{health: []apiclient.Health{
		{URL: "https://well", Answered: true, Ready: true, Took: time.Millisecond, Expires: now.Add(1000 * time.Hour)},
		{URL: "https://soon", Answered: true, Ready: true, Skew: -time.Minute, Expires: now.Add(time.Hour)},
		{URL: "https://late", Answered: true, Reason: "etcd is away", Skew: 2 * time.Second, Expires: now.Add(-time.Hour)},
	}})
	p.Doctor.Run(t.Context())
	p.says(OK, "coordinator https://well: ready, answers in 1ms")
	p.says(OK, "certificate of https://well: it is good until")
	p.says(OK, "clock: that of https://well")
	p.says(Warn, "certificate of https://soon: it is good until")
	p.says(Warn, "clock: that of https://soon differs by 1m0s")
	p.says(Fail, "coordinator https://late: it is not ready: etcd is away")
	p.says(Fail, "certificate of https://late: it expired")
	p.says(OK, "clock: that of https://late")
}

// TestRecord compares the lease on disk with what the coordinator has.
func TestRecord(t *testing.T) {
	self := agent("10.0.0.1", 1)
	for _, tt := range []struct {
		name   string
		change func(*lease.Agent)
		level  Level
		text   string
	}{
		{"the same", func(*lease.Agent) {}, OK, "lease at the coordinator: it is the same"},
		{"gone", func(a *lease.Agent) { a.IP = netip.MustParseAddr("10.0.0.9") }, Fail, "there is no agent 10.0.0.1"},
		{"another machine", func(a *lease.Agent) { a.ID = "other" }, Fail, "the record is of another machine"},
		{"another subnet", func(a *lease.Agent) { a.Overlays[0].Subnets[0] = netip.MustParsePrefix("9.0.7.0/24") }, Fail, "9.0.7.0/24]]; on disk there is"},
		{"failed", func(a *lease.Agent) {
			a.Overlays[0].State = lease.State{Status: lease.StatusFailed, Error: "no Docker"}
		}, Warn, "overlay dcos: last reported as STATUS_FAILED: no Docker"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			theirs := self.Clone()
			tt.change(theirs)
			p := newPatient(t, coordinators{agents: api.AgentsResponse{Agents: []lease.Agent{*theirs, agent("10.0.0.2", 2)}}})
			if err := p.Host.Dir.Save(&agentstate.Held{Agent: self}); err != nil {
				t.Fatal(err)
			}
			p.Doctor.Run(t.Context())
			p.says(tt.level, tt.text)
			// Nothing is in the namespace, so that no other thing is right.
			p.says(Fail, "underlay: no device of this host has the address 10.0.0.1")
			p.says(Fail, "peers: there is no vtep1024")
		})
	}
}

func TestCompanion(t *testing.T) {
	for _, tt := range []struct {
		status int
		level  Level
		text   string
	}{{http.StatusOK, OK, "companion: it runs, and finds the host"}, {http.StatusServiceUnavailable, Fail, "companion: it runs, and says: trouble"}} {
		// An HTTP client's goroutines are in the machine's own namespace.
		p := newPatientHere(t, coordinators{})
		unlock, err := p.Host.Dir.LockCompanion()
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			fmt.Fprintln(w, "trouble")
		}))
		p.Companion = s.URL
		p.companion(t.Context())
		p.says(tt.level, tt.text)
		s.Close()
		p.lines = nil
		p.companion(t.Context())
		p.says(Warn, "companion: it runs, and its status can't be read")
		unlock()
	}
}

// TestPresent: what was found when repairing is so now.
func TestPresent(t *testing.T) {
	for in, want := range map[string]string{
		"iptables nat: chain X was missing":                    "iptables nat: chain X is missing",
		"iptables filter: there were 2 jumps to X":             "iptables filter: there are 2 jumps to X",
		"the jump to X was in FORWARD and belongs in Y":        "the jump to X is in FORWARD and belongs in Y",
		"Docker network dcos had gateway 9.0.0.1 instead of 2": "Docker network dcos has gateway 9.0.0.1 instead of 2",
	} {
		if got := present(in); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestTracking: what is near its limit is told while something can be done.
func TestTracking(t *testing.T) {
	for _, c := range []struct {
		count, limit int
		level        Level
		remedy       string
	}{
		{0, 262144, OK, ""},
		{196608, 262144, OK, ""},
		{196609, 262144, Warn, "sysctl -w net.netfilter.nf_conntrack_max=524288"},
		{262144, 262144, Warn, "sysctl -w net.netfilter.nf_conntrack_max=524288"},
		{1000, 0, OK, ""},
	} {
		level, _, text, remedy := tracking(c.count, c.limit)
		if level != c.level || remedy != c.remedy || !strings.Contains(text, fmt.Sprint(c.count)) {
			t.Errorf("%d of %d: %v, %q, %q", c.count, c.limit, level, text, remedy)
		}
	}
}
