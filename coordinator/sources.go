package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/mesos"
)

// sources are the flags for what the coordinator learns from: an etcd cluster,
// and Mesos.
type sources struct {
	etcd  etcd.Access
	mesos mesos.Options
}

func (s *sources) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&s.etcd.Endpoints, "etcd", nil, "URLs of an etcd cluster to use instead of an etcd inside this process")
	f.StringVar(&s.etcd.CA, "etcd-ca", "", "PEM file of the authorities for https URLs of etcd; the system's if not set")
	f.StringVar(&s.etcd.Cert, "etcd-cert", "", "PEM file of the client certificate for etcd")
	f.StringVar(&s.etcd.Key, "etcd-key", "", "PEM file of its key")
	f.StringVar(&s.etcd.User, "etcd-user", "", "user of an etcd with authentication")
	f.StringVar(&s.etcd.PasswordFile, "etcd-password-file", "", "file with that user's password")
	f.StringSliceVar(&s.mesos.Masters, "mesos-master", nil, "URLs of Mesos masters, whose word on agents that are gone is followed")
	f.StringVar(&s.mesos.Credentials, "mesos-credentials", "", "JSON file with principal and secret for them")
	f.StringVar(&s.mesos.CA, "mesos-ca", "", "PEM file of the authorities for https URLs of masters; the system's if not set")
}

// check finds what the operator must correct.
func (s *sources) check(log *slog.Logger) error {
	s.etcd.Log, s.mesos.Log = log, log
	if err := errors.Join(s.etcd.Check(), s.mesos.Check()); err != nil {
		return usageError{err}
	}
	return nil
}

// follower is nil without Mesos.
func (s *sources) follower() (*mesos.Follower, error) {
	if len(s.mesos.Masters) == 0 {
		return nil, nil
	}
	return mesos.New(s.mesos)
}
