package etcd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func openTiny(t *testing.T, quota int64) *Store {
	t.Helper()
	s, err := start(t.Context(), t.TempDir(), quota)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fill writes to key again and again until etcd takes no more.
func fill(t *testing.T, s *Store, key func(i int) string) {
	t.Helper()
	for i := range 1000 {
		_, err := s.Client.Put(t.Context(), key(i), strings.Repeat("x", 100<<10))
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the quota is not reached")
}

// TestFull: an etcd in this process that is full of history says so, and
// serves again by itself; one that is full of what it must keep says what to
// do.
func TestFull(t *testing.T) {
	s := openTiny(t, 4<<20)
	var log bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	fill(t, s, func(int) string { return "one" })
	s.health.learn(probe(t.Context(), s.Client, s.endpoints), s.log)
	// The last put is refused when it would not fit, with what it takes itself.
	if h := s.Health(); len(h.Alarms) != 1 || h.Alarms[0] != "NOSPACE" || h.Quota != 4<<20 || h.Bytes < 4<<20-200<<10 {
		t.Errorf("health is %+v", h)
	}
	if err := s.Trouble(); err == nil || !strings.HasPrefix(err.Error(), "etcd has alarm NOSPACE: ") {
		t.Errorf("trouble is %v", err)
	}
	if err := s.tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Put(t.Context(), "one", "y"); err != nil {
		t.Errorf("after upkeep: %v", err)
	}
	for range 2 {
		s.health.learn(probe(t.Context(), s.Client, s.endpoints), s.log)
	}
	if err := s.Trouble(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), `msg="etcd has an alarm"`); n != 1 || strings.Count(log.String(), "alarm is over") != 1 {
		t.Errorf("the log has the alarm %d times:\n%s", n, &log)
	}

	fill(t, s, func(i int) string { return strings.Repeat("k", i+1) })
	if err := s.tend(t.Context()); err == nil || !strings.Contains(err.Error(), "there is more to store than it may hold") {
		t.Errorf("full of data: %v", err)
	}
}

// TestHistoryGoesInTime: what history takes is given back before the quota is
// reached.
func TestHistoryGoesInTime(t *testing.T) {
	s := openTiny(t, 16<<20)
	for range 100 {
		if _, err := s.Client.Put(t.Context(), "one", strings.Repeat("x", 100<<10)); err != nil {
			t.Fatal(err)
		}
	}
	// Etcd counts what it has written when it commits it, which it does now
	// and then.
	for deadline := time.Now().Add(time.Minute); ; {
		status, err := s.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status.DbSizeInUse > 10<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("etcd has %d bytes in use, and 10 MB were written", status.DbSizeInUse)
		}
		wait(t.Context(), 10*time.Millisecond)
	}
	if err := s.tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Get(t.Context(), "one", clientv3.WithRev(2)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("old revisions are still there: %v", err)
	}
}

// TestSlim: a start gives back what a database has more of free than used.
func TestSlim(t *testing.T) {
	s := openTiny(t, quotaBytes)
	for range 80 {
		if _, err := s.Client.Put(t.Context(), "one", strings.Repeat("x", 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	before, err := s.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Compact(t.Context(), before.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if err := s.slim(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := s.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.DbSize > before.DbSize/4 {
		t.Errorf("it has %d bytes after a start, and had %d", after.DbSize, before.DbSize)
	}
}

func TestLeaderChanges(t *testing.T) {
	var h health
	log := slog.New(slog.DiscardHandler)
	for _, at := range []struct{ leader, term uint64 }{{1, 5}, {1, 5}, {2, 6}, {1, 5}, {0, 7}, {2, 7}, {3, 8}} {
		status := &etcdserverpb.StatusResponse{Leader: at.leader, RaftTerm: at.term}
		h.learn([]report{{status: (*clientv3.StatusResponse)(status), serves: at.leader != 0}, {}}, log)
	}
	if h.LeaderChanges != 2 || h.Members != 2 || h.Serving != 1 {
		t.Errorf("got %+v", h.Health)
	}
	if got := alarmsIn([]string{"etcdserver: no leader", (&etcdserverpb.AlarmMember{MemberID: 1, Alarm: etcdserverpb.AlarmType_CORRUPT}).String()}); len(got) != 1 || got[0] != "CORRUPT" {
		t.Errorf("alarms are %v", got)
	}
}

// TestTries: a call that a member does not answer is put to the next one; one
// that must not be made twice is not.
func TestTries(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "etcdserver: leader changed")
	for _, test := range []struct {
		method string
		first  func(ctx context.Context) error
		tries  int
		ok     bool
	}{
		{methodTxn, hang, 2, true},
		{methodRange, hang, 2, true},
		{methodGrant, hang, 2, true},
		{methodTxn, func(context.Context) error { return unavailable }, 2, true},
		{methodRange, func(context.Context) error { return unavailable }, 1, false},
		{methodTxn, func(context.Context) error { return rpctypes.ErrGRPCNoSpace }, 1, false},
		{"/etcdserverpb.Maintenance/Defragment", func(context.Context) error { return unavailable }, 1, false},
	} {
		c := &calls{trouble: newTrouble(Access{}), news: newNews()}
		tries := 0
		invoke := func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			if tries++; tries == 1 {
				return test.first(ctx)
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := c.unary(ctx, test.method, nil, nil, nil, invoke)
		cancel()
		if tries != test.tries || (err == nil) != test.ok {
			t.Errorf("%s: %d tries, %v", test.method, tries, err)
		}
	}
}

// TestNews: a call that waits for an answer is made anew when there are news,
// and not only when it has waited for long.
func TestNews(t *testing.T) {
	c := &calls{trouble: newTrouble(Access{}), news: newNews()}
	tries := 0
	err := c.unary(t.Context(), methodTxn, nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		if tries++; tries < 4 {
			c.news.tell()
			err := hang(ctx)
			if !errors.Is(ctx.Err(), context.Canceled) {
				t.Errorf("try %d has waited for its own end: %v", tries, ctx.Err())
			}
			return err
		}
		return nil
	})
	if err != nil || tries != 4 {
		t.Errorf("%d tries, %v", tries, err)
	}
}

// TestHangingMember: that a connection was closed by gRPC itself, to which
// nobody answered, is not taken for a member that speaks TLS.
func TestHangingMember(t *testing.T) {
	for text, want := range map[string]string{
		"read tcp 10.0.0.9:4->10.0.0.1:2379: use of closed network connection": "etcd at http://10.0.0.1:2379 does not answer in time: look at its members, ",
		"EOF": "etcd at http://10.0.0.1:2379 hangs up on plain HTTP: use https:// in --etcd if it speaks TLS: ",
	} {
		a := Access{Endpoints: []string{"http://10.0.0.1:2379"}}
		err, _ := a.explain(status.Error(codes.Unavailable, `connection error: desc = "error reading server preface: `+text+`"`))
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

// TestTroubleEnds: a failure is spoken of until a call of its kind succeeds,
// or for a while.
func TestTroubleEnds(t *testing.T) {
	now := time.Now()
	tr := newTrouble(Access{Endpoints: []string{"http://a:1"}, User: "u"})
	tr.now = func() time.Time { return now }
	ctx := t.Context()
	look := func(what, want string) {
		t.Helper()
		err := tr.error()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", what, err, want)
		}
	}
	tr.note(ctx, methodTxn, 0, rpctypes.ErrGRPCPermissionDenied)
	tr.note(ctx, methodRange, 0, nil)
	look("a read succeeds", "etcd does not let u read and write")
	tr.note(ctx, methodTxn, 0, nil)
	look("a write succeeds", "")
	tr.note(ctx, methodTxn, 5*time.Second, nil)
	look("a slow write", "etcd took 5s for one call, and a claim waits 4s at most")
	now = now.Add(troubleStays)
	look("later", "")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	tr.note(ended, methodTxn, 0, status.FromContextError(ended.Err()).Err())
	look("the caller went away", "")
}
