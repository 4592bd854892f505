package integration

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// TestEnvironment: whatever a runtime sets the variables to, the plugins
// succeed or say why not, and leave nothing.
func TestEnvironment(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	dir := plugins(t)
	netns := newNetns(t, h, "c")
	conf := must[[]byte](t)(json.Marshal(netConf("dual", "1.1.0")))
	odd := map[string][]string{
		"CNI_CONTAINERID": {"", "c", "-c", "c/../../c", "c d", strings.Repeat("c", 200), "c\nd", "…"},
		"CNI_IFNAME":      {"", "eth0", ".", "..", "eth0:1", "eth/0", strings.Repeat("e", 15), strings.Repeat("e", 16), "all", "default"},
		"CNI_NETNS":       {"", netns, "/nowhere", "/", "relative", "/proc/self/ns/net", "/proc/self/ns/mnt", "/dev/null"},
		"CNI_ARGS":        {"", "IP=", "IP=10.64.0.9", "IP=10.64.0.9;IP=10.64.0.8", "MAC=zz", "=;;=;", "K8S_POD_NAME=x", strings.Repeat("a=b;", 5000)},
		"CNI_PATH":        {"", dir, "/nowhere", ":::", "relative"},
	}
	usual := map[string]string{"CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": netns, "CNI_ARGS": "", "CNI_PATH": dir}
	runs := 0
	for name, values := range odd {
		for _, value := range values {
			for _, plugin := range []string{"dcos-overlay", "dcos-ipam"} {
				for _, verb := range []string{"ADD", "CHECK", "STATUS", "GC", "DEL", "add", "", "VERSION"} {
					env := []string{"CNI_COMMAND=" + verb, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
					for k, v := range usual {
						if k == name {
							v = value
						}
						env = append(env, k+"="+v)
					}
					r := must[lab.Result](t)(h.Exec(ctx, lab.Command{Args: []string{filepath.Join(dir, plugin)}, Env: env, Stdin: conf}))
					var failure types.Error
					if r.Code > 1 || r.Code == 1 && (strictly([]byte(r.Stdout), &failure) != nil || failure.Msg == "") {
						t.Errorf("%s %s with %s=%.60q ends with %d: %s%s", plugin, verb, name, value, r.Code, r.Stdout, r.Stderr)
					}
					runs++
				}
				// Odd as it was, a runtime that can ADD by it can DEL by it.
				if left := nothingOf(t, h); left != "" {
					t.Fatalf("%s with %s=%.60q has left:\n%s", plugin, name, value, left)
				}
			}
		}
	}
	t.Logf("%d runs", runs)
	// Nor does it matter what is on stdin.
	for _, stdin := range []string{"", "null", "[]", "{", `{"name":"dual"`, `{"name":"../x"}`, fmt.Sprintf(`{"name":"dual","cniVersion":"1.0.0","x":%q}`, strings.Repeat("x", 1<<20)), strings.Repeat("[", 100000)} {
		for _, verb := range []string{"ADD", "CHECK", "STATUS", "GC", "DEL"} {
			env := []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_NETNS=" + netns, "CNI_PATH=" + dir}
			r := must[lab.Result](t)(h.Exec(ctx, lab.Command{Args: []string{filepath.Join(dir, "dcos-overlay")}, Env: env, Stdin: []byte(stdin)}))
			var failure types.Error
			if r.Code > 1 || r.Code == 1 && strictly([]byte(r.Stdout), &failure) != nil {
				t.Errorf("%s with %.40q on stdin ends with %d: %s%s", verb, stdin, r.Code, r.Stdout, r.Stderr)
			}
		}
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
