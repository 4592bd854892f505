package allocator

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const quarantine = 10 * time.Minute

func at(minutes int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(minutes) * time.Minute)
}

func subnets(space string, bits int) *Pool {
	p := New()
	p.CutInto(netip.MustParsePrefix(space), bits, netip.Prefix{})
	return p
}

func hosts(space string) *Pool {
	p := New()
	p.HostsOf(netip.MustParsePrefix(space))
	return p
}

// lease does what a claim does with the pool: hold, write, drop.
func lease(t testing.TB, p *Pool, now time.Time) string {
	t.Helper()
	u, err := p.Hold(now, quarantine)
	if err != nil {
		t.Fatal(err)
	}
	p.Use(u)
	p.Unrelease(u)
	p.Drop(u)
	return u.String()
}

func release(p *Pool, unit string, since time.Time) {
	u := netip.MustParsePrefix(unit)
	p.Release(u, since)
	p.Unuse(u)
}

func TestLowestFirst(t *testing.T) {
	for _, test := range []struct {
		name string
		pool *Pool
		want []string
	}{
		{"IPv4", subnets("9.0.0.0/8", 24), []string{"9.0.0.0/24", "9.0.1.0/24", "9.0.2.0/24"}},
		{"IPv4 within a byte", subnets("10.1.0.0/24", 27), []string{"10.1.0.0/27", "10.1.0.32/27", "10.1.0.64/27"}},
		{"IPv6", subnets("fd01:b::/64", 80), []string{"fd01:b::/80", "fd01:b:0:0:1::/80", "fd01:b:0:0:2::/80"}},
		{"IPv6, wide", subnets("fd00::/8", 125), []string{"fd00::/125", "fd00::8/125", "fd00::10/125"}},
		{"hosts", hosts("44.128.0.0/20"), []string{"44.128.0.1/32", "44.128.0.2/32"}},
		{"hosts of IPv6", hosts("fd01:a::/64"), []string{"fd01:a::1/128", "fd01:a::2/128"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, want := range test.want {
				if got := lease(t, test.pool, at(0)); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
	}
}

func TestUsage(t *testing.T) {
	p := subnets("9.0.0.0/22", 24)
	check := func(want Usage) {
		t.Helper()
		if got := p.Usage(at(20), quarantine); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	check(Usage{Free: 4})
	p.Use(netip.MustParsePrefix("9.0.0.0/24"))
	release(p, "9.0.1.0/24", at(10)) // has rested
	release(p, "9.0.2.0/24", at(11))
	release(p, "9.0.3.0/26", at(11)) // of another cut
	check(Usage{Leased: 1, Resting: 1, Free: 2})
	p.Release(netip.MustParsePrefix("9.0.0.0/24"), at(19))
	check(Usage{Leased: 1, Resting: 1, Free: 2})
	p.Unuse(netip.MustParsePrefix("9.0.0.0/24"))
	check(Usage{Resting: 2, Free: 2})
	p.CutInto(netip.Prefix{}, 0, netip.Prefix{})
	check(Usage{})
	if got := hosts("44.128.0.0/29").Usage(at(0), quarantine); got != (Usage{Free: 6}) {
		t.Errorf("hosts: %+v", got)
	}
	if got := subnets("fd00::/8", 125).Usage(at(0), quarantine); got.Free != 0x1p117 {
		t.Errorf("a wide space: %+v", got)
	}
}

func TestExhausted(t *testing.T) {
	for _, test := range []struct {
		name string
		pool *Pool
		want []string
	}{
		{"at the end of the addresses", subnets("255.255.254.0/23", 24), []string{"255.255.254.0/24", "255.255.255.0/24"}},
		{"one unit", subnets("10.0.0.0/24", 24), []string{"10.0.0.0/24"}},
		{"hosts: neither network nor broadcast", hosts("10.0.0.8/30"), []string{"10.0.0.9/32", "10.0.0.10/32"}},
		{"no hosts", hosts("10.0.0.8/31"), nil},
		{"no shape", New(), nil},
		{"units longer than an address", subnets("10.0.0.0/24", 33), nil},
		{"units longer than the space", subnets("10.0.0.0/24", 23), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, want := range test.want {
				if got := lease(t, test.pool, at(0)); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			_, err := test.pool.Hold(at(0), quarantine)
			var e *ExhaustedError
			if !errors.As(err, &e) || e.Leased != len(test.want) || e.Resting != 0 {
				t.Errorf("got %v, want exhaustion with %d leased", err, len(test.want))
			}
		})
	}
}

func TestExhaustedMessage(t *testing.T) {
	p := subnets("10.0.0.0/23", 24)
	a, b := lease(t, p, at(0)), lease(t, p, at(0))
	release(p, b, at(3))
	_, err := p.Hold(at(4), quarantine)
	if want := "no free /24 of 10.0.0.0/23: 1 leased, 1 released and resting, the first until 2026-01-01T00:13:00Z"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	release(p, a, at(2))
	_, err = p.Hold(at(4), quarantine)
	if want := "no free /24 of 10.0.0.0/23: 0 leased, 2 released and resting, the first until 2026-01-01T00:12:00Z"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestReleasedOrder: never-used units come before released ones, and of those
// the one released longest ago, once it has rested.
func TestReleasedOrder(t *testing.T) {
	p := subnets("10.0.0.0/22", 24)
	for range 3 {
		lease(t, p, at(0))
	}
	release(p, "10.0.1.0/24", at(1))
	release(p, "10.0.0.0/24", at(2))
	release(p, "10.0.2.0/24", at(2))
	for _, want := range []string{"10.0.3.0/24", "10.0.1.0/24", "10.0.0.0/24", "10.0.2.0/24"} {
		if got := lease(t, p, at(60)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	release(p, "10.0.0.0/24", at(70))
	if u, err := p.Hold(at(80).Add(-time.Nanosecond), quarantine); err == nil {
		t.Errorf("got %s before its quarantine has passed", u)
	}
	if got := lease(t, p, at(80)); got != "10.0.0.0/24" {
		t.Errorf("got %s once its quarantine has passed", got)
	}
}

func TestHeldIsKeptFromOthers(t *testing.T) {
	p := subnets("10.0.0.0/22", 24)
	first, _ := p.Hold(at(0), quarantine)
	if got := lease(t, p, at(0)); got != "10.0.1.0/24" {
		t.Errorf("beside a hold: got %s", got)
	}
	p.Drop(first)
	if got := lease(t, p, at(0)); got != "10.0.0.0/24" {
		t.Errorf("after the hold failed: got %s, want the lowest again", got)
	}
	release(p, "10.0.0.0/24", at(0))
	release(p, "10.0.1.0/24", at(1))
	lease(t, p, at(60))
	lease(t, p, at(60))
	oldest, err := p.Hold(at(60), quarantine)
	if err != nil || oldest.String() != "10.0.0.0/24" {
		t.Fatalf("got %s, %v", oldest, err)
	}
	if got := lease(t, p, at(60)); got != "10.0.1.0/24" {
		t.Errorf("beside a held released unit: got %s", got)
	}
	p.Drop(oldest)
	if got := lease(t, p, at(60)); got != "10.0.0.0/24" {
		t.Errorf("after the hold failed: got %s", got)
	}
}

// TestShapeAfterUse: what is used may be known before the space is.
func TestShapeAfterUse(t *testing.T) {
	p := New()
	p.Use(netip.MustParsePrefix("10.0.0.0/24"))
	p.Release(netip.MustParsePrefix("10.0.1.0/24"), at(0))
	p.CutInto(netip.MustParsePrefix("10.0.0.0/16"), 24, netip.Prefix{})
	if got := lease(t, p, at(0)); got != "10.0.2.0/24" {
		t.Errorf("got %s", got)
	}
}

// TestForgotten: a unit of which every trace is removed counts as never used.
func TestForgotten(t *testing.T) {
	p := subnets("10.0.0.0/16", 24)
	for range 5 {
		lease(t, p, at(0))
	}
	p.Unuse(netip.MustParsePrefix("10.0.2.0/24"))
	if got := lease(t, p, at(0)); got != "10.0.2.0/24" {
		t.Errorf("got %s", got)
	}
}

// TestWalk compares the pool with a plain model in random histories.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const units = 8
		p := subnets("10.0.0.0/21", 24)
		all := make([]netip.Prefix, units)
		for i := range all {
			all[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)
		}
		now, space := at(0), p.space
		used, held := map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
		released := map[netip.Prefix]time.Time{}

		// next is what must come next, by looking at everything.
		next := func() netip.Prefix {
			var best netip.Prefix
			for _, u := range all {
				since, was := released[u]
				if used[u] || held[u] || !space.IsValid() || !space.Overlaps(u) {
					continue
				}
				if !was {
					return u
				}
				if now.Sub(since) >= quarantine && (!best.IsValid() || since.Before(released[best])) {
					best = u
				}
			}
			return best
		}
		// pick is one of from, or no unit if there is none.
		pick := func(from map[netip.Prefix]bool, label string) netip.Prefix {
			var some []netip.Prefix
			for _, u := range all {
				if from[u] {
					some = append(some, u)
				}
			}
			if len(some) == 0 {
				return netip.Prefix{}
			}
			return rapid.SampledFrom(some).Draw(t, label)
		}
		t.Repeat(map[string]func(*rapid.T){
			"hold": func(t *rapid.T) {
				want := next()
				got, err := p.Hold(now, quarantine)
				if got != want || (err == nil) != want.IsValid() {
					t.Fatalf("got %s (%v), want %s", got, err, want)
				}
				if err == nil {
					held[got] = true
				}
			},
			"succeed": func(*rapid.T) {
				u := pick(held, "unit")
				if !u.IsValid() {
					return
				}
				p.Use(u)
				p.Unrelease(u)
				p.Drop(u)
				delete(held, u)
				delete(released, u)
				used[u] = true
			},
			"fail": func(*rapid.T) {
				u := pick(held, "unit")
				if !u.IsValid() {
					return
				}
				p.Drop(u)
				delete(held, u)
			},
			"release": func(*rapid.T) {
				u := pick(used, "unit")
				if !u.IsValid() {
					return
				}
				p.Release(u, now)
				p.Unuse(u)
				delete(used, u)
				released[u] = now
			},
			"wait": func(t *rapid.T) {
				// A clock may be set back.
				now = now.Add(time.Duration(rapid.IntRange(-2, 7).Draw(t, "minutes")) * time.Minute)
			},
			"forget": func(t *rapid.T) {
				u := rapid.SampledFrom(all).Draw(t, "unit")
				if used[u] || held[u] {
					return
				}
				p.Unrelease(u)
				delete(released, u)
			},
			"cut": func(t *rapid.T) {
				space = rapid.SampledFrom([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/21"), netip.MustParsePrefix("10.0.0.0/22"), {}}).Draw(t, "space")
				p.CutInto(space, 24, netip.Prefix{})
			},
			"count": func(t *rapid.T) {
				var want Usage
				for _, u := range all {
					since, was := released[u]
					switch {
					case !space.IsValid() || !space.Overlaps(u):
					case used[u]:
						want.Leased++
					case was && now.Sub(since) < quarantine:
						want.Resting++
					default:
						want.Free++
					}
				}
				if got := p.Usage(now, quarantine); got != want {
					t.Fatalf("usage is %+v, want %+v", got, want)
				}
			},
			"": func(t *rapid.T) {
				if len(p.used) != len(used) || len(p.released) != len(released) || len(p.held) != len(held) {
					t.Fatalf("pool has %d/%d/%d, want %d/%d/%d", len(p.used), len(p.released), len(p.held), len(used), len(released), len(held))
				}
			},
		})
	})
}

// TestEverySubnet: all of 9.0.0.0/8 is leased, each subnet once and in order,
// and then it is said that there is no more.
func TestEverySubnet(t *testing.T) {
	const all = 1 << 16
	p := subnets("9.0.0.0/8", 24)
	for i := range all {
		want := netip.PrefixFrom(netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i)}), 24)
		if got := lease(t, p, at(0)); got != want.String() {
			t.Fatalf("subnet %d is %s, want %s", i, got, want)
		}
	}
	_, err := p.Hold(at(0), quarantine)
	if want := "no free /24 of 9.0.0.0/8: 65536 leased, none resting"; err == nil || err.Error() != want {
		t.Errorf("one too many: %v, want %s", err, want)
	}
	var e *ExhaustedError
	if !errors.As(err, &e) || e.Leased != all || e.Held != 0 {
		t.Errorf("one too many: %+v", e)
	}
	release(p, "9.1.2.0/24", at(0))
	if got := lease(t, p, at(10)); got != "9.1.2.0/24" {
		t.Errorf("when one has rested: got %s", got)
	}
}

func BenchmarkLease(b *testing.B) {
	p := subnets("fd01:b::/64", 96)
	for b.Loop() {
		lease(b, p, at(0))
	}
}
