package rights

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// TestTable is the table, row by row.
func TestTable(t *testing.T) {
	for _, test := range []struct {
		need                                   Need
		unasked, anonymous, other, agent, oper bool
	}{
		{Open, true, true, true, true, true},
		{Read, true, false, false, true, true},
		{Own, true, false, false, true, true},
		{Operate, true, false, false, false, true},
	} {
		for kind, want := range map[Kind]bool{
			Unasked: test.unasked, Anonymous: test.anonymous, Other: test.other, Agent: test.agent, Operator: test.oper,
		} {
			err := Caller{Kind: kind}.May(test.need, "a call")
			if (err == nil) != want {
				t.Errorf("need %d, kind %d: %v", test.need, kind, err)
			}
		}
	}
}

func TestActFor(t *testing.T) {
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, test := range []struct {
		caller Caller
		ip     netip.Addr
		want   string
	}{
		{Caller{Kind: Unasked, Addrs: []netip.Addr{one}}, one, ""},
		{Caller{Kind: Unasked, Addrs: []netip.Addr{one}}, two, "10.0.0.1 may not act for agent 10.0.0.2: an agent acts only for the address that it calls from"},
		{Caller{Kind: Agent, Addrs: []netip.Addr{one}}, one, ""},
		{Caller{Kind: Agent, Addrs: []netip.Addr{one}, Shown: "CN=one (10.0.0.1)"}, two, "needs a client certificate with 10.0.0.2 among its IP addresses (subject alternative names), or an operator's; shown was CN=one (10.0.0.1)"},
		{Caller{Kind: Operator}, two, ""},
		{Caller{Kind: Other}, one, "needs a client certificate with 10.0.0.1"},
	} {
		err := test.caller.MayActFor(test.ip)
		var e *api.Error
		switch {
		case test.want == "" && err == nil:
		case !errors.As(err, &e) || e.Code != api.CodeForbidden || test.want == "" || !strings.Contains(e.Message, test.want):
			t.Errorf("%+v for %s: %v", test.caller, test.ip, err)
		}
	}
}

func TestCertified(t *testing.T) {
	ca, stranger := tlstest.NewAuthority(t, "ca"), tlstest.NewAuthority(t, "stranger")
	now := time.Now()
	for _, test := range []struct {
		name string
		by   *tlstest.Authority
		leaf tlstest.Leaf
		want Caller
		// fails is what the error says.
		fails string
	}{
		{"agent", ca, tlstest.Leaf{Name: "a", IPs: []string{"10.0.0.1", "fd00::1"}},
			Caller{Kind: Agent, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Shown: "CN=a (10.0.0.1, fd00::1)"}, ""},
		{"many addresses", ca, tlstest.Leaf{Name: "a", IPs: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}},
			Caller{Kind: Agent, Shown: "CN=a (10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 1 more)"}, ""},
		{"operator", ca, tlstest.Leaf{Name: "o", Organization: Operators}, Caller{Kind: Operator, Shown: "CN=o,O=dcos-overlay:operators (no IP addresses)"}, ""},
		{"an operator's host", ca, tlstest.Leaf{Name: "o", Organization: Operators, IPs: []string{"10.0.0.1"}}, Caller{Kind: Operator, Shown: "CN=o,O=dcos-overlay:operators (10.0.0.1)"}, ""},
		{"nobody", ca, tlstest.Leaf{Name: "n", Organization: "dcos-overlay:operator", DNS: []string{"n"}}, Caller{Kind: Other, Shown: "CN=n,O=dcos-overlay:operator (no IP addresses)"}, ""},
		{"another authority", stranger, tlstest.Leaf{Name: "a", Organization: Operators}, Caller{},
			"the client certificate shown, CN=a,O=dcos-overlay:operators (no IP addresses), issued by CN=stranger, comes from no authority of --tls-client-ca: show one that does"},
		{"expired", ca, tlstest.Leaf{Name: "a", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Minute)}, Caller{}, "the client certificate shown, CN=a (no IP addresses), expired at "},
		{"not yet", ca, tlstest.Leaf{Name: "a", NotBefore: now.Add(time.Minute)}, Caller{}, "does not count now"},
		{"a server's", ca, tlstest.Leaf{Name: "s", Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, Caller{}, "is not for clients"},
		{"an awkward name", stranger, tlstest.Leaf{Name: "a\nb\x1b" + strings.Repeat("x", 300)}, Caller{}, "CN=a?b?xxx"},
	} {
		t.Run(test.name, func(t *testing.T) {
			leaf := test.by.Issue(test.leaf).TLS(t).Leaf
			got, err := Certified([]*x509.Certificate{leaf}, ca.Pool(), now)
			var e *api.Error
			if errors.As(err, &e) != (test.fails != "") || e != nil && (e.Code != api.CodeUnauthenticated || !strings.Contains(e.Message, test.fails) || len(e.Message) > 700 || strings.Contains(e.Message, "\n")) {
				t.Errorf("got %v, want %q", err, test.fails)
			}
			if got.Kind != test.want.Kind || got.Shown != test.want.Shown || test.want.Addrs != nil && !equal(got.Addrs, test.want.Addrs) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if err == nil && !got.Until.Equal(leaf.NotAfter) {
				t.Errorf("it ends at %s, and counts until %s", leaf.NotAfter, got.Until)
			}
		})
	}
	if got, err := Certified(nil, ca.Pool(), now); err != nil || got.Kind != Anonymous {
		t.Errorf("no certificate: %+v, %v", got, err)
	}
}

func equal(a, b []netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
