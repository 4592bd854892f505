package contest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dcos/dcos-overlay/bench/report"
	"github.com/dcos/dcos-overlay/bench/stat"
)

// claimsRows are the comparisons of bench/coordinator that are in the table, by
// what it calls our figures and the others'.
func claimsRows() [][2]string {
	const ours = "claims, 64 clients, HTTP over TCP"
	return [][2]string{
		{ours, "create transactions, 64 clients, gRPC, a TCP connection each"},
		{ours, "create transactions, 64 clients, gRPC over one TCP connection"},
		{ours, "create transactions, 64 clients, in etcd's process"},
	}
}

// Claims has bench/coordinator measure claims against plain transactions.
func (c *Contest) Claims() ([]report.Row, error) {
	c.Log("claims")
	path := filepath.Join(c.Machine.Dir, "claims.json")
	err := c.Machine.Command(c.Machine.Home, filepath.Join(c.Bin, "bench-coordinator"), "-parts", "claims", "-rounds", strconv.Itoa(c.Slow), "-json", path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var said struct {
		Rows []struct {
			Name   string
			Values stat.Sample
		}
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, fmt.Errorf("read what bench/coordinator measured: %w", err)
	}
	by := map[string]stat.Sample{}
	for _, r := range said.Rows {
		by[r.Name] = r.Values
	}
	var rows []report.Row
	// The goal is against clients over the same network.
	for i, names := range claimsRows() {
		ours, theirs := by[names[0]], by[names[1]]
		if len(ours) == 0 || len(theirs) != len(ours) {
			return nil, fmt.Errorf("bench/coordinator has measured %q %d times, and %q %d times", names[0], len(ours), names[1], len(theirs))
		}
		row := report.Row{
			Part: "claims", What: names[0], Ours: ours.Sum(), Against: names[1], Peer: theirs.Sum(),
			Ratio: stat.Ratios(ours, theirs).Sum(), Unit: "/s", AtLeast: true,
		}
		if i < 2 {
			row.Goal = 0.9
		}
		rows = append(rows, row)
	}
	return rows, nil
}
