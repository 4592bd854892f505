// Package rights says which caller of the coordinator may do what. A caller is
// known by its client certificate or, where the coordinator asks for none, by
// the address that it calls from.
package rights

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/dcos/dcos-overlay/internal/api"
)

// Operators is the organisation that makes a certificate an operator's.
const Operators = "dcos-overlay:operators"

// Need is what a call asks of its caller. What is not said is for operators.
type Need uint8

// The needs, the greatest first.
const (
	// Operate is for operators.
	Operate Need = iota
	// Own is for the agent that the path names, and for operators: who may
	// delete an agent gains nothing by acting for it.
	Own
	// Read is for agents and operators.
	Read
	// Open is for everybody.
	Open
)

// Kind is what a caller is.
type Kind uint8

// The kinds of callers.
const (
	// Unasked is one whom the coordinator asks for no certificate. It may do
	// everything, and act for the agent that it calls from.
	Unasked Kind = iota
	// Anonymous is one who was asked for a certificate and has shown none.
	Anonymous
	// Other has a certificate that makes it neither agent nor operator.
	Other
	// Agent has a certificate with the addresses of an agent.
	Agent
	// Operator has a certificate with the organisation Operators.
	Operator
)

// may is the table: what each kind of caller may do, besides acting for an
// agent, which depends on the agent, too.
func (k Kind) may(n Need) bool {
	switch n {
	case Open:
		return true
	case Read, Own:
		return k == Unasked || k == Agent || k == Operator
	default:
		return k == Unasked || k == Operator
	}
}

// Caller is who makes a call.
type Caller struct {
	Kind Kind
	// Addrs are the agents that it may act for: by its certificate or, if it
	// is Unasked, the one that it calls from.
	Addrs []netip.Addr
	// Shown tells a person which certificate was shown.
	Shown string
	// Until is when the certificate ends; zero where there is none.
	Until time.Time
}

// Certified is who has shown the certificates, its own one first. It fails,
// with an *api.Error, unless they lead to one of roots and count now.
func Certified(shown []*x509.Certificate, roots *x509.CertPool, now time.Time) (Caller, error) {
	if len(shown) == 0 {
		return Caller{Kind: Anonymous, Shown: "none"}, nil
	}
	leaf := shown[0]
	c := Caller{Kind: Other, Shown: describe(leaf)}
	between := x509.NewCertPool()
	for _, cert := range shown[1:] {
		between.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Caller{}, fail(api.CodeUnauthenticated, "the client certificate shown, %s, %s", c.Shown, why(leaf, err, now))
	}
	c.Until = leaf.NotAfter
	for _, cert := range chains[0] {
		if cert.NotAfter.Before(c.Until) {
			c.Until = cert.NotAfter
		}
	}
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			c.Addrs = append(c.Addrs, addr.Unmap())
		}
	}
	switch {
	case slices.Contains(leaf.Subject.Organization, Operators):
		c.Kind = Operator
	case len(c.Addrs) > 0:
		c.Kind = Agent
	}
	return c, nil
}

// why says what is wrong with a certificate, and goes on from its name.
func why(leaf *x509.Certificate, err error, now time.Time) string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return fmt.Sprintf("issued by %s, comes from no authority of --tls-client-ca: show one that does", printable(leaf.Issuer.String()))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if now.After(leaf.NotAfter) {
			return fmt.Sprintf("expired at %s: renew it", leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		return "or one of those that it comes from, does not count now: renew it, or set the clocks right"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "is not for clients: its extended key usage must have client authentication"
	}
	return fmt.Sprintf("is not valid: %s", printable(err.Error()))
}

// May tells whether c may make the call what, such as "GET /v1/agents". The
// error is an *api.Error.
func (c Caller) May(n Need, what string) error {
	switch {
	case c.Kind.may(n):
		return nil
	case c.Kind == Anonymous:
		return fail(api.CodeUnauthenticated, "%s needs the client certificate of %s, and none was shown: see cert_file and key_file in agent.json", what, n.whose())
	}
	return fail(api.CodeForbidden, "%s needs the client certificate of %s; shown was %s", what, n.whose(), c.Shown)
}

// MayActFor tells whether c may act for the agent at ip. The error is an
// *api.Error.
func (c Caller) MayActFor(ip netip.Addr) error {
	if c.Kind == Operator || slices.Contains(c.Addrs, ip) {
		return nil
	}
	if c.Kind == Unasked {
		from := "the caller"
		if len(c.Addrs) > 0 {
			from = c.Addrs[0].String()
		}
		return fail(api.CodeForbidden,
			"%s may not act for agent %s: an agent acts only for the address that it calls from (see ip, interface and ip_cidr in agent.json)", from, ip)
	}
	return fail(api.CodeForbidden,
		"acting for agent %s needs a client certificate with %s among its IP addresses (subject alternative names), or an operator's; shown was %s", ip, ip, c.Shown)
}

// MayMoveFrom tells whether c may take over the lease of the agent at ip, whose
// id it has. Ids are no secret: who may read, reads them. The error is an
// *api.Error.
func (c Caller) MayMoveFrom(ip netip.Addr) error {
	if c.Kind == Unasked || c.Kind == Operator || slices.Contains(c.Addrs, ip) {
		return nil
	}
	return fail(api.CodeForbidden,
		"this agent's id has a lease at %s: moving it needs a client certificate with %s, too, among its IP addresses, or an operator's; for a new lease, remove agent-id and lease.json; shown was %s", ip, ip, c.Shown)
}

func (n Need) whose() string {
	if n == Operate {
		return fmt.Sprintf("an operator (organisation %s)", Operators)
	}
	return fmt.Sprintf("an agent (its IP address as subject alternative name) or an operator (organisation %s)", Operators)
}

func fail(code api.Code, format string, args ...any) *api.Error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// maxShown bounds how many addresses of a certificate a message tells.
const maxShown = 4

// describe tells a person which certificate this is.
func describe(cert *x509.Certificate) string {
	subject := printable(cert.Subject.String())
	if subject == "" {
		subject = "one without subject"
	}
	if len(cert.IPAddresses) == 0 {
		return fmt.Sprintf("%s (no IP addresses)", subject)
	}
	var ips []string
	for _, ip := range cert.IPAddresses[:min(maxShown, len(cert.IPAddresses))] {
		ips = append(ips, ip.String())
	}
	if more := len(cert.IPAddresses) - maxShown; more > 0 {
		ips = append(ips, fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("%s (%s)", subject, strings.Join(ips, ", "))
}

// maxName bounds a name that is a stranger's word, in characters.
const maxName = 128

// printable makes one short line of a stranger's word.
func printable(text string) string {
	out := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text))
	if len(out) > maxName {
		return string(out[:maxName]) + "…"
	}
	return string(out)
}
