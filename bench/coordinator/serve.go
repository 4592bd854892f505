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
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
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

// The ways to etcd: without a network between, and over TCP as claims come.
const (
	inProcess = "process"
	overGRPC  = "grpc"
)

// memory is how much of it the coordinator uses, in bytes.
type memory struct {
	// Heap is what Go's heap holds after a collection.
	Heap uint64 `json:"heap"`
	// RSS is what the process has in memory; Anonymous is the part that is
	// not the database's file.
	RSS       uint64 `json:"rss"`
	Anonymous uint64 `json:"anonymous"`
}

// serve is the coordinator's own parts, put together as its main does, on
// loopback. It says its address and ends when its input does.
func serve(ctx context.Context, dir string, bits int, compare bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
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
	etcds := map[string]*clientv3.Client{inProcess: store.Client}
	if compare {
		plain, stop, err := dialled(ctx, dir+"-plain")
		if err != nil {
			return err
		}
		defer func() {
			if err := stop(); err != nil {
				log.Warn("the etcd to compare with", "error", err)
			}
		}()
		etcds[overGRPC] = plain
	}
	h := &http.Server{Handler: measured(etcds, server.New(server.Options{Registry: reg, Log: log}).Handler()), ReadHeaderTimeout: headerTimeout}
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

func configuration(bits int) network.Network {
	return network.Network{
		VTEPSubnet: netip.MustParsePrefix("44.128.0.0/12"),
		VTEPMACOUI: "70:B3:D5:00:00:00",
		Overlays:   []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: bits}},
	}
}

// measured adds the calls for measuring to h. Since a few connections act for
// all agents, the address that a call is about is taken for the caller's.
func measured(etcds map[string]*clientv3.Client, h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(pathRaw, func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err == nil {
			var took time.Duration
			if took, err = creates(r.Context(), etcds[r.URL.Query().Get("way")], r.URL.Query().Get("round"), n); err == nil {
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
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, api.PathAgents+"/"); ok {
			ip, _, _ := strings.Cut(rest, "/")
			r.RemoteAddr = net.JoinHostPort(ip, "1")
		}
		h.ServeHTTP(w, r)
	})
	return mux
}

func answer(w http.ResponseWriter, v any) {
	// A caller that does not take its answer has gone away.
	_ = json.NewEncoder(w).Encode(v)
}

// dialled is an etcd like that of the coordinator, on a directory of its own,
// and a client of it that calls over TCP, as claims do.
func dialled(ctx context.Context, dir string) (*clientv3.Client, func() error, error) {
	c := embed.NewConfig()
	c.Dir, c.TickMs, c.ElectionMs = dir, 10, 100
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(c)
	if err != nil {
		return nil, nil, fmt.Errorf("start etcd on %s: %w", dir, err)
	}
	select {
	case <-server.Server.ReadyNotify():
	case <-ctx.Done():
		server.Close()
		return nil, nil, fmt.Errorf("start etcd on %s: %w", dir, ctx.Err())
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Clients[0].Addr().String()}, Logger: zap.NewNop()})
	if err != nil {
		server.Close()
		return nil, nil, fmt.Errorf("call etcd: %w", err)
	}
	return client, func() error {
		err := client.Close()
		server.Close()
		return err
	}, nil
}

// creates is what etcd can do at most: clients that create a key each in a
// transaction of its own, n in all.
func creates(ctx context.Context, client *clientv3.Client, round string, n int) (time.Duration, error) {
	next := numbers(n)
	begin := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range clients {
		group.Go(func() error {
			for i := range next {
				key := fmt.Sprintf("/raw/%s/%d", round, i)
				_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, agentIP(i))).Commit()
				if err != nil {
					return fmt.Errorf("create %s: %w", key, err)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(begin), err
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
	m := memory{Heap: stats.HeapAlloc}
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
