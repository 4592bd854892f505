package agentstate

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

func newDir(t *testing.T) Dir {
	base := t.TempDir()
	return Dir{State: filepath.Join(base, "state"), Run: filepath.Join(base, "run")}
}

func sample() *Held {
	return &Held{
		Agent: lease.Agent{
			ID: "x", IP: netip.MustParseAddr("172.17.0.4"),
			VTEP:   lease.VTEP{IP: netip.MustParsePrefix("44.128.0.2/20"), MAC: network.MAC{0x70, 0xb3, 0xd5, 0x80, 0, 2}},
			Config: lease.DefaultNetworkConfig(),
			Overlays: []lease.Overlay{{
				Name: "dcos", Subnets: []netip.Prefix{netip.MustParsePrefix("9.0.1.0/24")},
				State: lease.State{Status: lease.StatusOK},
			}},
		},
		Network: network.Network{
			VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"), VTEPMACOUI: "70:B3:D5:00:00:00",
			Overlays: []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24}},
		},
		Revision: 7,
	}
}

func TestLeaseOutlivesTheProcess(t *testing.T) {
	d := newDir(t)
	if h, err := d.Held(); h != nil || err != nil {
		t.Fatalf("an agent without lease has %v, %v", h, err)
	}
	want := sample()
	if err := d.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := d.Held()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := errors.Join(d.Forget(), d.Forget()); err != nil {
		t.Fatal(err)
	}
	if h, err := d.Held(); h != nil || err != nil {
		t.Fatalf("a forgotten lease is %v, %v", h, err)
	}
}

// TestCurrent: a lease that was replaced after it was read is seen, also where
// the file has an old one's content.
func TestCurrent(t *testing.T) {
	d := newDir(t)
	first := sample()
	if d.Current(first) {
		t.Error("a lease that was never written is current")
	}
	if err := d.Save(first); err != nil {
		t.Fatal(err)
	}
	read, err := d.Held()
	if err != nil {
		t.Fatal(err)
	}
	if !d.Current(first) || !d.Current(read) {
		t.Error("what was just written and read is not current")
	}
	if err := d.Save(sample()); err != nil {
		t.Fatal(err)
	}
	if d.Current(first) || d.Current(read) {
		t.Error("a lease that was replaced is current")
	}
	if err := d.Forget(); err != nil {
		t.Fatal(err)
	}
	if d.Current(read) {
		t.Error("a lease that was removed is current")
	}
}

func TestBrokenLeaseNamesTheFile(t *testing.T) {
	d := newDir(t)
	for _, text := range []string{"", "{", "{}", `{"agent":{"ip":"x"}}`} {
		if err := d.Save(sample()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.leasePath(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Held(); err == nil || !strings.Contains(err.Error(), d.leasePath()) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestIDIsMadeOnce(t *testing.T) {
	d := newDir(t)
	one, err := d.ID()
	if err != nil || len(one) != 32 {
		t.Fatalf("got %q, %v", one, err)
	}
	if two, err := d.ID(); err != nil || two != one {
		t.Errorf("got %q after %q, %v", two, one, err)
	}
	if other, err := newDir(t).ID(); err != nil || other == one {
		t.Errorf("another agent has %q as well, %v", other, err)
	}
}

func TestLockExcludesAndEnds(t *testing.T) {
	d := newDir(t)
	unlock, err := d.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := d.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock gave %v", err)
	}
	unlock()
	again, err := d.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestCompanionIsSeen(t *testing.T) {
	d := newDir(t)
	if d.CompanionRuns() {
		t.Error("a companion is seen where none ever ran")
	}
	unlock, err := d.LockCompanion()
	if err != nil {
		t.Fatal(err)
	}
	if !d.CompanionRuns() {
		t.Error("the companion is not seen")
	}
	if _, err := d.LockCompanion(); err == nil {
		t.Error("two companions run")
	}
	unlock()
	if d.CompanionRuns() {
		t.Error("a companion is seen after its end")
	}
}

func TestReadyMarks(t *testing.T) {
	d := newDir(t)
	if d.Ready("dcos") {
		t.Error("ready before the start")
	}
	if marked, err := d.Marked(); err != nil || len(marked) != 0 {
		t.Errorf("marked before the start are %q, %v", marked, err)
	}
	if err := d.MarkReady("dcos"); err != nil || !d.Ready("dcos") || d.Ready("other") {
		t.Errorf("marking failed: %v", err)
	}
	if marked, err := d.Marked(); err != nil || !slices.Equal(marked, []string{"dcos"}) {
		t.Errorf("marked are %q, %v", marked, err)
	}
	if err := errors.Join(d.UnmarkReady("dcos"), d.UnmarkReady("dcos")); err != nil || d.Ready("dcos") {
		t.Errorf("unmarking failed: %v", err)
	}
}

func TestPeersAreKept(t *testing.T) {
	d := newDir(t)
	if p, err := d.Peers(); p != nil || err != nil {
		t.Fatalf("got %v, %v", p, err)
	}
	want := []lease.Agent{sample().Agent}
	if err := d.SavePeers(want); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Peers(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWritable(t *testing.T) {
	d := newDir(t)
	if err := d.Writable(); err != nil {
		t.Errorf("a directory that is to be made: %v", err)
	}
	// Nobody can make a directory there, root neither.
	d.State = "/proc/sys/none/state"
	if err := d.Writable(); err == nil {
		t.Errorf("%s counts as writable", d.State)
	}
	d.State = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(d.State, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.State = filepath.Join(d.State, "state")
	if err := d.Writable(); err == nil {
		t.Error("a directory below a file counts as writable")
	}
}
