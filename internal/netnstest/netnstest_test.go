package netnstest

import (
	"strings"
	"testing"

	"github.com/vishvananda/netns"
)

func TestEnter(t *testing.T) {
	here := func() string {
		ns, err := netns.Get()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		return ns.UniqueId()
	}
	before, inside := here(), ""
	t.Run("inside", func(t *testing.T) {
		ns := Enter(t)
		if inside = here(); inside != ns.UniqueId() {
			t.Errorf("the test is in %s, and not in the new namespace %s", inside, ns.UniqueId())
		}
		Run(t, "ip link add m-dcos type bridge")
		if links := Run(t, "ip -o link"); strings.Count(links, "\n") != 2 || !strings.Contains(links, "lo: <LOOPBACK,UP") {
			t.Errorf("the devices are\n%s", links)
		}
	})
	if inside == before {
		t.Error("the namespace is not a new one")
	}
	if after := here(); after != before {
		t.Errorf("the test is in %s afterwards, and was in %s", after, before)
	}
}
