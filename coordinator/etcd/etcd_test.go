package etcd

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestStartKeepsAndLocks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	s, err := Open(t.Context(), dir, Access{}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	if other, err := Start(t.Context(), dir); err == nil {
		t.Error("two on one directory")
		_ = other.Close()
	} else if want := "another coordinator uses it (process " + strconv.Itoa(os.Getpid()) + ")"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Watch(ctx); err != nil {
		t.Errorf("Watch when stopping: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := Start(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Client.Get(t.Context(), "k")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	again.server.Server.HardStop()
	if err := again.Watch(t.Context()); err == nil {
		t.Error("Watch does not tell that etcd stopped by itself")
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), file); err == nil || !strings.Contains(err.Error(), "make data directory") {
		t.Errorf("got %v", err)
	}
}

func TestDialDoesNotWait(t *testing.T) {
	s, err := Open(t.Context(), "", Access{Endpoints: []string{"http://127.0.0.1:1"}}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
