package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/headroom"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/server"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	startTimeout = time.Minute
	// headerTimeout bounds how long a request may take to come.
	headerTimeout = 5 * time.Second
)

// Calls that the coordinator has for the sake of measuring.
const (
	pathRaw    = "/bench/raw"
	pathMemory = "/bench/memory"
)

// memory is how much of it the coordinator uses, in bytes.
type memory struct {
	// Heap is what Go's heap holds after a collection, without the headroom.
	Heap uint64 `json:"heap"`
	// RSS is what the process has in memory; Anonymous is the part that is
	// not the database's file.
	RSS       uint64 `json:"rss"`
	Anonymous uint64 `json:"anonymous"`
}

// serve is the coordinator's own parts, put together as its main does, on
// loopback. It says its address and ends when its input does.
func serve(ctx context.Context, dir string, bits int) (err error) {
	defer headroom.Take().Release()
	ctx, cancel := withInput(ctx)
	defer cancel()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println(listener.Addr())
	starting, started := context.WithTimeout(ctx, startTimeout)
	store, err := etcd.Start(starting, dir)
	started()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	reg := registry.New(store.Client, registry.Options{MaxTxnOps: store.MaxTxnOps(), Log: log})
	if _, err := reg.Seed(ctx, configuration(bits)); err != nil {
		return err
	}
	h := &http.Server{Handler: measured(store.Client, server.New(server.Options{Registry: reg, Log: log}).Handler()), ReadHeaderTimeout: headerTimeout}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return reg.Run(ctx) })
	group.Go(func() error {
		if err := h.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return h.Close()
	})
	return group.Wait()
}

// withInput is ctx until this process's input ends.
func withInput(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx, cancel
}

func configuration(bits int) network.Network {
	return network.Network{
		VTEPSubnet: netip.MustParsePrefix("44.128.0.0/12"),
		VTEPMACOUI: "70:B3:D5:00:00:00",
		Overlays:   []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: bits}},
	}
}

// measured adds the calls for measuring to h. Since a few connections act for
// all agents, the address that a call is about is taken for the caller's.
func measured(etcd *clientv3.Client, h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(pathRaw, func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err == nil {
			var took time.Duration
			if took, err = creates(r.Context(), []*clientv3.Client{etcd}, r.URL.Query().Get("round"), n); err == nil {
				answer(w, took)
				return
			}
		}
		http.Error(w, err.Error(), http.StatusInternalServerError)
	})
	mux.HandleFunc(pathMemory, func(w http.ResponseWriter, _ *http.Request) {
		m, err := usedMemory()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, m)
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.Handle("/", h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, api.PathAgents+"/")
		if !ok {
			mux.ServeHTTP(w, r)
			return
		}
		ip, _, _ := strings.Cut(rest, "/")
		r.RemoteAddr = net.JoinHostPort(ip, "1")
		h.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, v any) {
	// A caller that does not take its answer has gone away.
	_ = json.NewEncoder(w).Encode(v)
}

// numbers are those below n, for whoever takes them first.
func numbers(n int) <-chan int {
	out := make(chan int, n)
	for i := range n {
		out <- i
	}
	close(out)
	return out
}

func usedMemory() (memory, error) {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m := memory{Heap: stats.HeapAlloc - headroom.Size}
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return m, fmt.Errorf("read this process's memory: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		n, _ := strconv.ParseUint(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			m.RSS = n << 10
		case "RssAnon:":
			m.Anonymous = n << 10
		}
	}
	return m, nil
}
