package agentconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// defaultPort is the coordinator's; api.DefaultPort is the same, but this
// package is linked with the plugins and takes no more than it needs.
const defaultPort = "64001"

// masters are the values of "master": one text, or a list of them.
type masters []string

// UnmarshalJSON reads either form.
func (m *masters) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*m = masters{one}
		return nil
	}
	list := []string{}
	if err := json.Unmarshal(b, &list); err != nil {
		return errors.New("want a coordinator's address, such as 10.10.0.120:64001, or a list of them")
	}
	*m = list
	return nil
}

func (c *Config) setMaster(m masters) (errs []error) {
	if m == nil {
		c.Master = []string{DefaultMaster}
		return nil
	}
	if len(m) == 0 {
		return []error{errors.New("master: the list is empty; name a coordinator, or leave the field out for one on this machine")}
	}
	for _, s := range m {
		base, err := baseURL(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("master: %q %w", s, err))
			continue
		}
		c.Master = append(c.Master, base)
	}
	return errs
}

// baseURL makes a URL without a trailing slash of a host, host:port or URL.
// Its errors go on from the quoted text.
func baseURL(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, " \t\r\n") {
		return "", errors.New("is not an address; write it as in 10.10.0.120:64001 or https://coordinator.example:64001")
	}
	scheme, _, hasScheme := strings.Cut(s, "://")
	switch {
	case hasScheme && scheme != "http" && scheme != "https":
		return "", fmt.Errorf("is of kind %s; a coordinator's address begins with http:// or https://, or has no such beginning", scheme)
	case hasScheme:
	case isIPv6(s):
		s = "http://[" + strings.ReplaceAll(s, "%", "%25") + "]"
	default:
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		// url.Error repeats the URL, which the caller has said.
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		return "", fmt.Errorf("is not an address: %w", err)
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("has port %s; a port is a number from 1 to 65535", port)
	}
	if !isIPv6(host) && !isHostname(host) {
		return "", errors.New("has no host that is a name or an address")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#") {
		return "", errors.New("has more than a scheme, a host, a port and a path")
	}
	base := url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(host, port), Path: strings.TrimRight(u.Path, "/")}
	return base.String(), nil
}

func isIPv6(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Is6()
}

// isHostname tells whether s has the characters of a DNS name or an IPv4
// address. The underscore is no part of one, and in use all the same.
func isHostname(s string) bool {
	for _, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("-._", r) {
			return false
		}
	}
	return s != ""
}
