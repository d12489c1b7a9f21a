package kafka

import (
	"time"

	"github.com/x/embedlog/internal/engine"
)

// mutate counts partitions that are about to be made or deleted, for
// controller_mutation_rate. (KIP-599)
//
// With strict, who is over the quota already is refused, so that the partition count
// does not run away while a client is told to slow down; older clients do not know
// the code, and are only told to wait. The last one that is not refused may go over the
// quota by all of its partitions: any number of them can be made, at the rate.
func (r *request) mutate(partitions int, strict bool) error {
	r.mutated += partitions
	if r.srv.throttler != r.srv.quotas {
		return nil // it is asked after the request: see Moved.Partitions
	}
	table := r.engine.QuotaTable()
	if table.Empty() || partitions <= 0 {
		return nil
	}
	rate, share, ok := table.Lookup(engine.QuotaControllerMutationRate, r.principal.Name, r.clientID)
	if !ok {
		return nil
	}
	key := bucketKey{engine.QuotaControllerMutationRate, share}
	if strict {
		// Nothing is taken: it says how far below zero the bucket is.
		if wait := r.srv.quotas.take(key, rate, 0); wait > 0 {
			r.mutationWait = max(r.mutationWait, wait)
			r.mutated -= partitions
			return errMutationQuota
		}
	}
	r.mutationWait = max(r.mutationWait, r.srv.quotas.take(key, rate, float64(partitions)))
	return nil
}

var errMutationQuota = refuse(codeThrottlingQuotaExceeded, "The throttling quota has been exceeded.")

// Versions from which on clients know THROTTLING_QUOTA_EXCEEDED.
const (
	createTopicsStrict     = 6
	deleteTopicsStrict     = 5
	createPartitionsStrict = 3
)

// waited says that the request did nothing from then on but wait: that time is not
// its own. See Moved.Duration.
func (r *request) waited(since time.Time) { r.idle += time.Since(since) }
