package server

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

const (
	// lookEvery is how often the TLS files are looked at for the log; for a
	// handshake they are looked at anyhow.
	lookEvery = 10 * time.Second
	// expirySoon is how long before its end a certificate is worth a warning,
	// and expiryAgain how long after one comes the next.
	expirySoon  = 14 * 24 * time.Hour
	expiryAgain = 24 * time.Hour
)

// tlsConfig is for the listeners. Client certificates are asked for here and
// judged with each call, by guard: a handshake that fails could not say what
// is wrong, and would know only the authorities of its time.
func (s *Server) tlsConfig() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			id, _ := s.tls.Current()
			return id.Certificate, nil
		},
	}
	if s.clientAuth {
		c.ClientAuth = tls.RequestClientCert
	}
	return c
}

// watchTLS tells the log what becomes of the TLS files, until ctx ends.
func (s *Server) watchTLS(ctx context.Context) {
	tick := time.NewTicker(s.look)
	defer tick.Stop()
	told := tlsNews{}
	told.used, _ = s.tls.Current()
	for {
		s.tellTLS(&told, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tlsNews is what the log was told last.
type tlsNews struct {
	used    *tlsfile.Identity
	failure string
	expiry  time.Time
}

func (s *Server) tellTLS(told *tlsNews, now time.Time) {
	id, err := s.tls.Current()
	end := id.Certificate.Leaf.NotAfter
	if id != told.used {
		s.log.Info("the TLS files have changed, and are used as they are now", "expires", end.UTC())
		told.used, told.expiry = id, time.Time{}
	}
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if failure != "" && failure != told.failure {
		s.log.Error("the TLS files have changed and can't be used; those that were read before stay in use", "error", err)
	}
	told.failure = failure
	if now.Add(expirySoon).After(end) && now.Sub(told.expiry) >= expiryAgain {
		s.log.Warn("the certificate of --tls-cert expires soon: put a new one in its place, and its key into --tls-key", "expires", end.UTC())
		told.expiry = now
	}
}

// tlsMetrics tell when the certificate ends, and whether the files are in use.
func (s *Server) tlsMetrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "certificate_expiry_timestamp_seconds",
			Help: "When the certificate that is in use ends, in seconds since 1970.",
		}, func() float64 {
			id, _ := s.tls.Current()
			return float64(id.Certificate.Leaf.NotAfter.Unix())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "tls_files_ok",
			Help: "1 if the TLS files are in use as they are, 0 if they can't be, and what they were before is.",
		}, func() float64 {
			if _, err := s.tls.Current(); err != nil {
				return 0
			}
			return 1
		}),
	}
}
