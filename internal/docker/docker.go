// Package docker keeps the Docker network of each overlay: it is created with
// the overlay's Docker subnet and bridge, checked against them, and removed.
// Networks without our label are never changed.
package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	apinetwork "github.com/moby/moby/api/types/network"
)

// Label marks a Docker network as ours; its value is the overlay's name.
const Label = "dcos-overlay"

const (
	// callTimeout bounds everything that one method asks of the Engine.
	// Creating a network can wait for the host's firewall.
	callTimeout = 30 * time.Second
	// connectTimeout bounds the first answer of an Engine.
	connectTimeout = 5 * time.Second
)

// ErrUnavailable is the cause when no Engine answers.
var ErrUnavailable = errors.New("Docker Engine not reachable")

// ErrInUse is the cause when containers keep a network of ours from being
// removed or made anew.
var ErrInUse = errors.New("in use")

// Engine is a Docker Engine, from 20.10 (API 1.41) on. It holds no connection:
// an Engine may come, go and be upgraded while this one is used.
type Engine struct {
	host string
	opts []client.Opt
}

// Open prepares for the Engine at host, as in unix:///var/run/docker.sock.
// Empty means the one that DOCKER_HOST and its companions name, else that
// socket. It does not connect.
func Open(host string) (*Engine, error) {
	opts := []client.Opt{client.FromEnv}
	if host != "" {
		opts = []client.Opt{client.WithHost(host)}
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("address of the Docker Engine %q: %w", host, err)
	}
	defer c.Close()
	return &Engine{host: c.DaemonHost(), opts: opts}, nil
}

// session is a short connection to an Engine, at the API version that the
// Engine speaks now, which an upgrade may have changed.
type session struct {
	*client.Client
	host string
}

func (e *Engine) connect(ctx context.Context) (session, error) {
	c, err := client.New(e.opts...)
	if err != nil {
		return session{}, fmt.Errorf("address of the Docker Engine %s: %w", e.host, err)
	}
	s := session{c, e.host}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		c.Close()
		return session{}, s.wrap("asking for its version", err)
	}
	return s, nil
}

// wrap says what failed, or that the Engine is away.
func (s session) wrap(doing string, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w at %s: it does not answer (%s: %w)", ErrUnavailable, s.host, doing, err)
	case client.IsErrConnectionFailed(err) && strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("%w at %s: permission denied", ErrUnavailable, s.host)
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("%w at %s: is it installed and running?", ErrUnavailable, s.host)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// find returns the network called name, or nil.
func (s session) find(ctx context.Context, name string) (*apinetwork.Inspect, error) {
	doing := "looking for Docker network " + name
	// The Engine would take a name for the beginning of an ID, too.
	filter := client.Filters{}.Add("name", "^"+regexp.QuoteMeta(name)+"$")
	list, err := s.NetworkList(ctx, client.NetworkListOptions{Filters: filter})
	if err != nil {
		return nil, s.wrap(doing, err)
	}
	list.Items = slices.DeleteFunc(list.Items, func(n apinetwork.Summary) bool { return n.Name != name })
	switch len(list.Items) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, fmt.Errorf("there are %d Docker networks called %s: remove all but one", len(list.Items), name)
	}
	found, err := s.NetworkInspect(ctx, list.Items[0].ID, client.NetworkInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil, nil // it went in between
	}
	if err != nil {
		return nil, s.wrap(doing, err)
	}
	return &found.Network, nil
}

// Ensure makes the Docker network of n what it should be, and says in words
// what was wrong and has been repaired. A network that someone else made is
// left alone: accepted if it has n's subnets and bridge, else an error.
func (e *Engine) Ensure(ctx context.Context, n Network) (repairs []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	have, what, err := s.look(ctx, n)
	if err != nil || what == "" {
		return nil, err
	}
	if have != nil {
		if err := s.remove(ctx, *have); err != nil {
			return nil, fmt.Errorf("%s and cannot be made anew: %w", what, err)
		}
	}
	err = s.create(ctx, n, request(n, s.ClientVersion()))
	if have == nil && err != nil {
		return nil, err
	}
	return []string{what}, err
}

// Check says in words what Ensure would repair, and changes nothing: nothing
// when all is right. What Ensure would refuse to touch is an error.
func (e *Engine) Check(ctx context.Context, n Network) (problem string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := e.connect(ctx)
	if err != nil {
		return "", err
	}
	defer s.Close()
	_, problem, err = s.look(ctx, n)
	return problem, err
}

// look compares the network with n. problem is what is wrong with it, in
// words; have is nil where it is missing.
func (s session) look(ctx context.Context, n Network) (have *apinetwork.Inspect, problem string, err error) {
	if !n.V4.IsValid() && !n.V6.IsValid() {
		return nil, "", fmt.Errorf("Docker network %s: it has no subnet", n.Name)
	}
	have, err = s.find(ctx, n.Name)
	if err != nil {
		return nil, "", err
	}
	if have == nil {
		return nil, fmt.Sprintf("Docker network %s was missing", n.Name), nil
	}
	want := request(n, s.ClientVersion())
	wrong := identity(*have, n, want)
	if have.Labels[Label] != n.Name {
		if len(wrong) > 0 {
			err = fmt.Errorf("Docker network %s exists with %s, not ours: remove or rename it", n.Name, strings.Join(wrong, ", "))
		}
		return have, "", err
	}
	if wrong = append(wrong, details(*have, n, want)...); len(wrong) > 0 {
		problem = fmt.Sprintf("Docker network %s had %s", n.Name, strings.Join(wrong, ", "))
	}
	return have, problem, nil
}

// create makes the network. Where the Engine refuses, the error names the
// network that stands in the way, which the Engine does not, or only by ID.
func (s session) create(ctx context.Context, n Network, want client.NetworkCreateOptions) error {
	_, err := s.NetworkCreate(ctx, n.Name, want)
	if err == nil {
		return nil
	}
	err = s.wrap(fmt.Sprintf("creating Docker network %s (%s)", n.Name, n.describe()), err)
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	list, listErr := s.NetworkList(ctx, client.NetworkListOptions{})
	if listErr != nil {
		return err // the refusal is what matters
	}
	for _, other := range list.Items {
		if why := conflict(other.Network, n); why != "" {
			return fmt.Errorf("%w: Docker network %s %s: remove or change it", err, other.Name, why)
		}
	}
	return err
}

// remove takes away a network that no container uses.
func (s session) remove(ctx context.Context, have apinetwork.Inspect) error {
	// A container that is only stopped could not be started on the next network
	// of this name.
	inUse := func(by, them string) error {
		return fmt.Errorf("Docker network %s is %w by %s: remove or disconnect %s first (docker network inspect %s)", have.Name, ErrInUse, by, them, have.Name)
	}
	switch len(have.Containers) {
	case 0:
	case 1:
		return inUse("container "+containers(have), "it")
	default:
		return inUse("containers "+containers(have), "them")
	}
	_, err := s.NetworkRemove(ctx, have.ID, client.NetworkRemoveOptions{})
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return nil
	case strings.Contains(err.Error(), "has active endpoints"):
		// A container came since we looked.
		return inUse("containers", "them")
	}
	return s.wrap("removing Docker network "+have.Name, err)
}

// Remove takes the Docker network of the overlay called name away, if it is
// ours. One that is absent or not ours is success; one that containers use is
// an error that is ErrInUse.
func (e *Engine) Remove(ctx context.Context, name string) error {
	return e.ours(ctx, name, session.remove)
}

// ours calls do with the Docker network of the overlay called name, if there is
// one and it is ours.
func (e *Engine) ours(ctx context.Context, name string, do func(session, context.Context, apinetwork.Inspect) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	have, err := s.find(ctx, name)
	if err != nil || have == nil || have.Labels[Label] != name {
		return err
	}
	return do(s, ctx, *have)
}

// Usage counts the addresses of n that running containers hold and those that
// are left; of the IPv6 half where there is no IPv4 one. A network that is not
// there has all its addresses left.
func (e *Engine) Usage(ctx context.Context, n Network) (used, free int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := e.connect(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	have, err := s.find(ctx, n.Name)
	if err != nil {
		return 0, 0, err
	}
	subnet := n.V4
	if !subnet.IsValid() {
		subnet = n.V6
	}
	if have != nil {
		for _, c := range have.Containers {
			for _, held := range []netip.Prefix{c.IPv4Address, c.IPv6Address} {
				if held.IsValid() && subnet.Contains(held.Addr()) {
					used++
				}
			}
		}
	}
	return used, max(capacity(subnet)-used, 0), nil
}
