package kernel

import (
	"context"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/dcos/dcos-overlay/internal/dataplane"
)

// TestUnchangedIsSilent: whoever looks again when a device changes must not be
// woken by the look.
func TestUnchangedIsSilent(t *testing.T) {
	k := newKernel(t)
	ensureVTEP(t, k, sampleVTEP())
	ensureBridge(t, k, sampleBridge())
	peers := dataplane.NewPeers()
	if _, err := k.SyncPeers(context.Background(), sampleVTEP().Name, peers); err != nil {
		t.Fatal(err)
	}
	updates := make(chan netlink.LinkUpdate, 100)
	done := make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		t.Fatal(err)
	}
	ensureVTEP(t, k, sampleVTEP())
	ensureBridge(t, k, sampleBridge())
	if _, err := k.SyncPeers(context.Background(), sampleVTEP().Name, peers); err != nil {
		t.Fatal(err)
	}
	// The end of what there is to hear.
	ip(t, "link add marker type veth peer name peer1")
	for u := range updates {
		if name := u.Attrs().Name; name == "marker" || name == "peer1" {
			break
		}
		t.Errorf("a look at what is right changed %s: %v", u.Attrs().Name, u.Link)
	}
	close(done)
	for range updates {
	}
}
