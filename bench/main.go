// Command bench measures this project against what does the same elsewhere,
// in network namespaces of its own, and prints one table. It takes root.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/bench/contest"
	"github.com/dcos/dcos-overlay/bench/machine"
	"github.com/dcos/dcos-overlay/bench/report"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// scale is how long and how often is measured.
type scale struct {
	rounds, slow, crowd, peers, chunks int
}

func run(args []string, out, log io.Writer) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(log)
	quick := f.Bool("quick", false, "measure each thing less often: under two minutes")
	smoke := f.Bool("smoke", false, "measure each thing three times, only to see that it works")
	rounds := f.Int("rounds", 0, "how often each thing is measured; 0 leaves it to the other flags")
	only := f.String("only", "", "the parts to measure, with commas between; all when empty")
	docs := f.String("docs", "", "directory whose benchmarks.md and plots are brought to what is measured")
	bin := f.String("bin", "", "directory of the programs, which are built anew when it is empty")
	if err := f.Parse(args); err != nil {
		return err
	}
	size := scale{rounds: 60, slow: 50, crowd: 50, peers: 10_000, chunks: 2000}
	if *quick {
		size = scale{rounds: 20, slow: 5, crowd: 50, peers: 10_000, chunks: 500}
	}
	if *smoke {
		size = scale{rounds: 3, slow: 3, crowd: 5, peers: 500, chunks: 50}
	}
	if *rounds > 0 {
		size.rounds, size.slow = *rounds, *rounds
	}
	parts, err := chosen(*only)
	if err != nil {
		return err
	}
	say := func(what string) { fmt.Fprintln(log, "bench:", what) }
	if *bin == "" {
		if *bin, err = machine.TempDir(); err != nil {
			return err
		}
		defer os.RemoveAll(*bin)
		say("building both sides")
		if err := build(*bin); err != nil {
			return err
		}
		// The part has the program's name, and no other needs it.
		if slices.Contains(names(parts), contest.FlannelProgram) {
			if err := install(*bin, contest.FlannelProgram, flannels()); err != nil {
				say(err.Error())
			}
		}
	}
	var rows []report.Row
	for _, p := range parts {
		began := time.Now()
		// A machine for each part: nothing of one is left in the next.
		err := machine.Run(func(m *machine.Machine) error {
			c := &contest.Contest{Machine: m, Bin: *bin, Rounds: size.rounds, Slow: size.slow, Crowd: size.crowd, Peers: size.peers, Chunks: size.chunks, Log: say}
			more, err := p.Run(c)
			rows = append(rows, more...)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		say(fmt.Sprintf("%s took %s", p.Name, time.Since(began).Round(100*time.Millisecond)))
	}
	fmt.Fprint(out, report.Table(rows))
	if *docs == "" {
		return nil
	}
	return report.Document{Dir: *docs, Parts: names(contest.Parts())}.Update(rows, computer())
}

// computer is what was measured on, in words.
func computer() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("unknown")
	}
	return fmt.Sprintf("%d cores, Linux %s, %s", runtime.NumCPU(), strings.TrimSpace(string(release)), runtime.Version())
}

func names(parts []contest.Part) []string {
	var out []string
	for _, p := range parts {
		out = append(out, p.Name)
	}
	return out
}

func chosen(only string) ([]contest.Part, error) {
	all := contest.Parts()
	if only == "" {
		return all, nil
	}
	var out []contest.Part
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(all, func(p contest.Part) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("--only: there is no part %q; there are %s", name, strings.Join(names(all), ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}
