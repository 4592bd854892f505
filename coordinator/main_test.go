package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/lease"
)

const (
	masterJSON = "server/testdata/master.json"
	stateJSON  = "server/testdata/overlay-master-state.json"
)

// build makes the binary.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dcos-overlay-coordinator")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// process is a coordinator that runs.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	base string
	// log is complete once done is closed.
	log  bytes.Buffer
	done chan struct{}
}

var listening = regexp.MustCompile(`msg=listening address=(\S+)`)

// start runs the binary and waits until it listens.
func start(t *testing.T, binary string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, append([]string{"--listen", "127.0.0.1:0"}, args...)...), done: make(chan struct{})}
	// A test that is killed takes it along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It has ended already unless the test failed.
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	address := make(chan string, 1)
	go func() {
		defer close(p.done)
		defer close(address)
		for scan := bufio.NewScanner(stderr); scan.Scan(); {
			fmt.Fprintln(&p.log, scan.Text())
			if m := listening.FindStringSubmatch(scan.Text()); m != nil {
				address <- m[1]
			}
		}
	}()
	a, ok := <-address
	if !ok {
		t.Fatalf("the coordinator ended before it listened:\n%s", &p.log)
	}
	p.base = "http://" + a
	return p
}

// end sends the signal and waits for the end.
func (p *process) end(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
	return p.cmd.Wait()
}

// agent claims, and sometimes releases, from an address of its own.
type agent struct {
	ip netip.Addr
	// acked is the last acknowledged answer; unsure is true while a call has
	// been sent and not answered.
	acked  *lease.Agent
	unsure bool
}

func (a *agent) client(t *testing.T, base string) *apiclient.Client {
	c, err := apiclient.New(apiclient.Options{Masters: []string{base}, LocalIP: a.ip})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a *agent) claim(ctx context.Context, c *apiclient.Client) error {
	resp, err := c.Claim(ctx, a.ip, api.ClaimRequest{ID: "id-" + a.ip.String(), AllOverlays: true})
	if err != nil {
		a.unsure = true
		return err
	}
	if a.acked != nil && !a.unsure && !reflect.DeepEqual(*a.acked, resp.Agent) {
		return fmt.Errorf("agent %s had %+v, and is now told %+v", a.ip, *a.acked, resp.Agent)
	}
	a.acked, a.unsure = &resp.Agent, false
	return nil
}

func (a *agent) release(ctx context.Context, c *apiclient.Client) error {
	if err := c.Release(ctx, a.ip); err != nil {
		a.unsure = true
		return err
	}
	a.acked, a.unsure = nil, false
	return nil
}

// TestKill kills the coordinator again and again while agents claim: whatever
// it has acknowledged must be there afterwards, and every record whole.
func TestKill(t *testing.T) {
	binary, data := build(t), t.TempDir()
	const rounds, workers, each = 5, 8, 12
	var agents []*agent
	for i := range workers * each {
		agents = append(agents, &agent{ip: netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)})})
	}
	for round := range rounds {
		p := start(t, binary, "--data-dir", data, "--config", masterJSON)
		calls := make(chan struct{})
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() { work(t, p.base, agents[w*each:(w+1)*each], calls) })
		}
		// The moment is that of some acknowledgement, while others are under
		// way.
		go func() {
			wg.Wait()
			close(calls)
		}()
		for range 20 + rand.IntN(60) {
			if _, ok := <-calls; !ok {
				t.Fatalf("round %d: all workers gave up", round)
			}
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for range calls {
		}
		<-p.done
		var exit *exec.ExitError
		if err := p.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("round %d: killed, and ended with %v", round, err)
		}
	}

	p := start(t, binary, "--data-dir", data)
	for _, a := range agents {
		if a.acked == nil || a.unsure {
			continue
		}
		if err := a.claim(t.Context(), a.client(t, p.base)); err != nil {
			t.Error(err)
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM: %v\n%s", err, &p.log)
	}
	s, err := etcd.Start(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	stored := registrytest.Whole(t, s.Client)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	acked := 0
	for _, a := range agents {
		got, there := stored[a.ip]
		switch {
		case a.unsure:
		case a.acked == nil && there:
			t.Errorf("agent %s has released its lease, and still holds %+v", a.ip, got)
		case a.acked != nil && !reflect.DeepEqual(got, *a.acked):
			t.Errorf("agent %s was told %+v, and %+v is stored", a.ip, *a.acked, got)
		case a.acked != nil:
			acked++
		}
	}
	if acked == 0 {
		t.Error("no claim was acknowledged: the test shows nothing")
	}
}

// work claims and releases for each of agents in turn until the coordinator is
// gone, and reports each acknowledgement.
func work(t *testing.T, base string, agents []*agent, calls chan<- struct{}) {
	for i := 0; ; i++ {
		a := agents[i%len(agents)]
		c := a.client(t, base)
		do := a.claim
		if a.acked != nil && rand.IntN(4) == 0 {
			do = a.release
		}
		err := do(t.Context(), c)
		c.Close()
		if errors.Is(err, apiclient.ErrUnreachable) || a.unsure {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		calls <- struct{}{}
	}
}

// runOnce runs the binary to its end.
func runOnce(t *testing.T, binary string, args ...string) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out bytes.Buffer
	cmd.Stderr = &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestStartRefused(t *testing.T) {
	binary, data := build(t), t.TempDir()
	p := start(t, binary, "--data-dir", data, "--config", masterJSON)
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`{"vtep_subnet": "44.128.0.0/20", "vtep_mac_oui": "x",`+"\n"+`"overlays": [{"name": "host", "subnet": "9.0.0.0/8", "prefix": 24}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	clashing := filepath.Join(t.TempDir(), "state.json")
	state, err := os.ReadFile(stateJSON)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(clashing, bytes.ReplaceAll(state, []byte("9.0.1.128"), []byte("9.0.1.138")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"data directory in use", []string{"--data-dir", data, "--listen", "127.0.0.1:0"}, 1,
			[]string{"data directory " + data + ": another coordinator uses it (process " + fmt.Sprint(p.cmd.Process.Pid) + ")"}},
		{"address in use", []string{"--data-dir", t.TempDir(), "--listen", strings.TrimPrefix(p.base, "http://")}, 1,
			[]string{"--listen " + strings.TrimPrefix(p.base, "http://"), "address already in use"}},
		{"nothing configured", []string{"--data-dir", t.TempDir(), "--listen", "127.0.0.1:0"}, 1,
			[]string{"etcd holds no network: start a coordinator with --config once"}},
		{"bad configuration", []string{"--config", bad}, 2, []string{"line 1, vtep_mac_oui: ", "line 2, overlays[0].name: "}},
		{"no such file", []string{"--config", bad + "x"}, 2, []string{"read --config: open "}},
		{"unknown flag", []string{"--colour"}, 2, []string{"unknown flag: --colour"}},
		{"argument", []string{"start"}, 2, []string{`unexpected argument "start"`}},
		{"log level", []string{"--log-level", "loud"}, 2, []string{`--log-level is "loud"`}},
		{"reclaim", []string{"--reclaim-after", "30s"}, 2, []string{"--reclaim-after is 30s: it must be 0 for never, or not less than --alive-ttl (1m0s)"}},
		{"no state", []string{"--import", masterJSON}, 2, []string{"--import " + masterJSON + " is not a state of DC/OS's: it has no agents"}},
		{"no such state", []string{"--import", bad + "x"}, 2, []string{"read --import: open "}},
		{"a state that clashes", []string{"--data-dir", t.TempDir(), "--config", masterJSON, "--import", clashing, "--listen", "127.0.0.1:0"}, 2, []string{
			"--import " + clashing + ": nothing is imported, for the state does not go with what is here:",
			"agent 172.17.0.4: overlay dcos: docker_bridge has 9.0.1.138/25, and would have 9.0.1.128/25 here"}},
		{"quarantine", []string{"--quarantine", "-1s"}, 2, []string{"--quarantine must be positive"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stderr := runOnce(t, binary, test.args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in:\n%s", want, stderr)
				}
			}
		})
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, &p.log)
	}
}

// TestImportAtStart: the flag takes over DC/OS's leases once; afterwards it
// does no harm.
func TestImportAtStart(t *testing.T) {
	binary, data := build(t), t.TempDir()
	local := netip.MustParseAddr("127.0.0.4")
	state, err := os.ReadFile(stateJSON)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(file, bytes.ReplaceAll(state, []byte("172.17.0.4"), []byte(local.String())), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &agent{ip: local}
	for round, want := range []string{"9.0.1.0/24", "9.0.1.0/24", "9.0.3.0/24"} {
		p := start(t, binary, "--data-dir", data, "--config", masterJSON, "--import", file)
		c := a.client(t, p.base)
		if err := a.claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if got := a.acked.Overlays[0].Subnets[0].String(); got != want {
			t.Errorf("round %d: the agent has %s, want %s", round, got, want)
		}
		if round == 1 {
			if err := a.release(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		c.Close()
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Fatalf("SIGTERM: %v\n%s", err, &p.log)
		}
		if imported := strings.Contains(p.log.String(), "state imported"); imported != (round == 0) {
			t.Errorf("round %d: imported is %v:\n%s", round, imported, &p.log)
		}
	}
}
