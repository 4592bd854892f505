package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// neighbourLimits is where each address family has its gc_thresh3: how many
// neighbours the kernel keeps at most. They are of the first network namespace
// and absent in others.
const neighbourLimits = "/proc/sys/net/%s/neigh/default/gc_thresh3"

// crowded are the families whose neighbour table is smaller than the number of
// peers, and logs each once. Linux before 5.0 counts permanent neighbours, too,
// and refuses what is above the limit; later ones count only the others, which
// a host with that many peers may have as well.
func (a *Agent) crowded(peers int) []string {
	var out []string
	for _, family := range []string{"ipv4", "ipv6"} {
		path := fmt.Sprintf(neighbourLimits, family)
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if !below(string(text), peers) {
			a.said.news(path, "")
			continue
		}
		out = append(out, family)
		if a.said.news(path, "too small") {
			name := strings.ReplaceAll(strings.TrimPrefix(filepath.Clean(path), "/proc/sys/"), "/", ".")
			a.Log.Warn("the neighbour table may be too small for all peers: raise the limit with sysctl -w",
				"sysctl", name, "limit", strings.TrimSpace(string(text)), "peers", peers)
		}
	}
	return out
}

// below tells whether a sysctl's text is a number less than n.
func below(text string, n int) bool {
	limit, err := strconv.Atoi(strings.TrimSpace(text))
	return err == nil && limit < n
}
