package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// upkeepInterval is how often the etcd inside this process is looked at,
	// and upkeepTimeout how long one round of it may take: a defragmentation
	// writes the database anew, at 50 MB a second or more.
	upkeepInterval = 10 * time.Second
	upkeepTimeout  = 2 * time.Minute
	// wasteful is how much of a database may be free at a start, in bytes,
	// unless that is less than what is used.
	wasteful = 64 << 20
)

// keepUp looks after the etcd inside this process until ctx ends: no operator
// can reach it with etcdctl.
func (s *Store) keepUp(ctx context.Context) {
	ticker := time.NewTicker(upkeepInterval)
	defer ticker.Stop()
	for !s.stopped() {
		if err := s.tend(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("upkeep of etcd failed, and is tried again", "error", err, "in", upkeepInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tend is one round. What history takes is given back long before the quota
// is reached; where it was reached all the same, the etcd serves again once
// what it holds takes less than most of it.
func (s *Store) tend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	status, err := s.status(ctx)
	if err != nil {
		return err
	}
	full := slices.Contains(alarmsIn(status.Errors), etcdserverpb.AlarmType_NOSPACE.String())
	if !full && status.DbSizeInUse <= status.DbSizeQuota/2 {
		return nil
	}
	_, err = s.Client.Compact(ctx, status.Header.Revision, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact etcd: %w", err)
	}
	if !full {
		return nil
	}
	if err := s.defragment(); err != nil {
		return err
	}
	if status, err = s.status(ctx); err != nil {
		return err
	}
	if status.DbSize > status.DbSizeQuota/5*4 {
		return fmt.Errorf("etcd's database has %d of %d bytes in use after its history was dropped: there is more to store than it may hold: use a cluster, with --etcd", status.DbSizeInUse, status.DbSizeQuota)
	}
	if _, err := s.Client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: status.Header.MemberId, Alarm: etcdserverpb.AlarmType_NOSPACE}); err != nil {
		return fmt.Errorf("end alarm NOSPACE of etcd: %w", err)
	}
	s.log.Warn("etcd's database was full; its history was dropped, and it takes changes again", "bytes", status.DbSize, "quota", status.DbSizeQuota)
	return nil
}

// slim gives free space of the database back at a start. Later it would keep
// every call waiting; and what is free is used again.
func (s *Store) slim(ctx context.Context) error {
	status, err := s.status(ctx)
	if err != nil {
		return err
	}
	if status.DbSize-status.DbSizeInUse <= max(wasteful, status.DbSizeInUse) {
		return nil
	}
	return s.defragment()
}

// stopped tells whether the etcd inside this process has. It must not be asked
// for anything then, for it would panic.
func (s *Store) stopped() bool {
	if s.server == nil {
		return false
	}
	select {
	case <-s.server.Server.StopNotify():
		return true
	default:
		return false
	}
}

func (s *Store) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	status, err := s.Client.Status(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("status of etcd: %w", err)
	}
	return status, nil
}

// defragment asks the server itself: the client of an etcd inside a process
// can't.
func (s *Store) defragment() error {
	if err := s.server.Server.Defragment(); err != nil {
		return fmt.Errorf("defragment etcd: %w", err)
	}
	return nil
}
