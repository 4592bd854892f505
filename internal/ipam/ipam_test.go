package ipam

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/lease"
)

func side(prefixes ...string) (s lease.Side) {
	for _, p := range prefixes {
		s = append(s, netip.MustParsePrefix(p))
	}
	return s
}

func owner(id string) Owner { return Owner{id, "eth0"} }

func reserve(t testing.TB, p Pool, id string, requested ...string) ([]string, error) {
	t.Helper()
	var want []netip.Addr
	for _, r := range requested {
		want = append(want, netip.MustParseAddr(r))
	}
	got, err := p.Reserve(t.Context(), owner(id), nil, want)
	var out []string
	for _, a := range got {
		out = append(out, a.Prefix.String()+" via "+a.Gateway.String())
	}
	return out, err
}

func TestReserveBothFamilies(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25"), V6: side("fd01:b:0:0:1::/81")}
	got, err := reserve(t, p, "a")
	want := []string{"9.0.1.2/25 via 9.0.1.1", "fd01:b::1:0:0:2/81 via fd01:b::1:0:0:1"}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v; want %v", got, err, want)
	}
	held, err := p.Held(t.Context(), owner("a"))
	if err != nil || len(held) != 2 {
		t.Fatalf("held %v, %v", held, err)
	}
}

func TestSecondReserveIsRefusedAndHarmless(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	if _, err := reserve(t, p, "a"); err != nil {
		t.Fatal(err)
	}
	_, err := reserve(t, p, "a")
	var dup *DuplicateError
	if !errors.As(err, &dup) {
		t.Fatalf("got %v, want a DuplicateError", err)
	}
	if held, err := p.Held(t.Context(), owner("a")); err != nil || len(held) != 1 {
		t.Fatalf("the first reservation is gone: %v, %v", held, err)
	}
}

func TestRequestedAddress(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	if got, err := reserve(t, p, "a", "9.0.1.77"); err != nil || got[0] != "9.0.1.77/25 via 9.0.1.1" {
		t.Fatalf("got %v, %v", got, err)
	}
	for addr, reason := range map[string]string{
		"9.0.1.77":  "another container has it: a/eth0",
		"9.0.1.0":   "it is the network address of 9.0.1.0/25",
		"9.0.1.1":   "it is the gateway of 9.0.1.0/25",
		"9.0.1.127": "it is the broadcast address of 9.0.1.0/25",
		"9.0.2.5":   "this agent's addresses are of [9.0.1.0/25]",
		"fd01::1":   "this agent's addresses are of [9.0.1.0/25]",
	} {
		_, err := reserve(t, p, "b", addr)
		var req *RequestError
		if !errors.As(err, &req) || req.Reason != reason {
			t.Errorf("%s: got %v, want %q", addr, err, reason)
		}
	}
	if _, err := reserve(t, p, "b", "9.0.1.5", "9.0.1.6"); err == nil {
		t.Error("two addresses of one family were given to one container")
	}
	if held, _ := p.Held(t.Context(), owner("b")); len(held) != 0 {
		t.Errorf("refused requests left %v", held)
	}
}

func TestFixedAddress(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25"), V6: side("fd01:b:0:0:1::/81"),
		Fixed: side("9.0.255.0/24", "fd01:b:0:0:ffff::/80")}
	for _, tt := range []struct {
		id        string
		requested []string
		want      string
	}{
		{"a", []string{"9.0.255.7"}, "[9.0.255.7/32 via 9.0.1.1 fd01:b::1:0:0:2/81 via fd01:b::1:0:0:1] <nil>"},
		{"b", []string{"9.0.255.7"}, "[] overlay dcos: address 9.0.255.7 can't be given: another container has it: a/eth0 on this agent"},
		{"c", []string{"fd01:b:0:0:ffff::1", "9.0.255.0"}, "[9.0.255.0/32 via 9.0.1.1 fd01:b::ffff:0:0:1/128 via fd01:b::1:0:0:1] <nil>"},
		{"d", nil, "[9.0.1.2/25 via 9.0.1.1 fd01:b::1:0:0:3/81 via fd01:b::1:0:0:1] <nil>"},
		{"e", []string{"9.0.77.1"}, "[] overlay dcos: address 9.0.77.1 can't be given: this agent's addresses are of [9.0.1.0/25 fd01:b:0:0:1::/81], and fixed addresses, on any agent, are of [9.0.255.0/24 fd01:b:0:0:ffff::/80]"},
		{"e", []string{"9.0.255.1", "9.0.255.2"}, "[] overlay dcos: address 9.0.255.2 can't be given: one address of each family is all that a container gets"},
	} {
		got, err := reserve(t, p, tt.id, tt.requested...)
		if text := fmt.Sprint(got, " ", err); text != tt.want {
			t.Errorf("%s asks for %v: got %s,\nwant %s", tt.id, tt.requested, text, tt.want)
		}
	}
	p.V6 = nil
	if _, err := reserve(t, p, "f", "fd01:b:0:0:ffff::9"); err == nil {
		t.Error("an agent without IPv6 gives a fixed address of it")
	}
}

func TestExhaustion(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/29"), V6: side("fd01::/64")}
	for i := range 5 {
		if _, err := reserve(t, p, string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := reserve(t, p, "z")
	var full *ExhaustedError
	if !errors.As(err, &full) || full.Used != 5 || full.Capacity != 5 {
		t.Fatalf("got %v, want exhaustion with 5 of 5 in use", err)
	}
	for left, want := range map[int64]string{0: "all 16 of the overlay are leased", 3: "3 of the overlay's 16 subnets can still be claimed"} {
		knows := p
		knows.Unleased = func() (int64, int64, bool) { return left, 16, true }
		if err := knows.Available(t.Context()); !errors.As(err, &full) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if !strings.Contains(err.Error(), "9.0.1.0/29") || !strings.Contains(err.Error(), "dcos") {
		t.Errorf("the message does not name subnet and overlay: %v", err)
	}
	used, free, err := p.Usage(t.Context())
	if used != 5 || free != 0 || err != nil {
		t.Errorf("usage is %d used, %d free, %v", used, free, err)
	}
	if held, _ := p.Held(t.Context(), owner("z")); len(held) != 0 {
		t.Errorf("a refused container holds %v", held)
	}
	// The one that leaves makes room for exactly one.
	if err := p.Release(t.Context(), owner("c")); err != nil {
		t.Fatal(err)
	}
	if got, err := reserve(t, p, "z"); err != nil || got[0] != "9.0.1.4/29 via 9.0.1.1" {
		t.Errorf("got %v, %v; want the address that was freed", got, err)
	}
}

func TestAddressIsNotReusedAtOnce(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	first, err := reserve(t, p, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Release(t.Context(), owner("a")); err != nil {
		t.Fatal(err)
	}
	second, err := reserve(t, p, "b")
	if err != nil || first[0] == second[0] {
		t.Errorf("got %v again, %v", second, err)
	}
}

func TestReleaseOfNothing(t *testing.T) {
	p := Pool{Dir: filepath.Join(t.TempDir(), "absent"), Overlay: "dcos"}
	if err := p.Release(t.Context(), owner("a")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.Dir); err == nil {
		t.Error("a release made the store")
	}
}

func TestEmptyFileReservesNothing(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	if err := os.MkdirAll(p.dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir(), "9.0.1.2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := reserve(t, p, "a"); err != nil || got[0] != "9.0.1.2/25 via 9.0.1.1" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestHostLocalReadsOurStore uses host-local's own code on what we wrote, and
// the other way round.
func TestHostLocalReadsOurStore(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	if _, err := reserve(t, p, "a"); err != nil {
		t.Fatal(err)
	}
	theirs, err := disk.New("dcos", p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if !theirs.FindByID("a", "eth0") {
		t.Error("host-local does not find our reservation")
	}
	if ok, err := theirs.Reserve("b", "eth0", net.ParseIP("9.0.1.3"), "0"); !ok || err != nil {
		t.Fatalf("host-local can't reserve beside ours: %v, %v", ok, err)
	}
	if ok, _ := theirs.Reserve("b", "eth0", net.ParseIP("9.0.1.2"), "0"); ok {
		t.Error("host-local gave our address away")
	}
	if got, err := reserve(t, p, "c"); err != nil || got[0] != "9.0.1.4/25 via 9.0.1.1" {
		t.Errorf("got %v, %v; want the address after host-local's", got, err)
	}
	if err := p.Release(t.Context(), owner("b")); err != nil {
		t.Fatal(err)
	}
	if theirs.FindByID("b", "eth0") {
		t.Error("we did not release host-local's reservation")
	}
}

func TestParallelReservationsAreDistinct(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25"), V6: side("fd01::/64")}
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			got, err := reserve(t, p, string(rune('A'+i)))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for _, a := range got {
				seen[a]++
			}
		})
	}
	wg.Wait()
	if len(seen) != 120 {
		t.Errorf("60 containers have %d addresses, want 120", len(seen))
	}
}

func TestLockHasADeadline(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/25")}
	s, err := openStore(t.Context(), p.dir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Reserve(ctx, owner("a"), nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

// TestAgainstModel walks at random, and compares with a map.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ipam")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		p := Pool{Dir: dir, Overlay: "o", V4: side("10.0.0.0/29", "10.0.9.0/30"), V6: side("fd00::/125")}
		model := map[string][]Address{}
		ctx := context.Background()
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				id := rapid.StringMatching("[a-j]").Draw(t, "id")
				got, err := p.Reserve(ctx, owner(id), nil, nil)
				var dup *DuplicateError
				var full *ExhaustedError
				switch {
				case errors.As(err, &dup):
					if len(model[id]) == 0 {
						t.Fatalf("%s has nothing, and is a duplicate", id)
					}
				case errors.As(err, &full):
					// 5 + 1 of IPv4, 6 of IPv6.
					if len(model) < 6 {
						t.Fatalf("exhausted with %d containers", len(model))
					}
				case err != nil:
					t.Fatal(err)
				default:
					for other, addrs := range model {
						for _, a := range addrs {
							if slices.Contains(got, a) {
								t.Fatalf("%s got %s, which %s has", id, a.Prefix, other)
							}
						}
					}
					model[id] = got
				}
			},
			"release": func(t *rapid.T) {
				id := rapid.StringMatching("[a-j]").Draw(t, "id")
				if err := p.Release(ctx, owner(id)); err != nil {
					t.Fatal(err)
				}
				delete(model, id)
			},
			"": func(t *rapid.T) {
				used, free, err := p.Usage(ctx)
				if err != nil || used != int64(len(model)) || used+free != 6 {
					t.Fatalf("usage %d used, %d free, %v with %d containers", used, free, err, len(model))
				}
			},
		})
	})
}

// TestEarlierSubnetsComeFirst: so that the later ones become empty, and can be
// given back.
func TestEarlierSubnetsComeFirst(t *testing.T) {
	p := Pool{Dir: t.TempDir(), Overlay: "dcos", V4: side("9.0.1.0/29", "9.0.7.0/29"), V6: side("fd01:b::/80")}
	take := func(id, want string) {
		t.Helper()
		got, err := reserve(t, p, id)
		if err != nil || got[0] != want {
			t.Fatalf("%s got %v, %v; want %s", id, got, err, want)
		}
	}
	for i, want := range []string{"9.0.1.2/29 via 9.0.1.1", "9.0.1.3/29 via 9.0.1.1", "9.0.1.4/29 via 9.0.1.1",
		"9.0.1.5/29 via 9.0.1.1", "9.0.1.6/29 via 9.0.1.1", "9.0.7.2/29 via 9.0.7.1", "9.0.7.3/29 via 9.0.7.1"} {
		take(string(rune('a'+i)), want)
	}
	for subnet, want := range map[string]int64{"9.0.1.0/29": 5, "9.0.7.0/29": 2, "9.0.9.0/29": 0} {
		if n, err := p.Used(t.Context(), netip.MustParsePrefix(subnet)); n != want || err != nil {
			t.Errorf("%s has %d addresses in use, %v; want %d", subnet, n, err, want)
		}
	}
	if err := p.Release(t.Context(), owner("c")); err != nil {
		t.Fatal(err)
	}
	take("x", "9.0.1.4/29 via 9.0.1.1")
	if err := p.Release(t.Context(), owner("f")); err != nil {
		t.Fatal(err)
	}
	take("y", "9.0.7.4/29 via 9.0.7.1") // round-robin within the subnet
	if got, err := reserve(t, p, "z", "9.0.7.6"); err != nil || got[0] != "9.0.7.6/29 via 9.0.7.1" {
		t.Errorf("a requested address of a further subnet: %v, %v", got, err)
	}
	for _, id := range []string{"q", "r"} {
		if _, err := reserve(t, p, id); err != nil {
			t.Fatal(err)
		}
	}
	var full *ExhaustedError
	if _, err := reserve(t, p, "s"); !errors.As(err, &full) || full.Used != 10 || full.Capacity != 10 {
		t.Errorf("with all in use: %v", err)
	}
}
