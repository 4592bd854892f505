package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"
)

// fakeEngine answers like an Engine of any API version; the tests run it as
// versions of which no real Engine is at hand. It keeps what it is told.
type fakeEngine struct {
	mu       sync.Mutex
	version  string
	networks map[string]apinetwork.Inspect // by ID
	created  []map[string]any              // bodies of requests, as sent
}

func newFake(t *testing.T, version string) (*fakeEngine, *Engine) {
	f := &fakeEngine{version: version, networks: map[string]apinetwork.Inspect{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", f.version) })
	mux.HandleFunc("GET /{version}/networks", f.list)
	mux.HandleFunc("GET /{version}/networks/{id}", f.inspect)
	mux.HandleFunc("POST /{version}/networks/create", f.create)
	mux.HandleFunc("DELETE /{version}/networks/{id}", f.remove)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if r.URL.Path != "/_ping" && !strings.HasPrefix(r.URL.Path, "/v"+f.version+"/") {
			fail(w, http.StatusBadRequest, "client version is not "+f.version)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	e, err := Open("tcp://" + server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return f, e
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": message})
}

func (f *fakeEngine) list(w http.ResponseWriter, _ *http.Request) {
	all := []apinetwork.Network{}
	for _, n := range f.networks {
		all = append(all, n.Network)
	}
	json.NewEncoder(w).Encode(all)
}

func (f *fakeEngine) inspect(w http.ResponseWriter, r *http.Request) {
	n, there := f.networks[r.PathValue("id")]
	if !there {
		fail(w, http.StatusNotFound, "network "+r.PathValue("id")+" not found")
		return
	}
	json.NewEncoder(w).Encode(n)
}

func (f *fakeEngine) create(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	f.created = append(f.created, body)
	var req apinetwork.CreateRequest
	raw, _ := json.Marshal(body)
	if err := json.Unmarshal(raw, &req); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	for _, n := range f.networks {
		if n.Name == req.Name {
			fail(w, http.StatusConflict, "network with name "+req.Name+" already exists")
			return
		}
	}
	on := func(b *bool, otherwise bool) bool {
		if b == nil {
			return otherwise
		}
		return *b
	}
	id := fmt.Sprintf("%064d", len(f.created))
	f.networks[id] = apinetwork.Inspect{Network: apinetwork.Network{
		Name: req.Name, ID: id, Driver: req.Driver, IPAM: *req.IPAM, Options: req.Options, Labels: req.Labels,
		EnableIPv4: on(req.EnableIPv4, true), EnableIPv6: on(req.EnableIPv6, false),
	}}
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(apinetwork.CreateResponse{ID: id})
}

func (f *fakeEngine) remove(w http.ResponseWriter, r *http.Request) {
	n, there := f.networks[r.PathValue("id")]
	if !there {
		fail(w, http.StatusNotFound, "network not found")
		return
	}
	if len(n.Containers) > 0 {
		fail(w, http.StatusForbidden, "error while removing network: network "+n.Name+" has active endpoints")
		return
	}
	delete(f.networks, n.ID)
	w.WriteHeader(http.StatusNoContent)
}

func TestWhatEachVersionIsAsked(t *testing.T) {
	const options = `"com.docker.network.bridge.enable_ip_masquerade": "false", "com.docker.network.driver.mtu": "1420"`
	for _, tt := range []struct {
		version string
		network Network
		body    string
	}{{"1.41", net4(), `{"Name": "dcos", "Driver": "bridge", "Labels": {"dcos-overlay": "dcos"},
		"IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "9.0.1.128/25", "Gateway": "9.0.1.129"}]},
		"Options": {"com.docker.network.bridge.name": "d-dcos", ` + options + `}}`,
	}, {"1.47", net6(), `{"Name": "dcos6", "Driver": "bridge", "Labels": {"dcos-overlay": "dcos6"}, "EnableIPv6": true,
		"IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "fd01:b::1:8000:0:0/81", "Gateway": "fd01:b::1:8000:0:1"}]},
		"Options": {"com.docker.network.bridge.name": "d-dcos6", ` + options + `}}`,
	}, {"1.48", net4(), `{"Name": "dcos", "Driver": "bridge", "Labels": {"dcos-overlay": "dcos"},
		"IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "9.0.1.128/25", "Gateway": "9.0.1.129"}]},
		"Options": {"com.docker.network.bridge.name": "d-dcos", "com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected", ` + options + `}}`,
	}, {"1.52", net6(), `{"Name": "dcos6", "Driver": "bridge", "Labels": {"dcos-overlay": "dcos6"}, "EnableIPv4": false, "EnableIPv6": true,
		"IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "fd01:b::1:8000:0:0/81", "Gateway": "fd01:b::1:8000:0:1"}]},
		"Options": {"com.docker.network.bridge.name": "d-dcos6", "com.docker.network.bridge.gateway_mode_ipv6": "nat-unprotected", ` + options + `}}`,
	}} {
		t.Run(tt.version+" "+tt.network.Name, func(t *testing.T) {
			f, e := newFake(t, tt.version)
			// An Engine takes the name that it is asked for as a pattern.
			f.networks["other"] = apinetwork.Inspect{Network: apinetwork.Network{ID: "other", Name: "x" + tt.network.Name + "x"}}
			for range 2 {
				if _, err := e.Ensure(context.Background(), tt.network); err != nil {
					t.Fatal(err)
				}
			}
			if len(f.created) != 1 {
				t.Fatalf("%d networks were created", len(f.created))
			}
			for _, unused := range []string{"Attachable", "ConfigFrom", "ConfigOnly", "Ingress", "Internal", "Scope"} {
				if v := f.created[0][unused]; v == nil || v == false || v == "" {
					delete(f.created[0], unused)
				}
			}
			var want map[string]any
			if err := json.Unmarshal([]byte(tt.body), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(f.created[0], want) {
				got, _ := json.Marshal(f.created[0])
				t.Errorf("sent was\n%s\nwanted\n%s", got, tt.body)
			}
		})
	}
}

// TestUpgradedEngine has an Engine come back as a version that drops routed
// traffic unless told otherwise.
func TestUpgradedEngine(t *testing.T) {
	f, e := newFake(t, "1.41")
	ctx := context.Background()
	if _, err := e.Ensure(ctx, net4()); err != nil {
		t.Fatal(err)
	}
	f.version = "1.48"
	for id, n := range f.networks {
		n.Containers = map[string]apinetwork.EndpointResource{"x": {Name: "web", IPv4Address: netip.MustParsePrefix("9.0.1.130/25")}}
		f.networks[id] = n
	}
	const wrong = "Docker network dcos had option com.docker.network.bridge.gateway_mode_ipv4 none instead of nat-unprotected"
	_, err := e.Ensure(ctx, net4())
	if !errors.Is(err, ErrInUse) || err.Error() != wrong+" and cannot be made anew: Docker network dcos is in use by container web: remove or disconnect it first (docker network inspect dcos)" {
		t.Errorf("in use: %v", err)
	}
	for id, n := range f.networks {
		n.Containers = nil
		f.networks[id] = n
	}
	repairs, err := e.Ensure(ctx, net4())
	if err != nil || len(repairs) != 1 || repairs[0] != wrong {
		t.Errorf("unused: %q, %v", repairs, err)
	}
}

func TestTooOldEngine(t *testing.T) {
	_, e := newFake(t, "1.39")
	_, err := e.Ensure(context.Background(), net4())
	if err == nil || !strings.Contains(err.Error(), "1.39") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
}

func TestCapacity(t *testing.T) {
	for subnet, want := range map[string]int64{
		"9.0.1.128/25":          125,
		"9.0.1.128/31":          0,
		"fd01:b::1:8000:0:0/81": 1<<47 - 2,
		"fd01:b::/64":           1<<63 - 1,
	} {
		if got := capacity(netip.MustParsePrefix(subnet)); got != want {
			t.Errorf("%s has %d addresses for containers, want %d", subnet, got, want)
		}
	}
}
