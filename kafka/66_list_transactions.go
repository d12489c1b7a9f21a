package kafka

import (
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListTransactions, versions 0 to 2. 1 filters by how long a transaction is open
// (KIP-994), 2 by a pattern of ids (KIP-1152).

func init() { register(0, 2, listTransactions) }

// transactionStates are the states' names in the protocol.
var transactionStates = []string{
	"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence",
}

func listTransactions(r *request, q *kmsg.ListTransactionsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ListTransactionsResponse)
	for _, s := range q.StateFilters {
		if !slices.Contains(transactionStates, s) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, s)
		}
	}
	var pattern *regexp.Regexp
	if q.Version >= 2 && q.TransactionalIDPattern != nil && *q.TransactionalIDPattern != "" {
		var err error
		if pattern, err = engine.CompilePattern(*q.TransactionalIDPattern); err != nil {
			resp.ErrorCode = codeInvalidRegularExpression
			return resp, nil
		}
	}
	txns, now := r.engine.Txns(), r.engine.Now()
	// Filters are as long as the client likes.
	states, producers := setOf(q.StateFilters), setOf(q.ProducerIDFilters)
	least := time.Duration(min(q.DurationFilterMillis, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	for _, x := range txns.List() {
		switch {
		case len(states) > 0 && !states[x.State],
			len(producers) > 0 && !producers[x.ProducerID],
			pattern != nil && !pattern.MatchString(x.TransactionalID),
			!r.authorize(OpDescribe, ResourceTransactionalID, x.TransactionalID):
			continue
		}
		if q.Version >= 1 && q.DurationFilterMillis >= 0 {
			d, err := txns.Describe(x.TransactionalID)
			if err != nil || d.Started.IsZero() || now.Sub(d.Started) <= least {
				continue
			}
		}
		s := kmsg.NewListTransactionsResponseTransactionState()
		s.TransactionalID, s.ProducerID, s.TransactionState = x.TransactionalID, x.ProducerID, x.State
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
	return resp, nil
}

// setOf is a list to be looked things up in.
func setOf[T comparable](list []T) map[T]bool {
	set := make(map[T]bool, len(list))
	for _, x := range list {
		set[x] = true
	}
	return set
}
