// Package firewall keeps the iptables rules of an agent: masquerading of what
// leaves the overlays, forwarding of what passes between them, isolation of those that
// keep to themselves, and dropping of VXLAN packets from strangers. The rules are in chains named DCOS-OVERLAY-*,
// which belong to this package whole, with one jump from a chain of the system;
// no other rule is touched. It uses the host's own iptables programs, of
// whichever flavour they are.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/dcos/dcos-overlay/internal/peerset"
)

// Firewall applies rules in the network namespace of the calling thread.
type Firewall struct {
	// Path is the list of directories, written like $PATH, in which the
	// iptables programs are looked for; /usr/sbin and the like follow.
	Path string
}

// New returns a Firewall that uses the iptables of the process's $PATH.
func New() *Firewall { return &Firewall{Path: os.Getenv("PATH")} }

// ErrNotFound is the cause when the host has no iptables programs.
var ErrNotFound = errors.New("not found")

// rounds is how often Apply looks and writes where writing fails: rules can
// change between the two. What changes after a look and lets the write succeed
// is as what changes after the write, and the next Apply's to find.
const rounds = 3

// Apply makes the rules what c asks for, in both address families, and says in
// words what was wrong and has been repaired: nothing when all was right. One
// failing table keeps no other from being applied. Sets of peers that no rule
// uses any more are removed.
func (f *Firewall) Apply(ctx context.Context, c Config) (repairs []string, err error) {
	var errs []error
	saves := f.saveAll(ctx)
	for i, fam := range families {
		done, err := f.applyFamily(ctx, fam, Want(c, fam.v6), saves[i])
		if set := peerset.Of(fam.v6); err == nil && c.leavesSet(fam.v6) {
			var there bool
			// The rule is gone: a set in use could not be destroyed.
			if there, err = set.Exists(); there && err == nil {
				err = set.Destroy(ctx)
				done = append(done, leftSet(set))
			}
		}
		for _, r := range done {
			if !slices.Contains(repairs, r) {
				repairs = append(repairs, r)
			}
		}
		errs = append(errs, err)
	}
	return repairs, errors.Join(errs...)
}

// leavesSet tells whether c has no use for the set of one address family.
func (c Config) leavesSet(v6 bool) bool { return c.Filter != FilterAsIs && !c.Filter.in(v6) }

func leftSet(s peerset.Set) string { return "ipset " + s.Name + " was left over" }

// Remove takes everything of ours away, sets of peers included, and nothing
// else. That nothing is there, not even iptables, is success.
func (f *Firewall) Remove(ctx context.Context) error {
	_, err := f.Apply(ctx, Config{Filter: FilterOff})
	return err
}

// Check says in words what Apply would repair, and changes nothing.
func (f *Firewall) Check(ctx context.Context, c Config) (problems []string, err error) {
	var errs []error
	saves := f.saveAll(ctx)
	for i, fam := range families {
		changes, err := look(ctx, fam, Want(c, fam.v6), saves[i])
		errs = append(errs, err)
		for _, ch := range changes {
			problems = append(problems, ch.repairs...)
		}
		if set := peerset.Of(fam.v6); c.leavesSet(fam.v6) {
			there, err := set.Exists()
			if errs = append(errs, err); there {
				problems = append(problems, leftSet(set))
			}
		}
	}
	return problems, errors.Join(errs...)
}

// applyFamily makes one family's rules what is wanted; save is the first look.
// All tables are written by one program. Where that fails, each is by its own,
// so that one which can't be written keeps no other back.
func (f *Firewall) applyFamily(ctx context.Context, fam family, want Ruleset, save running) (repairs []string, err error) {
	var together []change
	for round := range rounds {
		if round > 0 {
			save = f.save(ctx, fam)
		}
		changes, lookErr := look(ctx, fam, want, save)
		for _, ch := range together {
			// What failed together may have been written in part.
			if lookErr == nil && !slices.ContainsFunc(changes, func(c change) bool { return c.table == ch.table }) {
				repairs = append(repairs, ch.repairs...)
			}
		}
		together = nil
		if len(changes) == 0 {
			return repairs, lookErr
		}
		size := 1
		if round == 0 {
			size = len(changes)
		}
		var failed []error
		for batch := range slices.Chunk(changes, size) {
			if err := f.restore(ctx, fam, batch); err != nil {
				failed = append(failed, err)
				if size > 1 {
					together = batch
				}
				continue
			}
			for _, ch := range batch {
				repairs = append(repairs, ch.repairs...)
			}
		}
		err = errors.Join(append(failed, lookErr)...)
		if failed == nil || ctx.Err() != nil {
			break
		}
	}
	return repairs, err
}

// look compares what save says with want. What it tells beside an error is true.
func look(ctx context.Context, fam family, want Ruleset, save running) ([]change, error) {
	have, err := have(fam, save)
	if err != nil {
		// Where we want nothing, a host without iptables or without IPv6 is as
		// good as one without rules of ours.
		absent := errors.Is(err, ErrNotFound) || fam.v6 && ctx.Err() == nil
		if want.String() == "" && absent {
			return nil, nil
		}
		return nil, err
	}
	var seen Ruleset
	for _, t := range want {
		if !have[t.Name].hidden {
			seen = append(seen, t)
		} else if len(t.Chains) > 0 {
			err = errors.Join(err, hiddenError(t.Name))
		}
	}
	return plan(fam.program, seen, have), err
}

func have(fam family, save running) (saved, error) {
	text, err := save()
	if err != nil {
		return nil, err
	}
	have, err := parseSave(text)
	if err != nil {
		return nil, fmt.Errorf("reading what %s-save printed: %w", fam.program, err)
	}
	return have, nil
}
