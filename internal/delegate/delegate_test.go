package delegate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// script is a plugin that does what body says.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExecPlugin(t *testing.T) {
	var e Exec
	out, err := e.ExecPlugin(t.Context(), script(t, `echo "$WHO"; cat`), []byte("stdin"), []string{"WHO=me", "PATH=" + os.Getenv("PATH")})
	if err != nil || string(out) != "me\nstdin" {
		t.Errorf("got %q, %v", out, err)
	}
	_, err = e.ExecPlugin(t.Context(), script(t, `echo '{"code": 11, "msg": "later", "details": "why"}'; exit 1`), nil, nil)
	var said *types.Error
	if !errors.As(err, &said) || said.Code != 11 || said.Msg != "later" || said.Details != "why" {
		t.Errorf("got %v", err)
	}
	_, err = e.ExecPlugin(t.Context(), script(t, `echo oops >&2; exit 3`), nil, nil)
	if err == nil || !strings.Contains(err.Error(), "status 3") || !strings.Contains(err.Error(), "oops") {
		t.Errorf("got %v", err)
	}
	if _, err := e.ExecPlugin(t.Context(), "/nowhere/plugin", nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestDeadlineEndsChildrenToo: the plugin's child holds its output open.
func TestDeadlineEndsChildrenToo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	var e Exec
	_, err := e.ExecPlugin(ctx, script(t, "sleep 600 & sleep 600"), nil, []string{"PATH=" + os.Getenv("PATH")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
}
