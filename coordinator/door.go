package main

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/coordinator/server"
	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

// ownFiles are left for what is not a connection of a caller: etcd's files and
// connections, and the log.
const ownFiles = 1000

// door is who gets in, and how.
type door struct {
	tls                                            tlsfile.Set
	maxConnections, maxConnectionsPerHost, streams int
}

func (d *door) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	d.tls = tlsfile.Set{Cert: tlsfile.File{Name: "--tls-cert"}, Key: tlsfile.File{Name: "--tls-key"}, CA: tlsfile.File{Name: "--tls-client-ca"}}
	f.StringVar(&d.tls.Cert.Path, "tls-cert", "", "PEM file of the certificate (with those that it comes from) to answer HTTPS with; without it, HTTP")
	f.StringVar(&d.tls.Key.Path, "tls-key", "", "PEM file of its key")
	f.StringVar(&d.tls.CA.Path, "tls-client-ca", "", "PEM file of the authorities that callers need a client certificate of")
	f.IntVar(&d.maxConnections, "max-connections", server.DefaultMaxConnections, "how many connections may be open")
	f.IntVar(&d.maxConnectionsPerHost, "max-connections-per-host", server.DefaultMaxConnectionsPerHost, "how many of them may come from one IPv4 address or IPv6 /64, other than this machine")
	f.IntVar(&d.streams, "max-streams", server.DefaultMaxStreams, "how many streams of agents may be open")
}

// options are what the server needs of d.
func (d *door) options(log *slog.Logger) (server.Options, error) {
	o := server.Options{MaxConnections: d.maxConnections, MaxConnectionsPerHost: d.maxConnectionsPerHost, MaxStreams: d.streams}
	if d.maxConnections <= 0 || d.maxConnectionsPerHost <= 0 || d.streams <= 0 {
		return o, usageError{errors.New("--max-connections, --max-connections-per-host and --max-streams must be positive")}
	}
	files, err := d.files()
	if err != nil {
		return o, usageError{err}
	}
	o.TLS = files
	most, err := mostConnections()
	if err != nil {
		return o, err
	}
	if most < o.MaxConnections {
		log.Info("the limit of open files (LimitNOFILE, ulimit -n) leaves fewer connections than --max-connections", "connections", most)
		o.MaxConnections = most
	}
	return o, nil
}

// files are the TLS files; nil when none is set.
func (d *door) files() (*tlsfile.Reader, error) {
	if d.tls.Cert.Path == "" && d.tls.Key.Path == "" {
		if d.tls.CA.Path == "" {
			return nil, nil
		}
		return nil, errors.New("--tls-client-ca: client certificates need HTTPS: set --tls-cert and --tls-key, too")
	}
	return tlsfile.Open(d.tls)
}

// mostConnections is how many connections the limit of open files leaves.
func mostConnections() (int, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if files.Cur < 2*ownFiles {
		return int(files.Cur / 2), nil
	}
	return int(min(files.Cur-ownFiles, 1<<30)), nil
}
