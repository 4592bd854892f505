package ipam

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"

	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

func home(n uint64) *Home {
	return &Home{Netns: sandbox.ID{Path: "/run/netns/x", Device: 4, Inode: n, Cookie: n, Boot: "b"}, HostIf: "dov1"}
}

func dualStack(t testing.TB) Pool {
	return Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25"), V6: side("fd01::/64")}
}

func settle(t testing.TB, p Pool, id string, h *Home) {
	t.Helper()
	if _, err := p.Reserve(t.Context(), owner(id), h, nil); err != nil {
		t.Fatal(err)
	}
}

// entries are all of the pool's as text, each with what is known of it.
func entries(t testing.TB, p Pool) (text []string, all []Entry) {
	t.Helper()
	all, err := p.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		known := " unknown"
		if e.Known {
			known = " known"
		}
		text = append(text, e.String()+known)
	}
	slices.Sort(text)
	return text, all
}

func want(t testing.TB, p Pool, lines ...string) []Entry {
	t.Helper()
	text, all := entries(t, p)
	if !slices.Equal(text, lines) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(text, "\n"), strings.Join(lines, "\n"))
	}
	return all
}

func records(t testing.TB, p Pool) int {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(p.dir(), recordsName))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(files)
}

func always(Entry) bool { return true }

func TestRecordComesAndGoesWithTheReservation(t *testing.T) {
	p := dualStack(t)
	settle(t, p, "a", home(1))
	all := want(t, p, "dcos: 9.0.1.2 of a/eth0 known", "dcos: fd01::2 of a/eth0 known")
	if all[0].Home != *home(1) || records(t, p) != 1 {
		t.Errorf("the record is %+v, one of %d", all[0].Home, records(t, p))
	}
	if err := p.Release(t.Context(), owner("a")); err != nil {
		t.Fatal(err)
	}
	want(t, p)
	if records(t, p) != 0 {
		t.Error("the record outlives the reservation")
	}
}

func TestFailedReservationLeavesNoRecord(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25"), V6: side("fd01::/126")}
	settle(t, p, "a", home(1))
	// IPv6 has one address; IPv4 has more, and gives its one back.
	settle(t, p, "b", home(2))
	if _, err := p.Reserve(t.Context(), owner("c"), home(3), nil); err == nil {
		t.Fatal("there is a third address")
	}
	if _, err := p.Reserve(t.Context(), owner("d"), home(4), []netip.Addr{netip.MustParseAddr("9.0.1.2")}); err == nil {
		t.Fatal("an address was given twice")
	}
	// A refused second ADD leaves the first one's as it is.
	if _, err := p.Reserve(t.Context(), owner("a"), home(5), nil); err == nil {
		t.Fatal("a second ADD was not refused")
	}
	all := want(t, p, "dcos: 9.0.1.2 of a/eth0 known", "dcos: 9.0.1.3 of b/eth0 known",
		"dcos: fd01::2 of a/eth0 known", "dcos: fd01::3 of b/eth0 known")
	for _, e := range all {
		if e.Owner == owner("a") && e.Home != *home(1) {
			t.Errorf("the record of a changed to %+v", e.Home)
		}
	}
	if records(t, p) != 2 {
		t.Errorf("there are %d records", records(t, p))
	}
}

// TestHostLocalWalksPastRecords uses host-local's own code on a store with
// records.
func TestHostLocalWalksPastRecords(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	settle(t, p, "a", home(1))
	theirs, err := disk.New("dcos", p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	data, err := os.ReadFile(filepath.Join(p.dir(), "9.0.1.2"))
	if err != nil || string(data) != "a\r\neth0" {
		t.Errorf("the reservation is %q, %v", data, err)
	}
	if ips := theirs.GetByID("a", "eth0"); len(ips) != 1 || !ips[0].Equal(net.ParseIP("9.0.1.2")) {
		t.Errorf("host-local finds %v", ips)
	}
	if ok, err := theirs.Reserve("b", "eth0", net.ParseIP("9.0.1.3"), "0"); !ok || err != nil {
		t.Fatalf("host-local can't reserve beside ours: %v, %v", ok, err)
	}
	want(t, p, "dcos: 9.0.1.2 of a/eth0 known", "dcos: 9.0.1.3 of b/eth0 unknown")
	if err := theirs.ReleaseByID("a", "eth0"); err != nil {
		t.Fatal(err)
	}
	want(t, p, "dcos: 9.0.1.3 of b/eth0 unknown", "dcos: record of a/eth0 known")
	// The record says nothing of what host-local then gives the same owner,
	// be it the same address.
	if ok, err := theirs.Reserve("a", "eth0", net.ParseIP("9.0.1.2"), "0"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	all := want(t, p, "dcos: 9.0.1.2 of a/eth0 unknown", "dcos: 9.0.1.3 of b/eth0 unknown", "dcos: record of a/eth0 known")
	var orphans []Entry
	for _, e := range all {
		if e.Known {
			orphans = append(orphans, e)
		}
	}
	if removed, err := p.Remove(t.Context(), orphans, always); err != nil || len(removed) != 1 {
		t.Fatalf("removed %v, %v", removed, err)
	}
	want(t, p, "dcos: 9.0.1.2 of a/eth0 unknown", "dcos: 9.0.1.3 of b/eth0 unknown")
	if records(t, p) != 0 {
		t.Error("the record without reservation is still there")
	}
}

func TestRemoveTakesOnlyWhatIsAsItWas(t *testing.T) {
	p := dualStack(t)
	settle(t, p, "a", home(1))
	settle(t, p, "b", home(2))
	_, seen := entries(t, p)
	// In between the container of a was detached, and attached again.
	if err := p.Release(t.Context(), owner("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Reserve(t.Context(), owner("a"), home(1), []netip.Addr{netip.MustParseAddr("9.0.1.2"), netip.MustParseAddr("fd01::2")}); err != nil {
		t.Fatal(err)
	}
	removed, err := p.Remove(t.Context(), seen, always)
	if err != nil || len(removed) != 2 {
		t.Fatalf("removed %v, %v", removed, err)
	}
	want(t, p, "dcos: 9.0.1.2 of a/eth0 known", "dcos: fd01::2 of a/eth0 known")

	_, seen = entries(t, p)
	if removed, err := p.Remove(t.Context(), seen, func(Entry) bool { return false }); err != nil || len(removed) != 0 {
		t.Errorf("removed what lives: %v, %v", removed, err)
	}
	// Of an owner with two addresses, one may go alone.
	if removed, err := p.Remove(t.Context(), seen[:1], always); err != nil || len(removed) != 1 || records(t, p) != 1 {
		t.Errorf("removed %v, %v, with %d records left", removed, err, records(t, p))
	}
	if removed, err := p.Remove(t.Context(), seen, always); err != nil || len(removed) != 1 || records(t, p) != 0 {
		t.Errorf("removed %v, %v, with %d records left", removed, err, records(t, p))
	}
}

func TestRecordsThatCanNotBeRead(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	settle(t, p, "a", home(1))
	settle(t, p, "b", nil)
	s := &store{dir: p.dir()}
	for _, text := range []string{"", "{", "[]", `{"container_id":"a","if_name":"eth0"}`} {
		if err := os.WriteFile(s.recordPath(owner("a")), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, p, "dcos: 9.0.1.2 of a/eth0 unknown", "dcos: 9.0.1.3 of b/eth0 unknown")
	}
	// A record under another's name is nobody's.
	settle(t, p, "c", home(3))
	if err := os.Rename(s.recordPath(owner("c")), s.recordPath(owner("b"))); err != nil {
		t.Fatal(err)
	}
	want(t, p, "dcos: 9.0.1.2 of a/eth0 unknown", "dcos: 9.0.1.3 of b/eth0 unknown", "dcos: 9.0.1.4 of c/eth0 unknown")
}

func TestStores(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	if got, err := Stores(filepath.Join(p.Dir, "absent")); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
	settle(t, p, "a", home(1))
	if err := os.Mkdir(filepath.Join(p.Dir, "no-store"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Stores(p.Dir); err != nil || !slices.Equal(got, []string{"dcos"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

// BenchmarkReserve is a reservation and its release, as ADD and DEL make them,
// with and without the look at the container's namespace and its record.
func BenchmarkReserve(b *testing.B) {
	for _, name := range []string{"bare", "recorded"} {
		b.Run(name, func(b *testing.B) {
			// The default place is a tmpfs.
			dir, err := os.MkdirTemp("/dev/shm", "ipam")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(dir)
			p := Pool{Dir: dir, Overlay: "dcos", V4: side("9.0.0.0/23")}
			for i := range 50 {
				settle(b, p, "other"+string(rune('A'+i)), home(uint64(i+1)))
			}
			for b.Loop() {
				var h *Home
				if name == "recorded" {
					where, err := sandbox.Identify("/proc/self/ns/net")
					if err != nil {
						b.Fatal(err)
					}
					h = &Home{Netns: where, HostIf: "dov123456789ab"}
				}
				settle(b, p, "a", h)
				if err := p.Release(b.Context(), owner("a")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
