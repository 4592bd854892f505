package firewall

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

// host is a fresh network namespace, which the test's thread is in, with the
// iptables programs of one flavour.
type host struct {
	t        *testing.T
	firewall *Firewall
}

// flavours are the two kinds of iptables that Debian installs side by side.
var flavours = []string{"nft", "legacy"}

func eachFlavour(t *testing.T, f func(*testing.T, host)) {
	for _, flavour := range flavours {
		t.Run(flavour, func(t *testing.T) { f(t, newHost(t, flavour)) })
	}
}

func newHost(t *testing.T, flavour string) host {
	t.Helper()
	newNamespace(t)
	dir := t.TempDir()
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(program + "-" + flavour + verb)
			if err != nil {
				t.Fatalf("the test needs both flavours of iptables: %v", err)
			}
			if err := os.Symlink(path, filepath.Join(dir, program+verb)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return host{t, &Firewall{Path: dir}}
}

// newNamespace puts the test's goroutine into a fresh network namespace until
// the test ends. Processes that it starts are in it too, for they are forked
// from the same thread.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("making a network namespace (the test must be root's): %v", err)
	}
	t.Cleanup(func() {
		if err := netns.Set(before); err != nil {
			// The thread stays locked, and dies with the test's goroutine.
			t.Errorf("going back to the test's own namespace: %v", err)
			return
		}
		ns.Close()
		before.Close()
		runtime.UnlockOSThread()
	})
	return ns
}

// do runs a command line of iptables or ip6tables, which must succeed.
func (h host) do(line string) {
	h.t.Helper()
	if out, err := h.try(line); err != nil {
		h.t.Fatalf("%s: %v: %s", line, err, out)
	}
}

func (h host) try(line string) (string, error) {
	ws := words(line)
	out, err := exec.Command(filepath.Join(h.firewall.Path, ws[0]), append([]string{"-w", "5"}, ws[1:]...)...).CombinedOutput()
	return string(out), err
}

var varying = regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]$`)

// rules is everything that both families hold, less what changes by itself.
func (h host) rules() string {
	h.t.Helper()
	var b strings.Builder
	for _, fam := range families {
		text, err := h.firewall.save(context.Background(), fam)()
		if err != nil {
			h.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n%s", fam.program, varying.ReplaceAllString(text, ""))
	}
	return b.String()
}

// foreign are the rules that are not ours. Empty tables are left out: reading
// or writing ours creates them.
func (h host) foreign() string {
	var out []string
	for line := range strings.Lines(h.rules()) {
		if !strings.Contains(line, prefix) {
			out = append(out, line)
		}
	}
	text := strings.Join(out, "")
	for _, empty := range []string{
		"*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n",
		"*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n",
	} {
		text = strings.ReplaceAll(text, empty, "")
	}
	return text
}

// peers makes the set of peers that the rules of c need; it may be there.
func (h host) peers(c Config, addrs ...string) {
	h.t.Helper()
	for _, v6 := range []bool{false, true} {
		if !c.Filter.in(v6) {
			continue
		}
		var list []netip.Addr
		for _, a := range addrs {
			list = append(list, netip.MustParseAddr(a))
		}
		if _, err := peerset.Of(v6).Sync(context.Background(), list); err != nil {
			h.t.Fatal(err)
		}
	}
}

// sets names the sets of peers that are there.
func (h host) sets() string {
	h.t.Helper()
	var names []string
	for _, v6 := range []bool{false, true} {
		there, err := peerset.Of(v6).Exists()
		if err != nil {
			h.t.Fatal(err)
		}
		if there {
			names = append(names, peerset.Of(v6).Name)
		}
	}
	return strings.Join(names, " ")
}

func (h host) apply(c Config) []string {
	h.t.Helper()
	repairs, err := h.firewall.Apply(context.Background(), c)
	if err != nil {
		h.t.Fatal(err)
	}
	return repairs
}

// settled fails the test unless everything is as c asks for.
func (h host) settled(c Config) {
	h.t.Helper()
	problems, err := h.firewall.Check(context.Background(), c)
	if err != nil || len(problems) != 0 {
		h.t.Fatalf("Check after Apply: %q, %v; the rules are\n%s", problems, err, h.rules())
	}
	before := h.rules()
	if repairs := h.apply(c); len(repairs) != 0 {
		h.t.Fatalf("a second Apply repaired %q; the rules are\n%s", repairs, before)
	}
	if after := h.rules(); after != before {
		h.t.Fatalf("a second Apply made\n%s\nof\n%s", after, before)
	}
}

func TestGoldenIsWhatIptablesReads(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.file, func(t *testing.T) {
			eachFlavour(t, func(t *testing.T, h host) {
				text, err := os.ReadFile(filepath.Join("testdata", g.file))
				if err != nil {
					t.Fatal(err)
				}
				h.peers(g.config)
				fam := families[0]
				if g.v6 {
					fam = families[1]
				}
				for _, args := range [][]string{{"--noflush", "--test"}, {"--noflush"}} {
					if _, err := h.firewall.exec(context.Background(), fam.program+"-restore", string(text), args...); err != nil {
						t.Fatalf("%s: %v", g.file, err)
					}
				}
				changes, err := look(context.Background(), fam, Want(g.config, g.v6), h.firewall.save(context.Background(), fam))
				if err != nil || len(changes) != 0 {
					t.Errorf("what %s made is not what is wanted: %+v, %v", g.file, changes, err)
				}
			})
		})
	}
}

func TestApplyAndRemove(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		ctx := context.Background()
		if err := h.firewall.Remove(ctx); err != nil {
			t.Fatalf("removing from an empty host: %v", err)
		}
		empty := h.rules()

		c := ConfigOf(testNetwork())
		problems, err := h.firewall.Check(ctx, c)
		if err != nil || len(problems) == 0 {
			t.Errorf("Check of an empty host: %q, %v", problems, err)
		}
		if got := h.rules(); got != empty {
			t.Errorf("Check made\n%s\nof\n%s", got, empty)
		}
		repairs := h.apply(c)
		if strings.Join(repairs, "\n") != strings.Join(problems, "\n") {
			t.Errorf("Apply repaired %q, Check had found %q", repairs, problems)
		}
		h.settled(c)

		// The IPv6 overlays go, and their rules with them.
		n := testNetwork()
		n.Overlays = n.Overlays[:1]
		h.apply(ConfigOf(n))
		h.settled(ConfigOf(n))
		if _, after, _ := strings.Cut(h.rules(), "ip6tables\n"); strings.Contains(after, prefix) {
			t.Errorf("IPv6 rules of an IPv4 network:\n%s", after)
		}

		withFilter := filtered(ConfigOf(n), FilterIPv6)
		h.peers(withFilter)
		h.apply(withFilter)
		h.settled(withFilter)

		for range 2 {
			if err := h.firewall.Remove(ctx); err != nil {
				t.Fatal(err)
			}
			if got := h.rules(); strings.Contains(got, prefix) || h.sets() != "" {
				t.Errorf("Remove left\n%s\nand sets %s", got, h.sets())
			}
		}
	})
}

// TestFilterFollowsTheUnderlay goes through all filters and back.
func TestFilterFollowsTheUnderlay(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		base := ConfigOf(testNetwork())
		for _, step := range []struct {
			filter Filter
			sets   string
		}{
			{FilterAsIs, ""}, {FilterIPv4, peerset.Name4}, {FilterAsIs, peerset.Name4}, {FilterIPv6, peerset.Name6},
			{FilterIPv4, peerset.Name4}, {FilterOff, ""}, {FilterAsIs, ""}, {FilterIPv6, peerset.Name6}, {FilterOff, ""},
		} {
			c := filtered(base, step.filter)
			h.peers(c)
			h.apply(c)
			h.settled(c)
			if got := h.sets(); got != step.sets {
				t.Fatalf("after filter %d the sets are %q, want %q", step.filter, got, step.sets)
			}
			if got := strings.Count(h.rules(), "-A INPUT -j "+chainInput+"\n"); got != len(strings.Fields(step.sets)) {
				t.Fatalf("after filter %d there are %d filters:\n%s", step.filter, got, h.rules())
			}
		}
	})
}

// TestFilterWithoutItsSet: a caller that gets an error
// for the filter's sake leaves it as it is, and has all else.
func TestFilterWithoutItsSet(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		c := filtered(ConfigOf(testNetwork()), FilterIPv4)
		if _, err := h.firewall.Apply(context.Background(), c); err == nil || !strings.Contains(err.Error(), peerset.Name4) {
			t.Errorf("the error is %v", err)
		}
		c.Filter = FilterAsIs
		h.apply(c)
		h.settled(c)
	})
}

func TestDockerComesLater(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		c := ConfigOf(testNetwork())
		h.apply(c)
		for _, line := range []string{
			"iptables -P FORWARD DROP",
			"iptables -N DOCKER-ISOLATION-STAGE-1",
			"iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1",
			"iptables -N DOCKER-USER",
			"iptables -A DOCKER-USER -j RETURN",
			"iptables -I FORWARD -j DOCKER-USER",
		} {
			h.do(line)
		}
		repairs := h.apply(c)
		const want = "iptables filter: the jump to DCOS-OVERLAY-FORWARD was in FORWARD and belongs in DOCKER-USER"
		if len(repairs) != 1 || repairs[0] != want {
			t.Errorf("repairs are %q, want %q", repairs, want)
		}
		h.settled(c)
		got := h.rules()
		for rule, n := range map[string]int{
			"-A DOCKER-USER -j DCOS-OVERLAY-FORWARD\n-A DOCKER-USER -j RETURN\n":  1,
			"-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n": 1,
			"-j DCOS-OVERLAY-FORWARD\n": 2, // one in each family
		} {
			if strings.Count(got, rule) != n {
				t.Errorf("%q is not there %d times in\n%s", rule, n, got)
			}
		}
	})
}

// TestRandomOrder lets a random sequence of things happen that other programs
// and people do, and after each of them wants everything back.
func TestRandomOrder(t *testing.T) {
	const steps = 80
	eachFlavour(t, func(t *testing.T, h host) {
		// Commands that fail where there is nothing to do are tried only.
		disorders := [][]string{
			{"iptables -F DCOS-OVERLAY-FORWARD"},
			{"iptables -t nat -F DCOS-OVERLAY-MASQ"},
			{"iptables -t nat -F", "iptables -t nat -X"},
			{"iptables -F", "iptables -X", "ip6tables -F", "ip6tables -X"},
			{"ip6tables -t nat -F POSTROUTING"},
			{"iptables -D FORWARD -j DCOS-OVERLAY-FORWARD"},
			{"iptables -D DOCKER-USER -j DCOS-OVERLAY-FORWARD"},
			{"iptables -A FORWARD -j DCOS-OVERLAY-FORWARD"},
			{"ip6tables -A FORWARD -i eth0 -j DCOS-OVERLAY-FORWARD"},
			{"iptables -t nat -D POSTROUTING -j DCOS-OVERLAY-MASQ"},
			{"iptables -A OUTPUT -j DCOS-OVERLAY-TO-SPACE"},
			{"iptables -I DCOS-OVERLAY-FORWARD -j DROP"},
			{"ip6tables -t nat -D DCOS-OVERLAY-MASQ 2"},
			{"iptables -N DCOS-OVERLAY-OLD", "iptables -A DCOS-OVERLAY-OLD -j DROP", "iptables -I INPUT -s 1.2.3.4 -j DCOS-OVERLAY-OLD"},
			{"iptables -I FORWARD -s 6.6.6.6 -j DROP"},
			{"iptables -I FORWARD -j LOG --log-prefix \"over \""},
			{"iptables -I DOCKER-USER -i eth0 ! -s 192.0.2.0/24 -j DROP"},
			{"ip6tables -I FORWARD -m comment --comment \"as -j DCOS has\" -j REJECT"},
			{"iptables -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"},
			{"iptables -N DOCKER-USER", "iptables -A DOCKER-USER -j RETURN"},
			{"iptables -N DOCKER-USER", "iptables -D FORWARD -j DOCKER-USER", "iptables -I FORWARD -j DOCKER-USER"},
			{"iptables -D FORWARD -j DOCKER-USER"},
			{"ip6tables -N DOCKER-USER", "ip6tables -I FORWARD -j DOCKER-USER"},
			{"iptables -P FORWARD DROP"},
			{"iptables -P FORWARD ACCEPT"},
			{"iptables -F INPUT"},
			{"iptables -F DCOS-OVERLAY-INPUT"},
			{"ip6tables -I INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"},
			{"iptables -I INPUT -p udp --dport 64000 -j ACCEPT"},
			{"iptables -I INPUT -s 6.6.6.6 -j DROP"},
			{"iptables -A INPUT -i eth0 -j DCOS-OVERLAY-INPUT"},
		}
		late := ConfigOf(network.Network{
			VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"),
			Overlays:   []network.Overlay{{Name: "late", Subnet: netip.MustParsePrefix("10.99.0.0/16"), Prefix: 24}},
		})
		configs := []Config{
			filtered(ConfigOf(testNetwork()), FilterIPv4), filtered(ConfigOf(testNetwork()), FilterIPv6), ConfigOf(testNetwork()),
			filtered(late, FilterIPv4), filtered(late, FilterOff), {}, {Filter: FilterOff},
		}

		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		c := configs[0]
		for step := range steps {
			var did []string
			for range 1 + random.IntN(3) {
				for _, line := range disorders[random.IntN(len(disorders))] {
					did = append(did, line)
					h.try(line)
				}
			}
			if random.IntN(5) == 0 {
				c = configs[random.IntN(len(configs))]
			}
			h.peers(c)
			before := h.foreign()
			repairs := h.apply(c)
			if after := h.foreign(); after != before {
				t.Fatalf("step %d, %q: Apply (%q) made of the foreign rules\n%s\nthese:\n%s", step, did, repairs, before, after)
			}
			h.settled(c)
			h.oneJumpEach(c)
		}

		before := h.foreign()
		if err := h.firewall.Remove(context.Background()); err != nil {
			t.Fatal(err)
		}
		if after := h.foreign(); after != before || strings.Contains(h.rules(), prefix) {
			t.Fatalf("Remove made of the foreign rules\n%s\nthese:\n%s\nall:\n%s", before, after, h.rules())
		}
	})
}

// oneJumpEach judges by other means than the code does.
func (h host) oneJumpEach(c Config) {
	h.t.Helper()
	want := 0
	for _, sources := range [][]netip.Prefix{c.Sources4, c.Sources6} {
		if len(sources) > 0 {
			want++
		}
	}
	got := h.rules()
	if c.Filter != FilterAsIs {
		filters := 0
		if c.Filter != FilterOff {
			filters = 1
		}
		for _, text := range []string{"-A INPUT -j " + chainInput + "\n", " " + chainInput + "\n", "-A " + chainInput + " "} {
			if n := strings.Count(got, text); n != filters {
				h.t.Fatalf("%q is there %d times, want %d:\n%s", text, n, filters, got)
			}
		}
	}
	for chain, home := range map[string]string{chainMasq: "POSTROUTING", chainForward: "(FORWARD|DOCKER-USER)"} {
		all := regexp.MustCompile(`(?m)^-A .*-j `+chain+`$`).FindAllString(got, -1)
		right := regexp.MustCompile(`(?m)^-A `+home+` -j `+chain+`$`).FindAllString(got, -1)
		if len(all) != want || len(right) != want {
			h.t.Fatalf("%d jumps to %s, %d of them right, want %d:\n%s", len(all), chain, len(right), want, got)
		}
	}
}
