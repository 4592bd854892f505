package lab_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// stockConf is the stock bridge plugin with host-local, both families.
func stockConf(version string) []byte {
	return fmt.Appendf(nil, `{"cniVersion": %q, "name": "stock", "type": "bridge", "bridge": "br-stock",
		"isGateway": true, "ipam": {"type": "host-local", "ranges": [
			[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]]}}`, version)
}

// checkPair has one container dial the other, by both families.
func checkPair(t *testing.T, from, to *lab.Container) {
	t.Helper()
	if _, err := to.Serve(t.Context(), 80); err != nil {
		t.Fatal(err)
	}
	from4, from6 := from.Addrs()
	to4, to6 := to.Addrs()
	for addr, want := range map[netip.Addr]netip.Addr{to4: from4, to6: from6} {
		seen, err := from.Dial(t.Context(), netip.AddrPortFrom(addr, 80))
		if err != nil {
			t.Error(err)
		} else if seen.Addr() != want {
			t.Errorf("%s is seen as %s", want, seen)
		}
	}
}

func TestMesosContainer(t *testing.T) {
	_, hosts := newLab(t, 1)
	ctx, a := t.Context(), hosts[0]
	var cs []*lab.Container
	for _, id := range []string{"one", "two"} {
		c, err := a.MesosContainer(ctx, lab.MesosTask{ID: id, Conf: stockConf("0.2.0")})
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	checkPair(t, cs[0], cs[1])
	for _, c := range cs {
		if err := c.Delete(ctx); err != nil {
			t.Error(err)
		}
	}
	if out, err := a.Run(ctx, "find", "/var/lib/cni/networks", "/run/mesos/isolators", "-name", "10.*", "-o", "-name", "ns"); err != nil || out != "" {
		t.Errorf("after the last DEL there is %q, %v", out, err)
	}
	if _, err := a.MesosContainer(ctx, lab.MesosTask{ID: "new", Conf: stockConf("1.0.0")}); err == nil || !strings.Contains(err.Error(), "newer than") {
		t.Errorf("a result that Mesos can't read: %v", err)
	}
}

// fakePlugin tells what it is given, and fails if the container's name says
// so.
const fakePlugin = `#!/bin/sh
echo "config $(cat)" >>/tmp/calls
env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | sort >>/tmp/calls
case "$CNI_CONTAINERID $CNI_COMMAND" in
"bad ADD") echo '{"code": 11, "msg": "no luck"}'; echo trouble >&2; exit 1 ;;
*ADD) echo '{"ip4": {"ip": "10.1.2.3/24"}}' ;;
esac
`

// TestMesosExec checks the exec itself: environment, config, failure.
func TestMesosExec(t *testing.T) {
	_, hosts := newLab(t, 1)
	ctx, a := t.Context(), hosts[0]
	if err := a.WriteFile(ctx, "/opt/plugins/fake", []byte(fakePlugin)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Run(ctx, "chmod", "+x", "/opt/plugins/fake"); err != nil {
		t.Fatal(err)
	}
	task := lab.MesosTask{
		ID:          "good",
		Conf:        []byte(`{"name": "net", "type": "fake", "args": {"other": 1}}`),
		PluginsDir:  "/opt/plugins",
		NetworkInfo: map[string]any{"groups": []string{"public"}},
	}
	c, err := a.MesosContainer(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	if c.IP4 != netip.MustParseAddr("10.1.2.3") || c.IP6.IsValid() {
		t.Errorf("the container has %s, %s", c.IP4, c.IP6)
	}
	calls, err := a.ReadFile(ctx, "/tmp/calls")
	if err != nil {
		t.Fatal(err)
	}
	config, env, _ := strings.Cut(strings.TrimPrefix(string(calls), "config "), "\n")
	var got struct {
		Args struct {
			Other int
			Mesos struct {
				Info struct {
					Name   string
					Groups []string
				} `json:"network_info"`
			} `json:"org.apache.mesos"`
		}
	}
	if err := json.Unmarshal([]byte(config), &got); err != nil {
		t.Fatalf("the plugin was given %q: %v", config, err)
	}
	if got.Args.Other != 1 || got.Args.Mesos.Info.Name != "net" || fmt.Sprint(got.Args.Mesos.Info.Groups) != "[public]" {
		t.Errorf("the plugin was given %q", config)
	}
	want := `CNI_COMMAND=ADD
CNI_CONTAINERID=good
CNI_IFNAME=eth0
CNI_NETNS=/run/mesos/isolators/network/cni/good/ns
CNI_PATH=/opt/plugins
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
`
	if env != want {
		t.Errorf("the plugin's environment is\n%s, not\n%s", env, want)
	}
	if err := c.Delete(ctx); err != nil {
		t.Error(err)
	}

	task.ID = "bad"
	_, err = a.MesosContainer(ctx, task)
	if err == nil || !strings.Contains(err.Error(), "no luck") || !strings.Contains(err.Error(), "trouble") {
		t.Errorf("a plugin that fails: %v", err)
	}
	if there, err := a.Exists(ctx, "/run/mesos/isolators/network/cni/bad"); err != nil || there {
		t.Errorf("the handle of the failed container is there: %v, %v", there, err)
	}
	if r, err := a.MesosAdd(ctx, task); err != nil || r.Code != 1 || r.Stderr != "trouble\n" {
		t.Errorf("MesosAdd of a plugin that fails: %+v, %v", r, err)
	}
	// After a reboot there is no handle.
	if r, err := a.MesosDel(ctx, task); err != nil || r.Code != 0 {
		t.Errorf("MesosDel: %+v, %v", r, err)
	}
	calls, err = a.ReadFile(ctx, "/tmp/calls")
	if err != nil {
		t.Fatal(err)
	}
	if last := string(calls[strings.LastIndex(string(calls), "config "):]); strings.Contains(last, "CNI_NETNS") {
		t.Errorf("DEL without a handle has CNI_NETNS: %s", last)
	}
}

func TestCNIToolContainer(t *testing.T) {
	_, hosts := newLab(t, 1)
	ctx, a := t.Context(), hosts[0]
	list := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "stock", "plugins": [%s]}`, stockConf("1.0.0"))
	one, err := a.CNIToolContainer(ctx, "one", []byte(list))
	if err != nil {
		t.Fatal(err)
	}
	two, err := a.CNIToolContainer(ctx, "two", stockConf("0.2.0"))
	if err != nil {
		t.Fatal(err)
	}
	checkPair(t, two, one)
	for _, c := range []*lab.Container{one, two} {
		if err := c.Delete(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestDockerOnTwoHosts(t *testing.T) {
	_, hosts := newLab(t, 2)
	ctx := t.Context()
	for _, h := range hosts {
		p, err := h.StartDocker(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// The same names and addresses on both: they know nothing of each
		// other.
		if _, err := h.Run(ctx, "docker", "network", "create", "--subnet", "10.98.0.0/24", "--ipv6", "--subnet", "fd98::/64",
			"-o", "com.docker.network.bridge.name=br-test", "test"); err != nil {
			t.Fatal(err)
		}
		one, err := h.DockerContainer(ctx, "one", "test")
		if err != nil {
			t.Fatal(err)
		}
		two, err := h.DockerContainer(ctx, "two", "test", "--hostname", "second")
		if err != nil {
			t.Fatal(err)
		}
		checkPair(t, one, two)
		if out, err := h.Run(ctx, "docker", "exec", "two", "hostname"); err != nil || out != "second\n" {
			t.Errorf("docker exec: %q, %v", out, err)
		}
		if out, err := h.Run(ctx, "docker", "info", "--format", "{{.Driver}}"); err != nil || out != "overlay2\n" {
			t.Errorf("the storage driver is %q, %v", out, err)
		}
		if err := one.Delete(ctx); err != nil {
			t.Error(err)
		}
		// Two is left to the lab's end; the engine ends in good order.
		if h.Name == "a" {
			if err := p.Stop(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	if err := hosts[1].Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := hosts[1].StartDocker(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := hosts[1].Run(ctx, "docker", "start", "two"); err != nil {
		t.Error(err)
	}
}
