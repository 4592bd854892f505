package contest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dcos/dcos-overlay/bench/report"
	"github.com/dcos/dcos-overlay/bench/stat"
)

// figure is one that bench/coordinator writes.
type figure struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	Samples int     `json:"samples"`
}

// sum is f as a summary, with the least and the greatest for quartiles.
func (f figure) sum() stat.Summary {
	return stat.Summary{N: f.Samples, Median: f.Value, Q1: f.Low, Q3: f.High}
}

// claimsRows are the comparisons of bench/coordinator that are in the table:
// what it calls our figure, the other one, and the ratio of the two.
func claimsRows() [][3]string {
	const ours = "claims, 64 clients, HTTP over TCP"
	return [][3]string{
		{ours, "create transactions, 64 clients, gRPC, a TCP connection each", "claims : create transactions, gRPC, a TCP connection each"},
		{ours, "create transactions, 64 clients, gRPC over one TCP connection", "claims : create transactions, gRPC over one TCP connection"},
		{ours, "create transactions, 64 clients, in etcd's process", "claims : create transactions, in etcd's process"},
	}
}

// Claims has bench/coordinator measure claims against plain transactions.
func (c *Contest) Claims() ([]report.Row, error) {
	c.Log("claims")
	path := filepath.Join(c.Machine.Dir, "claims.json")
	args := []string{filepath.Join(c.Bin, "bench-coordinator"), "-parts", "claims", "-json", path}
	if c.Slow < fullSlow {
		args = append(args, "-quick")
	}
	if err := c.Machine.Command(c.Machine.Home, args...); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var said struct{ Rows []figure }
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, fmt.Errorf("read what bench/coordinator measured: %w", err)
	}
	by := map[string]figure{}
	for _, f := range said.Rows {
		by[f.Name] = f
	}
	var rows []report.Row
	// The goal is against clients over the same network.
	for i, names := range claimsRows() {
		for _, name := range names {
			if by[name].Value == 0 {
				return nil, fmt.Errorf("bench/coordinator has not measured %q", name)
			}
		}
		row := report.Row{
			Part: "claims", What: names[0], Ours: by[names[0]].sum(), Against: names[1], Peer: by[names[1]].sum(),
			Ratio: by[names[2]].sum(), Unit: "/s", AtLeast: true,
		}
		if i < 2 {
			row.Goal = 0.9
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// fullSlow is the Slow from which on bench/coordinator measures in full.
const fullSlow = 50
