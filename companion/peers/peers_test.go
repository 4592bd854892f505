package peers

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

func follower() *Follower { return New(slog.New(slog.DiscardHandler)) }

func set(rev int64, ip string) api.Event {
	return api.Event{Type: api.EventSet, Revision: rev, Agent: &lease.Agent{IP: netip.MustParseAddr(ip)}}
}

func feed(t *testing.T, f *Follower, events ...api.Event) {
	t.Helper()
	for _, e := range events {
		if err := f.apply(e); err != nil {
			t.Fatal(err)
		}
	}
}

func ips(f *Follower) (out []string) {
	for _, a := range f.View().Agents {
		out = append(out, a.IP.String())
	}
	return out
}

func signalled(f *Follower) bool {
	select {
	case <-f.Changed():
		return true
	default:
		return false
	}
}

func TestSnapshotTakesEffectWhole(t *testing.T) {
	f := follower()
	feed(t, f, api.Event{Type: api.EventSnapshot, Revision: 3},
		api.Event{Type: api.EventNetwork, Revision: 3, Network: &network.Network{VTEPMTU: 1400}}, set(3, "10.0.0.1"))
	if v := f.View(); v.Synced || len(v.Agents) != 0 || signalled(f) {
		t.Errorf("half a snapshot shows: %+v", v)
	}
	feed(t, f, set(3, "10.0.0.2"), api.Event{Type: api.EventSynced, Revision: 3})
	v := f.View()
	if !v.Synced || !v.Connected || v.Revision != 3 || v.Network.VTEPMTU != 1400 || len(v.Agents) != 2 || !signalled(f) {
		t.Errorf("got %+v", v)
	}
	// A second snapshot that breaks off leaves the first as it was.
	feed(t, f, api.Event{Type: api.EventSnapshot, Revision: 9}, set(9, "10.0.0.9"))
	f.disconnect()
	if got := ips(f); len(got) != 2 || got[0] != "10.0.0.1" || f.View().Connected || !f.View().Synced {
		t.Errorf("after a broken snapshot: %v", got)
	}
	// One that ends replaces it.
	feed(t, f, api.Event{Type: api.EventSnapshot, Revision: 9}, set(9, "10.0.0.9"), api.Event{Type: api.EventSynced, Revision: 9})
	if got := ips(f); len(got) != 1 || got[0] != "10.0.0.9" {
		t.Errorf("after a new snapshot: %v", got)
	}
}

func TestChangesFollow(t *testing.T) {
	f := follower()
	feed(t, f, api.Event{Type: api.EventSnapshot, Revision: 1}, api.Event{Type: api.EventSynced, Revision: 1}, set(2, "10.0.0.1"),
		set(3, "10.0.0.2"), api.Event{Type: api.EventDelete, Revision: 4, IP: netip.MustParseAddr("10.0.0.1")})
	v := f.View()
	if got := ips(f); len(got) != 1 || got[0] != "10.0.0.2" || v.Revision != 4 || !signalled(f) {
		t.Errorf("got %v at %d", got, v.Revision)
	}
}

type fakeStream func(since int64, epoch string, handle func(api.Event) error) error

func (s fakeStream) Watch(_ context.Context, since int64, epoch string, handle func(api.Event) error) error {
	return s(since, epoch, handle)
}

func TestRunResumesWhereItWas(t *testing.T) {
	f := follower()
	ctx, cancel := context.WithCancel(t.Context())
	var asked []int64
	f.Run(ctx, func() (Stream, error) {
		return fakeStream(func(since int64, epoch string, handle func(api.Event) error) error {
			asked = append(asked, since)
			if want := map[bool]string{true: "", false: "e1"}[since == 0]; epoch != want {
				t.Errorf("since %d asked for epoch %q, want %q", since, epoch, want)
			}
			if len(asked) == 3 {
				cancel()
				return context.Canceled
			}
			if since == 0 {
				return errors.Join(handle(api.Event{Type: api.EventSnapshot, Revision: 5}), handle(api.Event{Type: api.EventSynced, Revision: 5, Epoch: "e1"}), errors.New("cut"))
			}
			return errors.Join(handle(set(7, "10.0.0.1")), errors.New("cut"))
		}), nil
	})
	if len(asked) != 3 || asked[0] != 0 || asked[1] != 5 || asked[2] != 6 {
		t.Errorf("asked from %v", asked)
	}
}

// TestPingsTellHowFarItIs: etcd's revision grows with heartbeats, of which the
// stream tells nothing. Without that a picture would look older than an answer
// of that revision, for as long as nothing else happens.
func TestPingsTellHowFarItIs(t *testing.T) {
	f := follower()
	feed(t, f, api.Event{Type: api.EventSnapshot}, api.Event{Type: api.EventPing, Revision: 7})
	if v := f.View(); v.Revision != 0 {
		t.Errorf("a ping in a snapshot counts: %d", v.Revision)
	}
	feed(t, f, api.Event{Type: api.EventSynced, Revision: 3}, api.Event{Type: api.EventPing, Revision: 9}, api.Event{Type: api.EventPing, Revision: 8})
	if v := f.View(); v.Revision != 9 {
		t.Errorf("after a ping of revision 9 the picture is of %d", v.Revision)
	}
	if f.resume != 9 {
		t.Errorf("it would resume after %d, though nothing up to 9 is missing", f.resume)
	}
}
