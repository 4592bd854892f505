// Command coordinator measures the coordinator: how many claims it answers in
// a second against what its etcd can do at most, and what it is like when all
// the subnets of 9.0.0.0/8 are leased.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	// clients is how many of them claim at once.
	clients = 64
	// limit bounds the whole, and quickLimit with -quick.
	limit      = 20 * time.Minute
	quickLimit = 2 * time.Minute
	// subnets are what there is to claim in 9.0.0.0/8 with full's bits.
	subnets = 1 << 16
)

// size is how much is measured.
type size struct {
	// rounds of perRound claims and as many plain transactions in each way;
	// less where all would be more claims than there are subnets.
	rounds, perRound int
	// steps are the numbers of agents at which memory is measured. The last
	// is that of the overlay's subnets, a power of two.
	steps []int
	// bits is the length of the agents' subnets, of 9.0.0.0/8.
	bits int
	// watchers hear of each of notices claims.
	watchers, notices int
	// repeats is how often the state is read in each way.
	repeats int
}

func full() size {
	return size{rounds: 50, perRound: 1000, steps: []int{1000, 10_000, subnets}, bits: 24, watchers: 1000, notices: 200, repeats: 9}
}

func quick() size {
	return size{rounds: 5, perRound: 1000, steps: []int{1000, 1 << 12}, bits: 20, watchers: 200, notices: 30, repeats: 3}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench/coordinator: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("coordinator", flag.ContinueOnError)
	short := flags.Bool("quick", false, "measure less, in under 30 seconds")
	rounds := flags.Int("rounds", 0, "how many rounds of claims to measure; 0 leaves it to -quick")
	jsonFile := flags.String("json", "", "write the figures into this file, too")
	parts := flags.String("parts", "claims,scale", "what to measure")
	profile := flags.String("profile", "", "write a CPU profile of the coordinator while it answers claims into this file")
	dir := flags.String("serve", "", "be the coordinator that is measured, on this directory (the program starts itself so)")
	bits := flags.Int("bits", 0, "with -serve: the length of the agents' subnets")
	plainDir := flags.String("plain", "", "be the etcd that it is compared with, on this directory (the program starts itself so)")
	only := flags.Bool("only", false, "measure claims without what they are compared with")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir != "" {
		return serve(ctx, *dir, *bits)
	}
	if *plainDir != "" {
		return servePlain(ctx, *plainDir)
	}
	s, most := full(), limit
	if *short {
		s, most = quick(), quickLimit
	}
	if *rounds > 0 {
		s.rounds = *rounds
	}
	s.perRound = min(s.perRound, subnets/(s.rounds+1))
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	work, err := os.MkdirTemp("", "bench-coordinator-")
	if err != nil {
		return fmt.Errorf("make a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &bench{size: s, dir: work, report: newReport(*short), profile: *profile, only: *only}
	if err := b.measure(ctx, *parts); err != nil {
		return err
	}
	b.report.print(os.Stdout)
	if *jsonFile != "" {
		return b.report.save(*jsonFile)
	}
	return nil
}
