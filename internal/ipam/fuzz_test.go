package ipam

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

// junk puts something at name in a store, if it can be there.
func junk(dir, name string, kind byte, content []byte) {
	if !filepath.IsLocal(name) {
		return
	}
	path := filepath.Join(dir, name)
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	switch kind % 6 {
	case 0:
		_ = os.WriteFile(path, content, 0o600)
	case 1:
		_ = os.Mkdir(path, 0o755)
	case 2:
		_ = os.MkdirAll(filepath.Join(path, "more"), 0o755)
	case 3:
		_ = os.Symlink(string(bytes.Trim(content, "\x00")), path)
	case 4:
		_ = unix.Mkfifo(path, 0o600)
	case 5:
		_ = os.WriteFile(path, content, 0)
	}
}

// FuzzStore has a store in which somebody has put two things: whatever they
// are, no call panics or waits for ever, no address is given twice, and a
// Release frees all that the owner had.
func FuzzStore(f *testing.F) {
	const record = `{"container_id":"a","if_name":"eth0","netns":{"path":"/ns","inode":7,"device":1},"stamp":1}`
	s := &store{dir: "."}
	for kind := range byte(6) {
		f.Add("10.0.0.2", kind, []byte("x\r\neth0"), "10.0.0.3", byte(0), []byte("a\r\neth0"))
		f.Add("10.0.0.2", byte(0), []byte(" \n"), "last_reserved_ip.0", kind, []byte("10.0.0.4"))
		f.Add("lock", kind, []byte("x"), "10.0.0.5", byte(0), []byte{})
		f.Add(".new", kind, []byte("x"), "fd00:0::2", byte(0), []byte("b\r\neth0"))
		f.Add(s.recordPath(owner("a")), kind, []byte(record), "10.0.0.2", kind, []byte("a\r\neth0"))
		f.Add(".owners", kind, []byte("x"), "::ffff:10.0.0.2", byte(0), []byte("a\r\neth0"))
		f.Add("last_reserved_ip.1", kind, []byte("10.0.0.2"), "fd00::2", kind, []byte("no line break"))
	}
	f.Fuzz(func(t *testing.T, name string, kind byte, content []byte, name2 string, kind2 byte, content2 []byte) {
		p := Pool{Dir: t.TempDir(), Overlay: "o", V4: side("10.0.0.0/29"), V6: side("fd00::/125")}
		if err := os.Mkdir(p.dir(), 0o755); err != nil {
			t.Fatal(err)
		}
		junk(p.dir(), name, kind, content)
		junk(p.dir(), name2, kind2, content2)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()

		before := owners(t, p)
		given := map[string]Owner{}
		for _, id := range []string{"a", "b", "c"} {
			home := &Home{Netns: sandbox.ID{Path: "/ns", Inode: 7}}
			addrs, err := p.Reserve(ctx, owner(id), home, nil)
			var has *DuplicateError
			if err != nil && !errors.As(err, &has) && strings.Contains(owners(t, p).of(owner(id)), ",") {
				t.Errorf("%s failed with %v, and holds %s", id, err, owners(t, p).of(owner(id)))
			}
			for _, a := range addrs {
				text := a.Prefix.Addr().String()
				if other, taken := given[text]; taken || before[text] != "" {
					t.Errorf("%s of %s%s is given to %s as well", text, other, before[text], id)
				}
				given[text] = owner(id)
			}
		}
		// Their answers are whatever they are, but they answer.
		_, _, _ = p.Usage(ctx)
		_ = p.Available(ctx)
		entries, _ := p.Entries(ctx)
		_, _ = p.Remove(ctx, entries, func(Entry) bool { return false })
		_ = p.Adopt(ctx, owner("d"), Home{Netns: sandbox.ID{Path: "/ns", Inode: 7}})
		_, _ = p.Home(owner("a"))
		_, _ = Stores(p.Dir)
		if ctx.Err() != nil {
			t.Error("something waits")
		}

		for _, id := range []string{"a", "b", "c", "d"} {
			err := p.Release(ctx, owner(id))
			// Without its lock a store can't be changed, and has given nothing.
			if err != nil && len(given) > 0 {
				t.Errorf("release %s: %v", id, err)
			}
			if held := owners(t, p).of(owner(id)); err == nil && held != "" {
				t.Errorf("%s still holds %s", id, held)
			}
		}
		for addr, who := range before {
			gone := who == ownerText("a", "eth0") || who == ownerText("b", "eth0") || who == ownerText("c", "eth0") || who == ownerText("d", "eth0")
			if now := owners(t, p)[addr]; !gone && now != who {
				t.Errorf("%s was of %q, and is of %q", addr, who, now)
			}
		}
	})
}

// holders are the owners' texts of whole reservations, by address.
type holders map[string]string

func (h holders) of(o Owner) (addrs string) {
	for addr, who := range h {
		if who == ownerText(o.ContainerID, o.IfName) {
			addrs += addr + ","
		}
	}
	return addrs
}

// owners reads a store without the code that is tested.
func owners(t *testing.T, p Pool) holders {
	t.Helper()
	files, err := os.ReadDir(p.dir())
	if err != nil {
		t.Fatal(err)
	}
	out := holders{}
	for _, f := range files {
		name := f.Name()
		if !f.Type().IsRegular() || !strings.HasPrefix(name, "10.0.0.") && !strings.HasPrefix(name, "fd00::") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(p.dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.TrimSpace(string(data)); text != "" {
			out[name] = text
		}
	}
	return out
}
