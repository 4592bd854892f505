package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// cluster starts an etcd beside the coordinators, as conf has it be.
func cluster(t *testing.T, conf func(*embed.Config)) (address string, client *clientv3.Client) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = filepath.Join(t.TempDir(), "etcd")
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.TickMs, c.ElectionMs = 10, 100
	c.BcryptCost = 4
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	conf(c)
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	client = v3client.New(server.Server)
	t.Cleanup(func() { _ = client.Close() })
	return c.ListenClientUrls[0].Scheme + "://" + server.Clients[0].Addr().String(), client
}

// get is the answer to a GET.
func (p *process) get(path string) (code int, body string) {
	p.t.Helper()
	resp, err := http.Get(p.base + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// until waits for something that takes a moment.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// untilReady waits until readyz answers with code, and want in its text.
func (p *process) untilReady(code int, want string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("/readyz answers %d with %q", code, want), func() bool {
		got, body := p.get("/readyz")
		return got == code && strings.Contains(body, want)
	})
}

// TestFullCluster: an etcd that is full refuses claims with the alarm's name
// and what to do, until that is done.
func TestFullCluster(t *testing.T) {
	address, client := cluster(t, func(c *embed.Config) { c.QuotaBackendBytes = 4 << 20 })
	p := start(t, build(t), "--etcd", address, "--config", masterJSON)
	p.untilReady(http.StatusOK, "ok")
	a := &agent{ip: netip.MustParseAddr("127.0.0.9")}
	c := a.client(t, p.base)
	defer c.Close()
	if err := a.claim(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var rev int64
	for i := 0; ; i++ {
		resp, err := client.Put(t.Context(), "somebody-else", strings.Repeat("x", 100<<10))
		if errors.Is(err, rpctypes.ErrNoSpace) {
			break
		}
		if err != nil || i > 1000 {
			t.Fatalf("after %d writes: %v", i, err)
		}
		rev = resp.Header.Revision
	}
	p.untilReady(http.StatusServiceUnavailable, "not ready: etcd has alarm NOSPACE: its database is full, and it takes no changes: compact and defragment it")
	other := &agent{ip: netip.MustParseAddr("127.0.0.10")}
	then := other.client(t, p.base)
	defer then.Close()
	err := other.claim(t.Context(), then)
	if err == nil || !strings.Contains(err.Error(), "etcd has alarm NOSPACE") {
		t.Errorf("a claim gets %v", err)
	}
	_, metrics := p.get("/metrics")
	for _, want := range []string{`dcos_overlay_coordinator_etcd_alarm{alarm="NOSPACE"} 1`, `dcos_overlay_coordinator_claims_total{result="unavailable"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if code, _ := p.get("/v1/agents"); code != http.StatusOK {
		t.Errorf("a read gets %d", code)
	}

	if _, err := client.Compact(t.Context(), rev, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	remote, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	if _, err := remote.Defragment(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	p.untilReady(http.StatusOK, "ok")
	if err := other.claim(t.Context(), then); err != nil {
		t.Error(err)
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, &p.log)
	}
	if n := strings.Count(p.log.String(), `msg="etcd has an alarm"`); n != 1 {
		t.Errorf("the alarm is in the log %d times:\n%s", n, &p.log)
	}
}

// TestSecuredCluster: a coordinator that etcd does not let in says which flag
// is wrong, in its log and in /readyz, and begins once that is mended.
func TestSecuredCluster(t *testing.T) {
	binary := build(t)
	ca := tlstest.NewAuthority(t, "ca")
	f := ca.Issue(tlstest.Leaf{Name: "coordinator", IPs: []string{"127.0.0.1"}}).Write(t, t.TempDir(), ca)
	address, client := cluster(t, func(c *embed.Config) {
		c.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = f.Cert, f.Key
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = f.CA, true
	})
	for _, err := range []error{
		second(client.UserAdd(t.Context(), "root", "x")), second(client.UserGrantRole(t.Context(), "root", "root")),
		second(client.RoleAdd(t.Context(), "overlay")), second(client.UserAdd(t.Context(), "overlay", "right")),
		second(client.RoleGrantPermission(t.Context(), "overlay", "/dcos-overlay/v1/", clientv3.GetPrefixRangeEnd("/dcos-overlay/v1/"), clientv3.PermissionType(clientv3.PermReadWrite))),
		second(client.UserGrantRole(t.Context(), "overlay", "overlay")), second(client.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	password := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(password, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong")
	p := start(t, binary, "--etcd", address, "--config", masterJSON, "--etcd-ca", f.CA, "--etcd-cert", f.Cert, "--etcd-key", f.Key,
		"--etcd-user", "overlay", "--etcd-password-file", password)
	const want = "etcd refuses user overlay: there is none, or the password in --etcd-password-file"
	p.untilReady(http.StatusServiceUnavailable, want)
	if code, body := p.get("/v1/agents"); code != http.StatusServiceUnavailable || !strings.Contains(body, want) {
		t.Errorf("a read before the start gets %d, %s", code, body)
	}
	write("right")
	p.untilReady(http.StatusOK, "ok")
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, &p.log)
	}
	if !strings.Contains(p.log.String(), want) {
		t.Errorf("the log does not tell:\n%s", &p.log)
	}
}

func second[T any](_ T, err error) error { return err }

func TestSourcesRefused(t *testing.T) {
	binary := build(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--etcd", "10.0.0.1"}, `--etcd "10.0.0.1" must be a URL`},
		{[]string{"--etcd", "https://10.0.0.1:2379", "--etcd-ca", "/nowhere"}, "read --etcd-ca: stat /nowhere"},
		{[]string{"--etcd", "https://10.0.0.1:2379", "--etcd-user", "u"}, "--etcd-user and --etcd-password-file"},
		{[]string{"--mesos-master", "zk://10.0.0.1:2181/mesos"}, "ZooKeeper is not asked"},
		{[]string{"--mesos-master", "http://10.0.0.1:5050", "--mesos-grace", "10s"}, "--mesos-grace is 10s: it must not be less than --alive-ttl (1m0s)"},
	} {
		code, stderr := runOnce(t, binary, append(test.args, "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0")...)
		if code != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit code %d:\n%s", test.args, code, stderr)
		}
	}
}

// mesosMaster is a Mesos master that a test tells which agents it has.
type mesosMaster struct {
	*httptest.Server
	mu      sync.Mutex
	agents  map[string]string // id to address
	streams map[chan string]bool
}

func newMesosMaster(t *testing.T) *mesosMaster {
	m := &mesosMaster{agents: map[string]string{}, streams: map[chan string]bool{}}
	m.Server = httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(m.Close)
	return m
}

func (m *mesosMaster) serve(w http.ResponseWriter, r *http.Request) {
	// Only then does the server notice that the caller goes away.
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	events := make(chan string, 100)
	m.mu.Lock()
	var list []string
	for id, ip := range m.agents {
		list = append(list, agentJSON(id, ip))
	}
	m.streams[events] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.streams, events)
	}()
	events <- `{"type":"SUBSCRIBED","subscribed":{"get_state":{"get_agents":{"agents":[` + strings.Join(list, ",") + `]}},"heartbeat_interval_seconds":15}}`
	for {
		select {
		case e := <-events:
			fmt.Fprintf(w, "%d\n%s", len(e), e)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func agentJSON(id, ip string) string {
	return fmt.Sprintf(`{"agent_info":{"id":{"value":%q}},"pid":"slave(1)@%s:5051"}`, id, ip)
}

func (m *mesosMaster) add(id, ip string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.agents[id] = ip
	for s := range m.streams {
		s <- `{"type":"AGENT_ADDED","agent_added":{"agent":` + agentJSON(id, ip) + `}}`
	}
}

func (m *mesosMaster) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.agents, id)
	for s := range m.streams {
		s <- fmt.Sprintf(`{"type":"AGENT_REMOVED","agent_removed":{"agent_id":{"value":%q}}}`, id)
	}
}

// status is agent ip's, and whether there is such an agent.
func (p *process) status(ip string) (s api.AgentStatus, ok bool) {
	p.t.Helper()
	code, body := p.get("/v1/agents/" + ip)
	var got api.AgentResponse
	if code == http.StatusOK {
		if err := json.NewDecoder(bytes.NewBufferString(body)).Decode(&got); err != nil {
			p.t.Fatal(err)
		}
	}
	return got.Status, code == http.StatusOK
}

// TestMesos: what Mesos says of agents outlives two restarts, one of which
// misses a removal.
func TestMesos(t *testing.T) {
	const missed, dead, living, docker, back = "127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.24", "127.0.0.25"
	binary, data := build(t), t.TempDir()
	m := newMesosMaster(t)
	const grace = 5 * time.Second
	begin := func() *process {
		return start(t, binary, "--data-dir", data, "--config", masterJSON, "--alive-ttl", "1s", "--mesos-master", m.URL, "--mesos-grace", grace.String())
	}
	stop := func(p *process) {
		t.Helper()
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Fatalf("SIGTERM: %v\n%s", err, &p.log)
		}
	}
	p := begin()
	for _, ip := range []string{missed, dead, living, docker, back} {
		a := &agent{ip: netip.MustParseAddr(ip)}
		c := a.client(t, p.base)
		if err := a.claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if ip != docker {
			m.add("id-"+ip, ip)
		}
	}
	gone := func(p *process, ip string) bool {
		s, ok := p.status(ip)
		return ok && !s.GoneSince.IsZero()
	}
	for _, ip := range []string{dead, living, back} {
		m.remove("id-" + ip)
		until(t, ip+" is gone", func() bool { return gone(p, ip) })
	}
	since, _ := p.status(dead)
	stop(p)

	m.remove("id-" + missed) // while nobody hears
	p = begin()
	if s, _ := p.status(dead); !s.GoneSince.Equal(since.GoneSince) {
		t.Errorf("after a restart it is gone since %s, not %s", s.GoneSince, since.GoneSince)
	}
	until(t, "what was missed is known", func() bool { return gone(p, missed) })
	m.add("id-"+back, back)
	until(t, "one is back", func() bool { return !gone(p, back) })
	stop(p)

	p = begin()
	a := &agent{ip: netip.MustParseAddr(living)}
	c := a.client(t, p.base)
	defer c.Close()
	until(t, "the dead are released", func() bool {
		if err := c.Report(t.Context(), a.ip, api.StatusRequest{}); err != nil {
			t.Fatal(err)
		}
		_, first := p.status(dead)
		_, other := p.status(missed)
		return !first && !other
	})
	if took := time.Since(since.GoneSince); took < grace {
		t.Errorf("released after %s", took)
	}
	for _, ip := range []string{living, docker, back} {
		if _, ok := p.status(ip); !ok {
			t.Errorf("%s is released", ip)
		}
	}
	if _, body := p.get("/metrics"); !strings.Contains(body, "dcos_overlay_coordinator_mesos_connected 1") || !strings.Contains(body, "dcos_overlay_coordinator_agents_gone 1") {
		t.Error("the metrics do not tell")
	}
	stop(p)
	if n := strings.Count(p.log.String(), "and is alive; it keeps what it holds"); n != 1 {
		t.Errorf("that one is spared is in the log %d times:\n%s", n, &p.log)
	}
}
