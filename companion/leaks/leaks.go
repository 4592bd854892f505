// Package leaks frees addresses whose containers vanished without DEL. It
// takes from nobody who may still be there: an address is freed only when the
// container's network namespace, its veth and its reservation all say so,
// twice, a grace period apart.
//
// A veth without reservation is left alone: it goes with its namespace, and
// while that is there, somebody may be using it.
package leaks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

// DefaultGrace is the time from the first sight of a dead container to the
// last. Runtimes that restart, and retry their DELs, are back by then.
const DefaultGrace = time.Minute

// sweepTimeout bounds one sweep: a store's lock may be held by others.
const sweepTimeout = 30 * time.Second

// fewNames is how many unknown reservations a log line names.
const fewNames = 4

// System is what there is on this host, besides reservations. Each of its
// errors means that something can't be told; then nothing is freed by it.
type System interface {
	// Held tells whether the handle of the namespace is still at its path.
	Held(id sandbox.ID) (bool, error)
	// Search looks everywhere for the namespaces: in processes, mounts and
	// open files. It answers those that it found.
	Search(ctx context.Context, ids []sandbox.ID) (map[sandbox.ID]bool, error)
	// HasDevice tells whether the host has a network device of that name.
	HasDevice(name string) (bool, error)
	// UnmapPorts removes the ways from the host's ports to the container, or
	// to whoever has its address next; without any it succeeds.
	UnmapPorts(ctx context.Context, e ipam.Entry) error
}

// Options of a Cleaner.
type Options struct {
	// Dir holds the stores of all overlays; see agentconf.Config.DataDir.
	Dir string
	// Grace is DefaultGrace unless it is more than 0.
	Grace time.Duration
	// System is this machine if it is nil.
	System System
	// Now is the clock, time.Now if it is nil.
	Now func() time.Time
	Log *slog.Logger
}

// Cleaner remembers from one sweep to the next what it has seen dead.
type Cleaner struct {
	opts Options

	// sweeping lets one sweep run at a time.
	sweeping sync.Mutex
	// dead are the entries that every sweep since that time found dead. An
	// address that has a new owner, or a new record, is another entry.
	dead map[ipam.Entry]time.Time
	// told are the entries without record that were logged.
	told map[ipam.Entry]bool

	mu      sync.Mutex
	unknown int
}

// New makes a Cleaner that has seen nothing.
func New(opts Options) *Cleaner {
	if opts.Grace <= 0 {
		opts.Grace = DefaultGrace
	}
	if opts.System == nil {
		opts.System = Machine{}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Cleaner{opts: opts}
}

// Unknown is how many reservations the last sweep met whose containers are not
// on record. They are never freed: only a DEL can tell.
func (c *Cleaner) Unknown() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unknown
}

// Run sweeps at each interval until ctx ends. The same trouble is logged once.
func (c *Cleaner) Run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	trouble := ""
	for {
		if err := c.bounded(ctx); err == nil {
			trouble = ""
		} else if text := err.Error(); ctx.Err() == nil && text != trouble {
			trouble = text
			c.opts.Log.Warn("not every address whose container vanished is freed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *Cleaner) bounded(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, sweepTimeout, fmt.Errorf("not done within %s", sweepTimeout))
	defer cancel()
	_, err := c.Sweep(ctx)
	return err
}

// Sweep looks at every reservation once, and frees what has been dead for the
// grace period. It tells what it freed, an overlay, an address and its owner
// each, also when it fails in part. Its error is that of what it could not
// look at, which stays.
func (c *Cleaner) Sweep(ctx context.Context) (freed []string, err error) {
	c.sweeping.Lock()
	defer c.sweeping.Unlock()
	entries, err := c.entries(ctx)
	c.countUnknown(entries)
	dead, deadErr := c.findDead(ctx, entries)
	err = errors.Join(err, deadErr)

	now := c.opts.Now()
	seen := make(map[ipam.Entry]time.Time, len(dead))
	due := map[batch][]ipam.Entry{}
	for _, e := range dead {
		first, ok := c.dead[e]
		if !ok {
			first = now
		}
		seen[e] = first
		// At the first sight no time has passed.
		if now.Sub(first) >= c.opts.Grace {
			due[batchOf(e)] = append(due[batchOf(e)], e)
		}
	}
	c.dead = seen
	for b, entries := range due {
		removed, removeErr := c.remove(ctx, b, entries)
		err = errors.Join(err, removeErr)
		for _, e := range removed {
			freed = append(freed, c.freed(e, now.Sub(seen[e]))...)
			delete(seen, e)
		}
	}
	slices.Sort(freed)
	if err != nil {
		return freed, fmt.Errorf("sweep for leaked addresses: %w", err)
	}
	return freed, nil
}

// batch is what is removed under one lock: all of an overlay, but each owner
// with port mappings on its own, for to unmap them runs a program.
type batch struct {
	overlay string
	owner   ipam.Owner
}

func batchOf(e ipam.Entry) batch {
	b := batch{overlay: e.Overlay}
	if e.Home.PortMapper != "" {
		b.owner = e.Owner
	}
	return b
}

// remove takes a last look, with the store locked, so that nobody can be
// attached under the same name, and removes what still is dead. The whole
// search is not made again: nobody comes back to a namespace that nobody had.
func (c *Cleaner) remove(ctx context.Context, b batch, entries []ipam.Entry) ([]ipam.Entry, error) {
	var unmapErr error
	pool := ipam.Pool{Dir: c.opts.Dir, Overlay: b.overlay}
	removed, err := pool.Remove(ctx, entries, func(e ipam.Entry) bool {
		gone, err := c.goneByName(e)
		if err != nil || !gone {
			return false
		}
		if err := c.opts.System.UnmapPorts(ctx, e); err != nil {
			unmapErr = fmt.Errorf("%s: %w: it stays reserved, for the host's ports may still lead to it", e, err)
			return false
		}
		return true
	})
	return removed, errors.Join(err, unmapErr)
}

// freed logs what was removed, and says so if it was an address.
func (c *Cleaner) freed(e ipam.Entry, after time.Duration) []string {
	log := c.opts.Log.With("overlay", e.Overlay, "container", e.Owner.ContainerID, "interface", e.Owner.IfName)
	if !e.Addr.IsValid() {
		log.Debug("removed the record of a container that has no address")
		return nil
	}
	log.Info("freed the address of a container that vanished without DEL", "address", e.Addr, "dead_for", after.Round(time.Second))
	return []string{e.String()}
}

func (c *Cleaner) entries(ctx context.Context) (all []ipam.Entry, err error) {
	overlays, err := ipam.Stores(c.opts.Dir)
	if err != nil {
		return nil, err
	}
	for _, overlay := range overlays {
		entries, entriesErr := ipam.Pool{Dir: c.opts.Dir, Overlay: overlay}.Entries(ctx)
		err = errors.Join(err, entriesErr)
		all = append(all, entries...)
	}
	return all, err
}

// countUnknown logs each entry without record once.
func (c *Cleaner) countUnknown(entries []ipam.Entry) {
	told := map[ipam.Entry]bool{}
	var fresh []string
	for _, e := range entries {
		if e.Known {
			continue
		}
		if !c.told[e] {
			fresh = append(fresh, e.String())
		}
		told[e] = true
	}
	c.told = told
	c.mu.Lock()
	c.unknown = len(told)
	c.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	slices.Sort(fresh)
	names := strings.Join(fresh[:min(len(fresh), fewNames)], "; ")
	c.opts.Log.Warn("reservations without a record of their container are freed by its DEL only",
		"new", len(fresh), "unknown", len(told), "such_as", names)
}

// findDead are the entries of which nothing is found on this host. The cheap
// looks come first: most sweeps need no other.
func (c *Cleaner) findDead(ctx context.Context, entries []ipam.Entry) (dead []ipam.Entry, err error) {
	var candidates []ipam.Entry
	var ids []sandbox.ID
	for _, e := range entries {
		if !e.Known {
			continue
		}
		gone, goneErr := c.goneByName(e)
		err = errors.Join(err, goneErr)
		if gone {
			candidates = append(candidates, e)
			ids = append(ids, e.Home.Netns)
		}
	}
	if len(candidates) == 0 {
		return nil, err
	}
	found, searchErr := c.opts.System.Search(ctx, ids)
	if searchErr != nil {
		// Where it could not look, any of them may live.
		return nil, errors.Join(err, searchErr)
	}
	for _, e := range candidates {
		if !found[e.Home.Netns] {
			dead = append(dead, e)
		}
	}
	return dead, err
}

// goneByName tells whether neither the namespace's handle nor the veth is
// where it was.
func (c *Cleaner) goneByName(e ipam.Entry) (bool, error) {
	held, err := c.opts.System.Held(e.Home.Netns)
	if err != nil || held {
		return false, err
	}
	if e.Home.HostIf == "" {
		return true, nil
	}
	has, err := c.opts.System.HasDevice(e.Home.HostIf)
	return err == nil && !has, err
}
