package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/api"
)

// buildTimeout bounds how long the programs are built.
const buildTimeout = 10 * time.Minute

// TestReal looks at a cluster of the built programs: a Mesos master and two
// agents with Docker Engines. Only the browser is outside of it.
func TestReal(t *testing.T) {
	l := newLab(t)
	s, err := scene.New(t.Context(), l)
	check(t, err)
	url := relay(t, s.Master)
	b := newBrowser(t)
	b.size(wide, high)
	b.scheme("light")
	b.open(url)
	contains(t, "the page", b.text("main"), "No agent yet")
	value[bool](b, `window.kept = true`)
	check(t, s.Up(t.Context()))
	b.awaitText("#found", "3 agents")
	b.await("all of them to be well", `document.querySelectorAll("#agents .badge.ok").length === 3`)

	rows := b.texts("#agents tbody tr")
	contains(t, "the master", rows[0], "172.17.0.2", "44.128.0.1")
	contains(t, "agent b", rows[1], "172.17.0.3", "9.0.")
	contains(t, "agent a", rows[2], "172.17.0.4", "9.0.")
	for _, words := range []string{"9.0.0.0/8", "3 leased", "fd01:b::/64", "44.128.0.0/20"} {
		b.awaitText("#overlays", words)
	}

	row := fmt.Sprintf(`tr[data-key="%s"]`, s.A.Addr)
	b.awaitText(row, "0 of ")
	task, err := s.A.MesosContainer(t.Context(), lab.MesosTask{ID: "a", Conf: scene.CNI("dcos")})
	check(t, err)
	t.Logf("a container: seen after %s", b.awaitText(row, "1 of ").Round(time.Millisecond))

	value[bool](b, `document.activeElement.blur(), true`)
	b.picture("page-real-light", false)
	b.scheme("dark")
	b.accessible("three agents, dark")
	b.picture("page-real-dark", false)
	b.scheme("light")
	b.accessible("three agents, light")

	value[bool](b, fmt.Sprintf(`document.querySelector('%s a').click(), true`, row))
	b.awaitText("#detail-body", "m-dcos")
	contains(t, "the detail", b.text("#detail"), "d-dcos", "m-dcos6", "d-dcos6", "70:b3:d5:80:00:", "IPv6 subnet", "1 of ")
	b.accessible("detail of a real agent")
	b.picture("page-real-agent-light", false)
	value[bool](b, `document.getElementById("detail").close(), true`)

	check(t, task.Delete(t.Context()))
	status, body, err := s.Master.HTTP(t.Context(), http.MethodPut, s.Master.CoordinatorURL()+"/v1/overlays/web", []byte(`{"subnet": "10.20.0.0/16", "prefix": 26}`))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("make an overlay: %d %s %v", status, body, err)
	}
	t.Logf("a new overlay: seen to be held by all agents after %s", b.awaitText(`#overlays tr[data-key="web"]`, "3 leased").Round(time.Millisecond))
	check(t, s.Coordinator.Kill())
	b.awaitText("#link", "Connection lost")
	contains(t, "the notice", b.text("#notice"), "What is shown is of ")
	check(t, s.StartCoordinator(t.Context()))
	t.Logf("a coordinator that was killed and is back: seen after %s", b.awaitText("#link", "Live").Round(time.Millisecond))
	if !value[bool](b, `window.kept === true && document.getElementById("notice").hidden`) {
		t.Error("the page was loaded again, or still says that the connection is lost")
	}
}

// newLab builds the programs, and makes a lab that ends with the test.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	bin, err := lab.TempDir()
	check(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(bin); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	check(t, lab.Build(ctx, bin))
	l, err := lab.New(lab.Options{Bin: bin})
	check(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// relay lets the browser, which is in the machine's network, reach the
// coordinator of a lab, and returns where.
func relay(t *testing.T, h *lab.Host) string {
	t.Helper()
	to := netip.AddrPortFrom(h.Addr, api.DefaultPort).String()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			wg.Go(func() { carry(ctx, h, client, to) })
		}
	})
	t.Cleanup(func() {
		cancel()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	return "http://127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// carry joins client with the address to, until one of both or ctx ends.
func carry(ctx context.Context, h *lab.Host, client net.Conn, to string) {
	// What fails here the browser sees as a lost connection.
	server, err := h.DialContext(ctx, "tcp", to)
	if err != nil {
		_ = client.Close()
		return
	}
	end := sync.OnceValue(func() error { return errors.Join(client.Close(), server.Close()) })
	defer context.AfterFunc(ctx, func() { _ = end() })()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = end()
		})
	}
	wg.Wait()
}
