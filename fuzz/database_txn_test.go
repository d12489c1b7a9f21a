package fuzz

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/x/embedlog"
)

func (w *database) begin(p *program) {
	id := [...]string{"", "", "one", "two"}[p.next()%4]
	if len(w.txns) >= 4 {
		return
	}
	tx, err := w.db.Begin(bg(), &embedlog.TxnOptions{ID: id})
	w.did("begin %q: %v", id, err)
	if err != nil {
		if !w.expected(err) {
			w.fatalf("begin: %v", err)
		}
		// What was open under the name may have been aborted all the same.
		for _, x := range w.txns {
			x.m.fenced = x.m.fenced || id != "" && x.m.id == id
		}
		return
	}
	for _, x := range w.txns {
		if id != "" && x.m.id == id && x.m.state == txnOpen {
			x.m.fenced = true
			w.decide(x.m, txnAborted)
		}
	}
	w.txns = append(w.txns, &openTxn{tx, &txnModel{id: id}})
}

func (w *database) aTxn(p *program) *openTxn {
	n := p.next()
	if len(w.txns) == 0 {
		return nil
	}
	return w.txns[n%len(w.txns)]
}

// over says that a failed call of a transaction is explained by the transaction's state.
func (w *database) explained(x *openTxn, err error) bool {
	return w.expected(err) || x.m.failed || x.m.fenced && (errors.Is(err, embedlog.ErrFenced) || errors.Is(err, embedlog.ErrTxnAborted)) ||
		x.m.mayHaveExpired() && (errors.Is(err, embedlog.ErrFenced) || errors.Is(err, embedlog.ErrTxnAborted))
}

func (w *database) txnProduce(p *program) {
	x := w.aTxn(p)
	m, _ := w.topic(p.next())
	if x == nil || m == nil {
		return
	}
	recs := w.records(p, m)
	if x.m.began.IsZero() {
		x.m.began = time.Now()
	}
	m.weak = true // a power cut takes what no transaction has committed, and a group may stand behind it
	pos, err := x.tx.Produce(bg(), recs...)
	w.did("transaction %q produces %d to %s: %v %v", x.m.id, len(recs), m.name, pos, err)
	if err == nil {
		if x.m.failed {
			w.fatalf("a transaction that failed goes on")
		}
		x.m.took()
		w.produced(m, recs, pos, nil, x.m)
		return
	}
	if !w.explained(x, err) {
		w.fatalf("transaction: %v", err)
	}
	if !x.m.failed {
		for _, r := range recs {
			w.maybe(m, &recordModel{value: string(r.Value), key: string(r.Key), tombstone: r.Value == nil, offset: -1, txn: x.m})
		}
	}
	x.m.failed = true
}

// hasOffsetsOf says that an open transaction has offsets of the group.
func (w *database) hasOffsetsOf(group string) bool {
	return slices.ContainsFunc(w.txns, func(x *openTxn) bool {
		return slices.ContainsFunc(x.m.offsets, func(o txnOffset) bool { return o.group == group })
	})
}

func (w *database) txnOffsets(p *program) {
	x := w.aTxn(p)
	how := p.next()
	if x == nil {
		return
	}
	if x.m.began.IsZero() {
		x.m.began = time.Now()
	}
	if how%2 == 0 {
		w.txnConsumer(x, p)
		return
	}
	group := groupNames[how/2%2]
	m, h := w.topic(p.next())
	if m == nil {
		return
	}
	pos, ok := w.somewhere(m, h, p)
	if !ok {
		return
	}
	err := x.tx.CommitPositions(bg(), group, pos)
	w.did("transaction %q commits %v for %s: %v", x.m.id, pos, group, err)
	switch {
	case err == nil && x.m.failed:
		w.fatalf("a transaction that failed goes on")
	case err == nil:
		x.m.took()
		w.seq++
		x.m.offsets = append(x.m.offsets, txnOffset{group: group, at: place{m, pos.Partition}, offset: pos.Offset, seq: w.seq})
	case errors.Is(err, embedlog.ErrGroupNotEmpty) && (w.joined(group) || w.hurt), w.explained(x, err):
		x.m.failed = true
	default:
		w.fatalf("commit positions: %v", err)
	}
}

// somewhere is a position that can be committed.
func (w *database) somewhere(m *topicModel, h *embedlog.Topic, p *program) (embedlog.Position, bool) {
	info, err := h.Describe()
	if err != nil {
		w.fatalf("%v", err)
	}
	i := info.Partitions[p.next()%len(m.parts)]
	if i.Err != nil || i.LastStable < i.LogStart {
		return embedlog.Position{}, false
	}
	offset := i.LogStart + int64(p.next())%(i.LastStable-i.LogStart+1)
	return embedlog.Position{Topic: m.name, Partition: i.Partition, Offset: offset, LeaderEpoch: i.LeaderEpoch}, true
}

func (w *database) txnConsumer(x *openTxn, p *program) {
	r := w.aReader(p)
	if r == nil || r.auto || r.group == "" {
		return
	}
	marks := r.takeMarks()
	err := x.tx.CommitOffsets(bg(), r.c)
	w.did("transaction %q commits what %d has marked, %v: %v", x.m.id, r.n, marks, err)
	switch {
	case err == nil && x.m.failed:
		w.fatalf("a transaction that failed goes on")
	case err == nil:
		for _, o := range marks {
			x.m.took()
			w.seq++
			x.m.offsets = append(x.m.offsets, txnOffset{group: r.group, at: o.at, offset: o.offset, seq: w.seq})
		}
		r.inTxn = append(r.inTxn, x.m)
	case errors.Is(err, embedlog.ErrRebalance), errors.Is(err, embedlog.ErrUnknownMember), errors.Is(err, embedlog.ErrUnknownTopic), w.explained(x, err),
		errors.Is(err, embedlog.ErrGroupNotEmpty) && r.byHand:
		x.m.failed = true
		r.rewound()
		r.inTxn = append(r.inTxn, x.m) // and again when it ends
	default:
		w.fatalf("commit offsets: %v", err)
	}
}

func (w *database) txnEnd(p *program) {
	x := w.aTxn(p)
	if x == nil {
		return
	}
	commit := p.next()%3 > 0
	var err error
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if commit {
		err = x.tx.Commit(ctx)
	} else {
		err = x.tx.Abort(ctx)
	}
	w.did("transaction %q ends, commit %v: %v", x.m.id, commit, err)
	was := x.m.state
	empty := len(x.m.recs) == 0 && len(x.m.offsets) == 0
	switch {
	case err == nil && !commit:
		w.ended(x, txnAborted)
	case err == nil:
		if x.m.failed || !empty && (was != txnOpen || x.m.fenced || x.m.surelyExpired()) {
			w.fatalf("a transaction was committed that was %v, failed %v, fenced %v, expired %v", was, x.m.failed, x.m.fenced, x.m.surelyExpired())
		}
		w.ended(x, txnCommitted)
	case errors.Is(err, embedlog.ErrTxnEnded):
		w.fatalf("it had not ended: %v", err)
	case errors.Is(err, embedlog.ErrUnknownOutcome) && w.hurt && commit && !x.m.failed:
		w.ended(x, txnUnknown)
	case !w.explained(x, err):
		w.fatalf("end of a transaction: %v", err)
	case w.hurt:
		// Open as before, or aborted: it is tried again, or ends with the database.
		if err := x.tx.Abort(ctx); err == nil || errors.Is(err, embedlog.ErrTxnEnded) {
			w.ended(x, txnAborted)
		}
	default:
		w.ended(x, txnAborted)
	}
}

func (w *database) ended(x *openTxn, state txnState) {
	w.txns = slices.DeleteFunc(w.txns, func(y *openTxn) bool { return x == y })
	if x.m.state == txnOpen {
		w.decide(x.m, state)
	}
	for _, r := range w.consumers {
		if slices.Contains(r.inTxn, x.m) {
			r.inTxn = slices.DeleteFunc(r.inTxn, func(m *txnModel) bool { return m == x.m })
			if state != txnCommitted {
				r.rewound()
			}
		}
	}
}
