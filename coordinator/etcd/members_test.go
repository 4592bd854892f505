package etcd

import (
	"context"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// member starts an etcd that answers on TCP.
func member(t *testing.T) string {
	c := config(t.TempDir())
	c.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case <-t.Context().Done():
		t.Fatal("etcd does not become ready")
	}
	return "http://" + server.Clients[0].Addr().String()
}

// hanging is a member that takes connections and says nothing, as a process
// that is stopped does.
func hanging(t *testing.T) (string, net.Listener) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String(), l
}

func TestServing(t *testing.T) {
	well := member(t)
	stuck, listener := hanging(t)
	other, _ := hanging(t)
	s, err := Dial(Access{Endpoints: []string{stuck, well, other}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error)
	go func() { watched <- s.Watch(ctx) }()
	defer func() {
		cancel()
		if err := <-watched; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()

	uses := func(want ...string) {
		t.Helper()
		deadline := time.After(time.Minute)
		for !slices.Equal(s.Client.Endpoints(), want) {
			select {
			case <-deadline:
				t.Fatalf("it uses %v, want %v", s.Client.Endpoints(), want)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	uses(well)
	select {
	case <-s.Left():
	case <-time.After(time.Minute):
		t.Error("nobody is told that members are asked no more")
	}
	if _, err := s.Client.Put(ctx, "k", "v"); err != nil {
		t.Error(err)
	}
	go relay(listener, strings.TrimPrefix(well, "http://"))
	uses(stuck, well)
}

// relay lets a hanging member answer, as the one at address.
func relay(l net.Listener, address string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			to, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			defer to.Close()
			// Either end's leaving ends both: a member waits for connections
			// that have said nothing yet when it closes.
			ended := make(chan struct{}, 2)
			for _, way := range [][2]net.Conn{{to, from}, {from, to}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					ended <- struct{}{}
				}()
			}
			<-ended
		}()
	}
}

func TestNobodyServes(t *testing.T) {
	one, _ := hanging(t)
	other, _ := hanging(t)
	s, err := Dial(Access{Endpoints: []string{one, other}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	reports := probe(t.Context(), s.Client, []string{one, other})
	if use := serving(reports); len(use) != 0 {
		t.Errorf("%v do not hang", use)
	}
	if use := usable(reports); !slices.Equal(use, []string{one, other}) {
		t.Errorf("while nobody answers it uses %v", use)
	}
	// One without a leader.
	reports[1].status = &clientv3.StatusResponse{}
	if use := usable(reports); !slices.Equal(use, []string{other}) {
		t.Errorf("while one answers, and can't serve, it uses %v", use)
	}
}
