package mesos

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// master is a Mesos master, as far as its event stream goes.
type master struct {
	*httptest.Server
	// answer is what it does with a subscription.
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
	asked  int
}

func newMaster(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *master {
	m := &master{answer: answer}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/api/v1" || body.String() != `{"type":"SUBSCRIBE"}` || r.Header.Get("Accept") != "application/json" {
			http.Error(w, "not a subscription", http.StatusBadRequest)
			return
		}
		m.mu.Lock()
		m.asked++
		answer := m.answer
		m.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *master) times() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// events answers with pieces, as chunks of their own, and then whatever comes
// from more, until that is closed or the caller goes away.
func events(more <-chan string, pieces ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		send := func(s string) {
			_, _ = w.Write([]byte(s))
			_ = http.NewResponseController(w).Flush()
		}
		for _, p := range pieces {
			send(p)
		}
		for {
			select {
			case s, ok := <-more:
				if !ok {
					return
				}
				send(s)
			case <-r.Context().Done():
				return
			}
		}
	}
}

func subscribed(heartbeat float64, recovered string, agents ...string) string {
	var list []string
	for _, a := range agents {
		list = append(list, agentJSON(a))
	}
	return record(fmt.Sprintf(`{"type":"SUBSCRIBED","subscribed":{"get_state":{"get_tasks":{"tasks":[{"a":1}]},"get_agents":{"agents":[%s],"recovered_agents":[%s]}},"heartbeat_interval_seconds":%g}}`,
		strings.Join(list, ","), recovered, heartbeat))
}

// agentJSON is of an agent written as id=address.
func agentJSON(a string) string {
	id, ip, _ := strings.Cut(a, "=")
	return fmt.Sprintf(`{"agent_info":{"hostname":"h","id":{"value":%q}},"active":true,"pid":"slave(1)@%s","version":"1.11.0"}`, id, netip.AddrPortFrom(netip.MustParseAddr(ip), 5051))
}

func added(a string) string {
	return record(fmt.Sprintf(`{"type":"AGENT_ADDED","agent_added":{"agent":%s}}`, agentJSON(a)))
}

func removed(id string) string {
	return record(fmt.Sprintf(`{"type":"AGENT_REMOVED","agent_removed":{"agent_id":{"value":%q}}}`, id))
}

// follow runs a follower until the test ends.
func follow(t *testing.T, o Options) (*Follower, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f, log
}

// words is what f says now.
func words(f *Follower) string {
	v, ok := f.View()
	if !ok {
		return "nothing"
	}
	list := func(m map[netip.Addr]string) string {
		var out []string
		for ip, id := range m {
			out = append(out, id+"="+ip.String())
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	return fmt.Sprintf("has %s, removed %s %v, recovering %v", list(v.Registered), list(v.Removed), slices.Sorted(maps.Keys(v.RemovedIDs)), slices.Sorted(maps.Keys(v.Recovered)))
}

func until(t *testing.T, f *Follower, want string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for words(f) != want {
		if time.Now().After(deadline) {
			t.Fatalf("it says  %s\nand want %s", words(f), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestFollow: what is said, however it is cut into chunks.
func TestFollow(t *testing.T) {
	more := make(chan string)
	first := subscribed(15, `{"id":{"value":"c"}},{"id":{"value":"d"}}`, "a=10.0.0.1", "b=10.0.0.2")
	m := newMaster(t, events(more, first[:2], first[2:3], first[3:80], first[80:]))
	f, _ := follow(t, Options{Masters: []string{m.URL}})
	until(t, f, "has a=10.0.0.1 b=10.0.0.2, removed  [], recovering [c d]")
	for _, s := range strings.SplitAfter(added("c=10.0.0.3")+record(`{"type":"HEARTBEAT"}`)+removed("a")+removed("d")+removed("never"), "e") {
		more <- s
	}
	until(t, f, "has b=10.0.0.2 c=10.0.0.3, removed a=10.0.0.1 [a d], recovering []")
	more <- added("a2=10.0.0.1") + added("e=fd00::1") + record(`{"type":"TASK_ADDED","task_added":{}}`)
	until(t, f, "has a2=10.0.0.1 b=10.0.0.2 c=10.0.0.3 e=fd00::1, removed a=10.0.0.1 [a d], recovering []")
	more <- removed("e")[:20]
	close(more) // in the midst of a record
	until(t, f, "nothing")
}

// TestBreaks: whatever ends a stream, nothing is known until the next one.
func TestBreaks(t *testing.T) {
	whole := subscribed(15, "", "a=10.0.0.1")
	for name, bad := range map[string]string{
		"no RecordIO":       "hello",
		"no JSON":           record("{"),
		"a huge record":     "9999999999\n",
		"no address":        record(`{"type":"AGENT_ADDED","agent_added":{"agent":{"agent_info":{"id":{"value":"x"}},"pid":"slave(1)"}}}`),
		"an end":            "",
		"half of an event":  removed("a")[:9],
		"nothing but a sum": "12",
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan string)
			close(ended)
			m := newMaster(t, events(ended, whole, bad))
			f, log := follow(t, Options{Masters: []string{m.URL}})
			until(t, f, "nothing")
			for m.times() < 2 {
				time.Sleep(5 * time.Millisecond)
			}
			_ = log
		})
	}
}

// TestSilentMaster: heartbeats that stay away end a stream.
func TestSilentMaster(t *testing.T) {
	m := newMaster(t, events(nil, subscribed(0.05, "", "a=10.0.0.1")))
	f, _ := follow(t, Options{Masters: []string{m.URL}})
	until(t, f, "has a=10.0.0.1, removed  [], recovering []")
	until(t, f, "nothing")
}

// TestLeader: any master leads to the leading one, with the credentials, and
// one that is away is passed over.
func TestLeader(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(secret, []byte(`{"principal": "p", "secret": "s"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	leader := newMaster(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "p" || password != "s" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		events(nil, subscribed(15, "", "a=10.0.0.1"))(w, r)
	})
	for name, location := range map[string]string{
		"a URL": leader.URL + "/api/v1", "without scheme": strings.TrimPrefix(leader.URL, "http:") + "/api/v1", "the host alone": strings.TrimPrefix(leader.URL, "http:"),
	} {
		t.Run(name, func(t *testing.T) {
			other := newMaster(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(http.StatusTemporaryRedirect)
			})
			f, _ := follow(t, Options{Masters: []string{"http://127.0.0.1:1", other.URL}, Credentials: secret})
			until(t, f, "has a=10.0.0.1, removed  [], recovering []")
		})
	}
}

// TestRefusals are told in words that help.
func TestRefusals(t *testing.T) {
	status := func(code int, text string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) }
	}
	var self *master
	self = newMaster(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", self.URL+"/api/v1")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	for _, test := range []struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string
	}{
		{status(401, "no"), "does not know who asks: set --mesos-credentials "},
		{status(403, "no"), "does not let this principal ask for events"},
		{status(503, "Master has not finished recovery"), "can't tell yet: Master has not finished recovery"},
		{status(500, "oh"), "answers 500 Internal Server Error: oh"},
		{status(200, "<html>"), "is this a Mesos master?"},
		{events(nil, record(`{"type":"HEARTBEAT"}`)), "does not begin with SUBSCRIBED"},
		{events(nil, record(`{"type":"SUBSCRIBED","subscribed":{}}`)), "does not begin with SUBSCRIBED"},
		{self.answer, "5 redirects lead to no leading master"},
	} {
		m := newMaster(t, test.answer)
		f, err := New(Options{Masters: []string{m.URL}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		began, err := f.follow(ctx, m.URL)
		cancel()
		if began || err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, %v; want %s", began, err, test.want)
		}
	}
}

func TestCheck(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte(`p s`), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []string{"http://10.0.0.1:5050", "https://leader.mesos:5050/"}
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{}, ""},
		{Options{Masters: good}, ""},
		{Options{Masters: []string{"zk://10.0.0.1:2181/mesos"}}, "ZooKeeper is not asked: name one or more masters by their http or https URLs"},
		{Options{Masters: []string{"10.0.0.1:5050"}}, "is not a URL"},
		{Options{Masters: []string{"http://u:p@10.0.0.1:5050"}}, "must be a URL as in http://10.0.0.1:5050"},
		{Options{Masters: good, Credentials: bad + "x"}, "read --mesos-credentials: open "},
		{Options{Masters: good, Credentials: bad}, `must hold {"principal": `},
		{Options{Masters: good, CA: bad}, "--mesos-ca " + bad + ": it holds no PEM certificate"},
		{Options{CA: bad}, "--mesos-credentials and --mesos-ca are of no use without --mesos-master"},
	} {
		err := test.o.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %q", test.o, err, test.want)
		}
	}
}
