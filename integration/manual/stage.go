package manual

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// shims are programs that a lab's host has not, or that would reach out of it.
//
//go:embed shims
var shims embed.FS

// checkout is where hosts have the module's files.
const checkout = "/root/dcos-overlay"

// shimDir is before all of the machine's in a host's PATH.
const shimDir = "/usr/local/sbin"

// cast are the hosts of the manuals: the addresses are those of DC/OS's samples.
var cast = map[string]string{
	"c1": "172.17.0.2", "c2": "172.17.0.5", "c3": "172.17.0.6",
	"a1": "172.17.0.3", "a2": "172.17.0.4", "op": "172.17.0.10",
}

// places are where blocks can be played, each on one host or on several.
var places = map[string][]string{
	"coordinator":  {"c1"},
	"coordinators": {"c1", "c2", "c3"},
	"agent":        {"a1"},
	"agents":       {"a1", "a2"},
	"operator":     {"op"},
	"build":        {"op"},
}

// Stage is where one manual is played.
type Stage struct {
	Lab *lab.Lab
	// Bin has the built programs.
	Bin string
	// Checkout is the module's directory, of which each host has a copy. The
	// place "build" works there. With InCheckout coordinators and agents do,
	// too, and have in bin what make build makes; else they have the programs
	// in their PATH. The other places begin in root's home.
	Checkout   string
	InCheckout bool
	// Docker starts a Docker Engine on agents.
	Docker bool
	// Tell is called with what each block has printed on a host.
	Tell func(b Block, host, said string)

	hosts map[string]*lab.Host
}

// goPlaces are where Go keeps its settings, and what it has got and built.
var goPlaces = []string{"GOENV", "GOMODCACHE", "GOCACHE", "GOPATH"}

// settled is by when hosts have heard of each other, on a busy machine.
const settled = 2 * time.Minute

// ownAddress is a line that a reader of blocks for several machines adapts.
var ownAddress = regexp.MustCompile(`(?m)^(\s*ip=)[0-9.]+`)

// Play runs a block, on all hosts of its place at the same time, and carries
// over what it has copied to others. Blocks on several hosts set ip= to each
// host's own address, as their readers do.
func (s *Stage) Play(ctx context.Context, b Block) error {
	stage := ctx
	names, ok := places[b.Place]
	if !ok {
		return fmt.Errorf("line %d: %q: it is not known where to play this: say the place, as in \"```sh agent\"; there are %s",
			b.Line, b.Head(), strings.Join(placeNames(), ", "))
	}
	for _, name := range names {
		if err := s.enter(ctx, name); err != nil {
			return err
		}
	}
	var group errgroup.Group
	for _, name := range names {
		group.Go(func() error {
			text := b.Text
			if len(names) > 1 {
				text = ownAddress.ReplaceAllString(text, "${1}"+cast[name])
			}
			dir := "/root"
			if b.Place == "build" || s.InCheckout && b.Place != "operator" {
				dir = checkout
			}
			patience := time.Duration(0)
			if b.Again {
				patience = settled
			}
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			err := lab.Until(ctx, "success", func(context.Context) error {
				said, err := s.run(stage, s.hosts[name], dir, text)
				if err == nil {
					s.Tell(b, name, said)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("line %d: on %s: %w", b.Line, name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, name := range names {
		if err := s.deliver(ctx, s.hosts[name]); err != nil {
			return fmt.Errorf("line %d: carrying files from %s: %w", b.Line, name, err)
		}
	}
	return nil
}

func placeNames() (out []string) {
	for name := range places {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// run runs a block's text as a reader's shell does, but ends at the first
// command that fails. It returns what that printed.
func (s *Stage) run(ctx context.Context, h *lab.Host, dir, text string) (string, error) {
	env, err := environment(ctx, s.Bin)
	if err != nil {
		return "", err
	}
	r, err := h.Exec(ctx, lab.Command{
		Args:  []string{"bash", "-e", "-o", "pipefail", "-s"},
		Dir:   dir,
		Env:   env,
		Stdin: []byte(text),
	})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit status %d\n--- of\n%s--- it printed\n%s%s", r.Code, text, r.Stdout, r.Stderr)
	}
	return r.Stdout + r.Stderr, err
}

// environment is a login shell's, with Go as the test has it, and with what that
// has built and got already, wherever it is. PROGRAMS is for what a test plays
// before the manual, not for the manual.
func environment(ctx context.Context, bin string) ([]string, error) {
	path := shimDir + ":/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	env := []string{"HOME=/root", "LANG=C.UTF-8", "USER=root", "PROGRAMS=" + bin}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "GO") {
			env = append(env, e)
		}
	}
	if goTool, err := exec.LookPath("go"); err == nil {
		path += ":" + filepath.Dir(goTool)
		// The defaults follow from HOME, which may be another one here.
		out, err := exec.CommandContext(ctx, goTool, append([]string{"env"}, goPlaces...)...).Output()
		places := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if err != nil || len(places) != len(goPlaces) {
			return nil, fmt.Errorf("asking go env for %v: it says %q: %w", goPlaces, out, err)
		}
		for i, name := range goPlaces {
			env = append(env, name+"="+places[i])
		}
	}
	return append(env, "PATH="+path), nil
}

// enter makes a host of the cast, if it is not there yet.
func (s *Stage) enter(ctx context.Context, name string) error {
	if s.hosts[name] != nil {
		return nil
	}
	h, err := s.Lab.AddHost(ctx, name, netip.MustParseAddr(cast[name]))
	if err != nil {
		return err
	}
	if s.hosts == nil {
		s.hosts = map[string]*lab.Host{}
	}
	s.hosts[name] = h
	if err := s.furnish(ctx, h); err != nil {
		return fmt.Errorf("preparing host %s: %w", name, err)
	}
	return nil
}

func (s *Stage) furnish(ctx context.Context, h *lab.Host) error {
	err := fs.WalkDir(shims, "shims", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := shims.ReadFile(p)
		if err != nil {
			return err
		}
		at := path.Join(shimDir, d.Name())
		_, err = h.RunInput(ctx, data, "sh", "-c", `cat >"$0" && chmod 755 "$0"`, at)
		return err
	})
	if err != nil {
		return err
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for name, addr := range cast {
		fmt.Fprintln(&hosts, addr, name)
	}
	fmt.Fprintln(&hosts, cast["op"], "leader.mesos") // a manual's stand-in for it
	if err := h.WriteFile(ctx, "/etc/hosts", []byte(hosts.String())); err != nil {
		return err
	}
	if err := s.layOut(ctx, h); err != nil {
		return err
	}
	if s.Docker && strings.HasPrefix(h.Name, "a") {
		if _, err := h.StartDocker(ctx); err != nil {
			return err
		}
		if _, err := h.Run(ctx, "docker", "tag", lab.Image, "busybox"); err != nil {
			return err
		}
	}
	return nil
}

// layOut gives a host the checkout and the programs.
func (s *Stage) layOut(ctx context.Context, h *lab.Host) error {
	tar := exec.CommandContext(ctx, "tar", "-c", "--exclude=./bin", "--exclude=./.git", "--exclude=node_modules", ".")
	tar.Dir = s.Checkout
	files, err := tar.Output()
	if err != nil {
		return fmt.Errorf("packing %s: %w", s.Checkout, err)
	}
	if _, err = h.RunInput(ctx, files, "sh", "-ec", `mkdir "$0" && tar -x --no-same-owner -C "$0"`, checkout); err != nil {
		return err
	}
	switch {
	case !s.InCheckout:
		_, err = h.Run(ctx, "sh", "-ec", `cp "$0"/dcos-overlay-* "$0"/dcos-overlayctl /usr/local/bin/`, s.Bin)
	case h.Name != "op":
		_, err = h.Run(ctx, "sh", "-ec", `mkdir "$1"/bin && cp "$0"/dcos-* "$0"/cnitool "$1"/bin/`, s.Bin, checkout)
	}
	return err
}

// deliver carries what the shim of scp has put aside to where it goes.
func (s *Stage) deliver(ctx context.Context, from *lab.Host) error {
	for name, addr := range cast {
		parcel, err := from.Run(ctx, "sh", "-ec", `cd "/run/scp/$0" 2>/dev/null || exit 0; tar -c .; rm -r "/run/scp/$0"`, addr)
		if err != nil {
			return err
		}
		if parcel == "" {
			continue
		}
		if err := s.enter(ctx, name); err != nil {
			return err
		}
		if _, err := s.hosts[name].RunInput(ctx, []byte(parcel), "tar", "-x", "--no-overwrite-dir", "-C", "/"); err != nil {
			return err
		}
	}
	return nil
}

// Log is what the units of a host have printed, for a test that failed.
func (s *Stage) Log(ctx context.Context) string {
	var out strings.Builder
	for name, h := range s.hosts {
		text, err := h.Run(ctx, "sh", "-c", `tail -n 30 /var/log/units/*.log 2>/dev/null || :`)
		fmt.Fprintf(&out, "--- %s\n%s%v\n", name, text, err)
	}
	return out.String()
}
