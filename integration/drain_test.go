package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/api"
)

// draining is a scene with a third agent, and overlay web, whose containers
// are on a and b.
type draining struct {
	*testing.T
	*scene.Scene
	c *lab.Host
}

func newDraining(t *testing.T) *draining {
	d := &draining{T: t, Scene: newScene(t)}
	ctx := t.Context()
	check(t, d.Up(ctx))
	d.c = must[*lab.Host](t)(d.Lab.AddHost(ctx, "c", netip.MustParseAddr("172.17.0.5")))
	conf := must[[]byte](t)(d.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	d.Companions["c"] = must[*lab.Process](t)(d.c.StartCompanion(ctx, conf))
	return d
}

func (d *draining) hosts() []*lab.Host { return []*lab.Host{d.Master, d.A, d.B, d.c} }

// call asks the coordinator about overlay web.
func (d *draining) call(method, query, body string, want int) api.Overlay {
	d.Helper()
	url := d.Master.CoordinatorURL() + "/v1/overlays/web" + query
	code, answer, err := d.Master.HTTP(d.Context(), method, url, []byte(body))
	if err != nil || code != want {
		d.Fatalf("%s %s: %d %s, %v; want %d", method, url, code, answer, err, want)
	}
	var o api.Overlay
	if len(answer) > 0 {
		check(d.T, json.Unmarshal(answer, &o))
	}
	return o
}

func (d *draining) until(what string, f func(ctx context.Context) error) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), hang)
	defer cancel()
	check(d.T, lab.Until(ctx, what, f))
}

// holders waits until so many agents hold of web, which is being deleted.
func (d *draining) holders(n int) {
	d.Helper()
	d.until(fmt.Sprintf("%d agents to hold of web", n), func(context.Context) error {
		o := d.call(http.MethodGet, "", "", http.StatusOK)
		if !o.Deleting || o.IsEnabled() || o.Holders != n {
			return fmt.Errorf("it is %+v", o)
		}
		return nil
	})
}

// clean waits until nothing of web is on any host, nor at the coordinator.
func (d *draining) clean(ranges ...string) {
	d.Helper()
	d.until("overlay web to be gone", func(ctx context.Context) error {
		code, _, err := d.Master.HTTP(ctx, http.MethodGet, d.Master.CoordinatorURL()+"/v1/overlays/web", nil)
		if err == nil && code != http.StatusNotFound {
			err = fmt.Errorf("the coordinator answers %d", code)
		}
		return err
	})
	for _, h := range d.hosts() {
		d.until("host "+h.Name+" without web", func(context.Context) error {
			left := remains(d.T, d.Scene, h)
			for _, word := range append(ranges, "web") {
				if strings.Contains(left, word) {
					return fmt.Errorf("there is %s", left)
				}
			}
			return nil
		})
	}
}

// bare waits until web has no bridge and no Docker network on host h.
func (d *draining) bare(h *lab.Host) {
	d.Helper()
	untilHost(d.T, h, "no bridge and no network web", lacks("-web", " web "), "ip -o link; docker network ls 2>/dev/null; true")
}

// crowd starts a container of each kind on a and b, which all reach the first.
func (d *draining) crowd(suffix string) []*lab.Container {
	d.Helper()
	ctx := d.Context()
	var out []*lab.Container
	for _, h := range d.Agents() {
		d.until("Docker network web on host "+h.Name, func(ctx context.Context) error {
			_, err := h.Run(ctx, "docker", "network", "inspect", "web")
			return err
		})
		out = append(out,
			must[*lab.Container](d.T)(h.MesosContainer(ctx, lab.MesosTask{ID: "m" + suffix, Conf: scene.CNI("web")})),
			must[*lab.Container](d.T)(h.DockerContainer(ctx, "d"+suffix, "web")))
	}
	must[*lab.Process](d.T)(out[0].Serve(ctx, scene.Port))
	for _, c := range out[1:] {
		d.until("a container to reach the first", func(ctx context.Context) error {
			seen, err := c.Dial(ctx, serverOf(out[0]))
			if err == nil && seen.Addr() != c.IP4 {
				err = fmt.Errorf("%s is seen as %s", c.IP4, seen)
			}
			return err
		})
	}
	return out
}

// refuses wants host h to start no more containers on web, and to say so.
func (d *draining) refuses(h *lab.Host, says string) {
	d.Helper()
	ctx := d.Context()
	_, err := h.MesosContainer(ctx, lab.MesosTask{ID: "late", Conf: scene.CNI("web")})
	if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), `"code": 102`) {
		d.Errorf("a container that comes late is answered %v; want code 102 and %q", err, says)
	}
	r := must[lab.Result](d.T)(h.MesosDel(ctx, lab.MesosTask{ID: "late", Conf: scene.CNI("web")}))
	if r.Code != 0 {
		d.Errorf("its DEL fails: %s", r.Stdout)
	}
}

// TestDrain deletes an overlay that containers of both kinds are on: they talk
// on, no more are started, and with the last of them the overlay is gone by
// itself. Then it is made anew with another range, and taken by force.
func TestDrain(t *testing.T) {
	t.Parallel()
	d := newDraining(t)
	ctx := t.Context()
	d.call(http.MethodPut, "", `{"subnet": "10.20.0.0/16", "prefix": 26}`, http.StatusCreated)
	crowd := d.crowd("1")

	d.call(http.MethodDelete, "", "", http.StatusAccepted)
	// The master, which needs none of it, and b, whose containers stay.
	d.holders(2)
	d.refuses(d.A, "overlay web is being deleted, and takes no more containers")
	d.refuses(d.c, "overlay web is being deleted: nothing is leased from it")
	d.until("companion a to say what it waits for", func(ctx context.Context) error {
		const says = "overlay web is being deleted, and is held until it is unused: 1 addresses are reserved for Mesos containers and Docker network web is in use by container d1"
		code, health, err := d.A.HTTP(ctx, http.MethodGet, "http://127.0.0.1:64002/healthz", nil)
		if err == nil && (code != http.StatusOK || !strings.Contains(string(health), says)) {
			err = fmt.Errorf("it says %d %s", code, health)
		}
		return err
	})
	awaitState(t, d.Scene, "STATUS_OK", "")
	for i, c := range crowd {
		last := crowd[len(crowd)-1]
		if seen, err := last.Dial(ctx, serverOf(crowd[0])); i == 0 && (err != nil || seen.Addr() != last.IP4) {
			t.Errorf("while it drains a container is seen as %s, %v", seen, err)
		}
		check(t, c.Delete(ctx))
		switch i {
		case 0:
			// Docker's on the same host are no others.
			d.holders(2)
		case 1:
			d.holders(1)
			d.bare(d.A)
		}
	}
	d.clean("10.20.")

	// Under the same name, somewhere else.
	d.call(http.MethodPut, "", `{"subnet": "10.30.0.0/16", "prefix": 25}`, http.StatusCreated)
	crowd = d.crowd("2")
	for _, c := range crowd {
		if !netip.MustParsePrefix("10.30.0.0/16").Contains(c.IP4) {
			t.Errorf("a container has %s", c.IP4)
		}
	}
	d.call(http.MethodDelete, "?force=true", "", http.StatusNoContent)
	for _, h := range d.hosts() {
		d.bare(h)
	}
	for _, c := range crowd {
		check(t, c.Delete(ctx))
	}
	d.clean("10.30.")
	d.until("all as before", d.AwaitPeers)
}

// TestDrainBroughtBack: a PUT ends a drain, and the lease is as before.
func TestDrainBroughtBack(t *testing.T) {
	d := newDraining(t)
	ctx := t.Context()
	const web = `{"subnet": "10.20.0.0/16", "prefix": 26}`
	d.call(http.MethodPut, "", web, http.StatusCreated)
	crowd := d.crowd("1")
	d.call(http.MethodDelete, "", "", http.StatusAccepted)
	d.holders(2)
	// b has no companion to tell it that the overlay is back, and asks.
	check(t, d.Companions["b"].Stop(ctx))
	d.refuses(d.B, "overlay web is being deleted, and takes no more containers")
	d.call(http.MethodPut, "", web, http.StatusOK)
	for _, h := range d.Agents() {
		d.until("host "+h.Name+" to take containers", func(ctx context.Context) error {
			c, err := h.MesosContainer(ctx, lab.MesosTask{ID: fmt.Sprint("again", time.Now().UnixNano()), Conf: scene.CNI("web")})
			if err != nil {
				return err
			}
			seen, err := c.Dial(ctx, serverOf(crowd[0]))
			if err == nil && seen.Addr() != c.IP4 {
				err = fmt.Errorf("seen as %s", seen)
			}
			return errors.Join(err, c.Delete(ctx))
		})
	}
	if o := d.call(http.MethodGet, "", "", http.StatusOK); o.Deleting || !o.IsEnabled() {
		t.Errorf("the overlay is %+v", o)
	}
}
