package etcd

// clusterTxnOps is a cluster's default for --max-txn-ops.
const clusterTxnOps = 128

// MaxTxnOps is how many operations one transaction may have.
func (s *Store) MaxTxnOps() int {
	if s.server != nil {
		return maxTxnOps
	}
	return clusterTxnOps
}
