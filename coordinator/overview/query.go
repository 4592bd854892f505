package overview

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dcos/dcos-overlay/internal/api"
)

const (
	// DefaultLimit and MaxLimit are how many agents one answer has, in rows.
	DefaultLimit = 50
	MaxLimit     = 500
	// maxText bounds a search in bytes, and maxWords its words: each is looked
	// for in every agent.
	maxText  = 256
	maxWords = 8
)

// Query is what is asked for. Make it with Parse.
type Query struct {
	// Overlay is the name of one that the agents hold of; "" for any or none.
	Overlay string
	// State is that of the agents; "" for any.
	State      api.AgentState
	Sort       api.AgentOrder
	Descending bool
	// Offset is the first agent to answer with, and Limit how many.
	Offset, Limit int

	words []word
}

// word is one word of a search. Agents must fit all of them.
type word struct {
	text string
	// addr is valid for a whole address: agents whose subnets have it fit, too.
	addr netip.Addr
}

// Parse reads the parameters of GET /v1/overview. Mistakes are *api.Error.
func Parse(values url.Values) (Query, error) {
	q := Query{Sort: api.OrderIP, Limit: DefaultLimit}
	for name, given := range values {
		if len(given) != 1 {
			return q, invalid("%s is given %d times", name, len(given))
		}
		if err := q.set(name, given[0]); err != nil {
			return q, err
		}
	}
	return q, nil
}

func (q *Query) set(name, value string) error {
	switch name {
	case "q":
		return q.search(value)
	case "overlay":
		q.Overlay = value
	case "state":
		q.State = api.AgentState(value)
		states := []api.AgentState{"", api.AgentFailed, api.AgentSilent, api.AgentConfiguring, api.AgentOK}
		if !slices.Contains(states, q.State) {
			return invalid("state is %q: it must be failed, silent, configuring or ok", value)
		}
	case "sort":
		text, descending := strings.CutPrefix(value, "-")
		q.Sort, q.Descending = api.AgentOrder(text), descending
		if !slices.Contains([]api.AgentOrder{api.OrderIP, api.OrderState, api.OrderVTEP, api.OrderUse}, q.Sort) {
			return invalid("sort is %q: it must be ip, state, vtep or use, or one of these after a -", value)
		}
	case "offset":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return invalid("offset is %q: it must be a number from 0 on", value)
		}
		q.Offset = n
	case "limit":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > MaxLimit {
			return invalid("limit is %q: it must be a number from 1 to %d", value, MaxLimit)
		}
		q.Limit = n
	default:
		return invalid("%s takes no parameter %s: there are q, overlay, state, sort, offset, limit", api.PathOverview, name)
	}
	return nil
}

func (q *Query) search(value string) error {
	if len(value) > maxText {
		return invalid("q has %d bytes: at most %d are looked for", len(value), maxText)
	}
	fields := strings.Fields(strings.ToLower(value))
	if len(fields) > maxWords {
		return invalid("q has %d words: at most %d are looked for", len(fields), maxWords)
	}
	for _, f := range fields {
		// What is no address is a word like any other.
		addr, _ := netip.ParseAddr(f)
		q.words = append(q.words, word{text: f, addr: addr.Unmap().WithZone("")})
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}
