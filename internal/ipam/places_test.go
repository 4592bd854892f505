package ipam

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestNoted(t *testing.T) {
	places := filepath.Join(t.TempDir(), "places")
	if got := Noted(places, "/known"); !slices.Equal(got, []string{"/known"}) {
		t.Errorf("before anything is noted: %q", got)
	}
	for _, dir := range []string{"/a", "/b", "/a", "/known"} {
		if err := Note(places, dir); err != nil {
			t.Fatal(err)
		}
	}
	// What somebody else put there is no place.
	if err := os.WriteFile(filepath.Join(places, "stray"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got := Noted(places, "/known")
	slices.Sort(got)
	if !slices.Equal(got, []string{"/a", "/b", "/known"}) {
		t.Errorf("noted are %q", got)
	}
}

func TestAdopt(t *testing.T) {
	ctx := t.Context()
	pool := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.0.0/25")}
	who := owner("c1")
	if _, ok := pool.Home(who); ok {
		t.Error("a home is on record before there is a store")
	}
	// As host-local does it: without record.
	addrs, err := pool.Reserve(ctx, who, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	lives := home(7)
	lives.HostIf, lives.Network, lives.PortMapper = "dov1", "other", "/bin/portmap"
	if err := pool.Adopt(ctx, who, *lives); err != nil {
		t.Fatal(err)
	}
	if got, ok := pool.Home(who); !ok || got != *lives {
		t.Errorf("the home on record is %+v, %v", got, ok)
	}
	if _, ok := pool.Home(Owner{ContainerID: "c1", IfName: "eth1"}); ok {
		t.Error("another interface has a home on record")
	}
	entries, err := pool.Entries(ctx)
	if err != nil || len(entries) != 1 || !entries[0].Known || entries[0].Addr != addrs[0].Prefix.Addr() || entries[0].Home != *lives {
		t.Errorf("the entries are %+v, %v", entries, err)
	}
	if err := pool.Release(ctx, who); err != nil {
		t.Fatal(err)
	}
	if _, ok := pool.Home(who); ok {
		t.Error("a home is on record after the release")
	}
}
