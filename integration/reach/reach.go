// Package reach finds out who reaches whom over TCP, as whom, and shows it as
// a table.
package reach

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// Check is one connection to be made.
type Check struct {
	// Kind heads the group that the check is shown in.
	Kind string
	// From and To name the ends.
	From, To string
	Place    *lab.Place
	Addr     netip.AddrPort
	// Source is who the server must see.
	Source netip.Addr
}

// Row is a Check and what came of it.
type Row struct {
	Check
	// Seen is the client's address as the server saw it.
	Seen netip.Addr
	Err  error
}

// OK tells whether the connection was made, from the right address.
func (r Row) OK() bool { return r.Err == nil && r.Seen == r.Source }

func (r Row) result() string {
	switch {
	case r.Err != nil:
		return "FAILED: " + r.Err.Error()
	case r.Seen != r.Source:
		return fmt.Sprintf("WRONG: the server saw %s, not %s", r.Seen, r.Source)
	}
	return "ok"
}

// Run makes the connections one after the other.
func Run(ctx context.Context, checks []Check) []Row {
	rows := make([]Row, 0, len(checks))
	for _, c := range checks {
		r := Row{Check: c}
		var seen netip.AddrPort
		seen, r.Err = c.Place.Dial(ctx, c.Addr)
		r.Seen = seen.Addr().Unmap()
		rows = append(rows, r)
	}
	return rows
}

// Failed are the rows that are not OK.
func Failed(rows []Row) (out []Row) {
	for _, r := range rows {
		if !r.OK() {
			out = append(out, r)
		}
	}
	return out
}

// Print writes the table, and a line that counts.
func Print(w io.Writer, rows []Row, took time.Duration) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	kind := ""
	for _, r := range rows {
		if r.Kind != kind {
			kind = r.Kind
			fmt.Fprintf(t, "\n%s\n  from\tto\taddress\tserver saw\t\n", kind)
		}
		seen := "-"
		if r.Seen.IsValid() {
			seen = r.Seen.String()
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", r.From, r.To, r.Addr.Addr(), seen, r.result())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d of %d connections are as they should be (%s)\n", len(rows)-len(Failed(rows)), len(rows), took.Round(time.Millisecond))
	return err
}
