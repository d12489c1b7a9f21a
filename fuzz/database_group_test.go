package fuzz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog"
)

// reader is a consumer and what the model knows of it.
type reader struct {
	w      *database
	n      int
	c      *embedlog.Consumer
	group  string // empty: none
	auto   bool
	byHand bool
	all    bool // it asked for uncommitted records
	began  bool
	pos    map[string]*readerPart // by "topic/partition": what it has
	inTxn  []*txnModel
}

type readerPart struct {
	at   place
	next int64 // where it goes on; -1 when it went back somewhere
	mark int64 // -1 none since the last commit
}

type markedAt struct {
	at     place
	offset int64
}

func (m markedAt) String() string { return fmt.Sprintf("%s/%d@%d", m.at.topic.name, m.at.n, m.offset) }

func partName(topic string, n int32) string { return fmt.Sprintf("%s/%d", topic, n) }

func (r *reader) takeMarks() []markedAt {
	var list []markedAt
	for _, p := range r.pos {
		if p.mark >= 0 && !p.at.topic.gone {
			list = append(list, markedAt{p.at, p.mark})
			p.mark = -1
		}
	}
	return list
}

func (r *reader) rewound() {
	for _, p := range r.pos {
		p.next, p.mark = -1, -1
	}
}

func (w *database) joined(group string) bool {
	return slices.ContainsFunc(w.consumers, func(r *reader) bool { return r.group == group && !r.byHand && r.began })
}

func (w *database) aReader(p *program) *reader {
	n := p.next()
	if len(w.consumers) == 0 {
		return nil
	}
	return w.consumers[n%len(w.consumers)]
}

func (w *database) join(p *program) {
	how, which := p.next(), p.next()
	m, _ := w.topic(which)
	if len(w.consumers) >= 4 || m == nil {
		return
	}
	r := &reader{w: w, n: w.count, auto: how&1 == 1, all: how&2 == 2, byHand: how&12 == 12, pos: map[string]*readerPart{}}
	w.count++
	if how&16 == 0 || !r.byHand {
		r.group = groupNames[how>>5&1]
	}
	if r.group == "" {
		r.auto = false
	}
	cfg := &embedlog.ConsumerConfig{Group: r.group, ManualCommit: r.group != "" && !r.auto, ReadUncommitted: r.all, MaxPollInterval: -1}
	cfg.OnAssigned, cfg.OnRevoked, cfg.OnLost = r.assigned, r.revoked, r.lost
	cfg.OnReset = func(_ context.Context, _ *embedlog.Consumer, x embedlog.Reset) {
		if p := r.pos[partName(x.Topic, x.Partition)]; p != nil {
			p.next = -1
		}
	}
	if r.byHand {
		for _, mp := range m.parts {
			at := embedlog.Position{Topic: m.name, Partition: mp.n, Offset: embedlog.OffsetEarliest}
			if r.group != "" {
				at.Offset = embedlog.OffsetCommitted
			}
			cfg.Assign = append(cfg.Assign, at)
			r.pos[partName(m.name, mp.n)] = &readerPart{at: place{m, mp.n}, next: -1, mark: -1}
		}
	} else {
		cfg.Topics = []string{m.name}
	}
	c, err := w.db.Consumer(cfg)
	w.did("consumer %d of group %q reads %s, by hand %v, auto %v: %v", r.n, r.group, m.name, r.byHand, r.auto, err)
	if err != nil {
		undecided := errors.Is(err, embedlog.ErrUnstableOffset) && (w.hurt || w.hasOffsetsOf(r.group))
		if !w.expected(err) && !(r.byHand && (undecided || errors.Is(err, embedlog.ErrGroupNotEmpty))) {
			w.fatalf("consumer: %v", err)
		}
		return
	}
	r.c = c
	w.consumers = append(w.consumers, r)
}

func (r *reader) assigned(_ context.Context, _ *embedlog.Consumer, list []embedlog.Position) {
	w := r.w
	for _, pos := range list {
		m := w.topics[pos.Topic]
		if m == nil || int(pos.Partition) >= len(m.parts) {
			continue // deleted meanwhile
		}
		at := place{m, pos.Partition}
		name := partName(pos.Topic, pos.Partition)
		for _, other := range w.consumers {
			if r.group == "" || other == r || other.group != r.group || other.byHand {
				continue
			}
			if had := other.pos[name]; had != nil && had.at == at {
				w.fatalf("%s is given to consumer %d, and %d has it", name, r.n, other.n)
			}
		}
		w.did("consumer %d gets %v", r.n, pos)
		r.pos[name] = &readerPart{at: at, next: pos.Offset, mark: -1}
		if r.group == "" {
			continue
		}
		o := w.groups[r.group][at]
		p := m.parts[pos.Partition]
		switch {
		case pos.Offset == p.start, w.hurt, p.maybeStart > 0:
			if o != nil {
				w.maybeCommitted(r.group, at, pos.Offset)
			}
		case o == nil:
			w.fatalf("consumer %d begins %s at %d: nothing is committed, and the log starts at %d", r.n, name, pos.Offset, p.start)
		case !o.allows(pos.Offset) && w.powerCuts == 0:
			w.fatalf("consumer %d begins %s at %d, committed is one of %v up to %d", r.n, name, pos.Offset, o.values, o.upTo)
		case m.weak && pos.Offset < slices.Min(o.values): // it was told of a loss, and commits that it went back
			w.maybeCommitted(r.group, at, pos.Offset)
		case pos.Offset > max(slices.Max(o.values), o.upTo):
			w.fatalf("consumer %d begins %s at %d, committed is one of %v up to %d", r.n, name, pos.Offset, o.values, o.upTo)
		}
	}
}

func (r *reader) revoked(_ context.Context, _ *embedlog.Consumer, list []embedlog.Position) {
	for _, pos := range list {
		name := partName(pos.Topic, pos.Partition)
		r.w.did("consumer %d gives %v back", r.n, pos)
		if q := r.pos[name]; q != nil && q.next >= 0 && pos.Offset > q.next && !q.at.topic.gone {
			r.gap(q, pos.Offset)
			q.next = pos.Offset
		}
		r.maybeMarked(r.pos[name])
		delete(r.pos, name)
	}
}

func (r *reader) lost(_ context.Context, _ *embedlog.Consumer, list []embedlog.Position) {
	if !r.w.hurt {
		for _, pos := range list {
			r.w.did("consumer %d has lost %v", r.n, pos)
		}
	}
	r.revoked(context.Background(), nil, list)
}

// maybeMarked notes that a mark may be committed by the consumer itself.
func (r *reader) maybeMarked(p *readerPart) {
	if p == nil || p.at.topic.gone || r.group == "" {
		return
	}
	if p.mark >= 0 {
		r.w.maybeCommitted(r.group, p.at, p.mark)
	}
	if !r.auto {
		return
	}
	pos, ok := r.c.Position(p.at.topic.name, p.at.n)
	switch {
	case ok && p.next >= 0 && pos.Offset > p.next:
		r.gap(p, pos.Offset) // aborted records and markers, no others
		p.next = pos.Offset
	case ok && p.next < 0 && pos.Offset >= 0:
		p.next = pos.Offset // it has begun somewhere, and may have gone past such without being given one
	}
	if p.next >= 0 {
		o := r.w.groupOffset(r.group, p.at)
		o.upTo = max(o.upTo, p.next)
		r.w.seq++
		o.seq = r.w.seq
	}
}

func (w *database) read(p *program) {
	r := w.aReader(p)
	n, after := 1+p.next()%8, p.next()
	if r == nil {
		return
	}
	w.settle()
	r.began = true
	for _, q := range r.pos {
		r.maybeMarked(q) // to ask for more marks what was read
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	recs, err := r.c.Poll(ctx, n)
	cancel()
	w.did("consumer %d polls %d: %d records, %v", r.n, n, len(recs), err)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !w.expected(err) && !errors.Is(err, embedlog.ErrGroupNotEmpty) && !errors.Is(err, embedlog.ErrUnknownTopic) && !w.hurt {
		w.fatalf("poll: %v", err)
	}
	for i := range recs {
		r.check(&recs[i])
	}
	for _, q := range r.pos {
		r.maybeMarked(q) // the background commits
	}
	if r.group == "" || r.auto {
		return
	}
	for i, rec := range recs {
		if i%4 < after%5 {
			r.c.Mark(rec)
			if q := r.pos[partName(rec.Topic, rec.Partition)]; q != nil {
				q.mark = max(q.mark, rec.Offset+1)
			}
		}
	}
	if after%3 != 0 || len(r.inTxn) > 0 {
		return
	}
	marks := r.takeMarks()
	err = r.c.Commit(bg())
	w.did("consumer %d commits %v: %v", r.n, marks, err)
	for _, m := range marks {
		if err == nil {
			w.committed(r.group, m.at, m.offset)
		} else {
			w.maybeCommitted(r.group, m.at, m.offset)
		}
	}
	if err != nil && !w.expected(err) && !errors.Is(err, embedlog.ErrRebalance) && !errors.Is(err, embedlog.ErrUnknownTopic) && !errors.Is(err, embedlog.ErrGroupNotEmpty) && !w.hurt {
		w.fatalf("commit: %v", err)
	}
}

// check looks at a record that a consumer was handed.
func (r *reader) check(rec *embedlog.Record) {
	w := r.w
	m := w.topics[rec.Topic]
	name := partName(rec.Topic, rec.Partition)
	q := r.pos[name]
	if q == nil && !r.byHand && r.group == "" && m != nil && int(rec.Partition) < len(m.parts) {
		q = &readerPart{at: place{m, rec.Partition}, next: -1, mark: -1}
		r.pos[name] = q
	}
	if q == nil {
		w.fatalf("consumer %d reads %s, which it does not have", r.n, name)
	}
	if q.at.topic.gone {
		return
	}
	p := q.at.topic.parts[q.at.n]
	if rec.Offset < p.start { // deleted after it was read ahead
		q.next = max(q.next, rec.Offset+1)
		return
	}
	x := p.recs[rec.Offset]
	if x == nil {
		x = w.found(q.at.topic, rec)
	}
	if x == nil || x.value != string(rec.Value) {
		w.fatalf("consumer %d reads offset %d of %s: %.20q", r.n, rec.Offset, name, rec.Value)
	}
	if !r.all && x.txn != nil && x.txn.state != txnCommitted && x.txn.state != txnUnknown {
		w.fatalf("consumer %d reads offset %d of %s, of a transaction that is %v", r.n, rec.Offset, name, x.txn.state)
	}
	if q.next >= 0 {
		if rec.Offset < q.next {
			w.fatalf("consumer %d reads offset %d of %s again, it was at %d", r.n, rec.Offset, name, q.next)
		}
		r.gap(q, rec.Offset)
	}
	q.next = rec.Offset + 1
}

// gap checks that a consumer that goes from where it was to an offset was given all
// that it has to see before.
func (r *reader) gap(q *readerPart, to int64) {
	p := q.at.topic.parts[q.at.n]
	for offset := max(q.next, p.start); offset < to && !q.at.topic.compacted; offset++ {
		if y := p.recs[offset]; y != nil && (y.txn == nil || y.txn.state == txnCommitted) {
			r.w.fatalf("consumer %d is at offset %d of %s/%d and has not been given %d (it was at %d)", r.n, to, q.at.topic.name, q.at.n, offset, q.next)
		}
	}
}

func (w *database) leave(p *program) {
	r := w.aReader(p)
	if r == nil {
		return
	}
	for _, q := range r.pos {
		r.maybeMarked(q)
	}
	err := r.c.Close()
	w.did("consumer %d closes: %v", r.n, err)
	if err != nil && !w.expected(err) && !w.hurt {
		w.fatalf("close: %v", err)
	}
	if _, err := r.c.Poll(bg(), 1); !errors.Is(err, embedlog.ErrClosed) {
		w.fatalf("poll of a closed consumer: %v", err)
	}
	w.consumers = slices.DeleteFunc(w.consumers, func(x *reader) bool { return x == r })
}

func (w *database) reset(p *program) {
	how := p.next()
	group := groupNames[how&1]
	m, h := w.topic(p.next())
	if m == nil {
		return
	}
	if how&2 == 0 {
		pos, ok := w.somewhere(m, h, p)
		if !ok {
			return
		}
		err := w.db.CommitPositions(bg(), group, pos)
		w.did("group %s commits %v: %v", group, pos, err)
		switch {
		case err == nil:
			w.committed(group, place{m, pos.Partition}, pos.Offset)
		case errors.Is(err, embedlog.ErrGroupNotEmpty) && (w.joined(group) || w.hurt):
		case w.expected(err):
			w.maybeCommitted(group, place{m, pos.Partition}, pos.Offset)
		default:
			w.fatalf("commit positions: %v", err)
		}
		return
	}
	spec := embedlog.ResetSpec{Topics: []string{m.name}}
	switch how >> 2 % 4 {
	case 0:
		spec.To = embedlog.Earliest
	case 1:
		spec.To = embedlog.Latest
	case 2:
		spec.To = embedlog.AtOffset(int64(p.next()))
	case 3:
		spec.ByDuration = time.Duration(p.next()) * time.Second
	}
	if spec.ByDuration == 0 && spec.To == (embedlog.OffsetSpec{}) {
		return
	}
	results, err := w.db.ResetGroup(bg(), group, spec)
	w.did("group %s is reset in %s to %v: %v %v", group, m.name, spec.To, results, err)
	switch {
	case err == nil:
		for _, x := range results {
			if x.Committed < x.LogStart || x.Committed > x.HighWatermark {
				w.fatalf("reset to %+v", x)
			}
			w.committed(group, place{m, x.Partition}, x.Committed)
		}
	case errors.Is(err, embedlog.ErrGroupNotEmpty) && (w.joined(group) || w.hurt):
	case w.hurt:
		for _, part := range m.parts {
			o := w.groupOffset(group, place{m, part.n})
			o.values, o.upTo = append(o.values, 0), 1<<40 // anywhere
		}
	default:
		w.fatalf("reset: %v", err)
	}
}

// undecidedTxns are the transactions that are open, or may have been committed.
func (w *database) undecidedTxns() []*txnModel {
	list := slices.Clone(w.undecided)
	for _, x := range w.txns {
		list = append(list, x.m)
	}
	return list
}

func (w *database) deleteGroup(p *program) {
	group := groupNames[p.next()&1]
	err := w.db.DeleteGroup(bg(), group)
	w.did("group %s is deleted: %v", group, err)
	switch {
	case err == nil:
		delete(w.groups, group)
		for _, m := range w.undecidedTxns() {
			m.offsets = slices.DeleteFunc(m.offsets, func(o txnOffset) bool { return o.group == group })
		}
	case errors.Is(err, embedlog.ErrUnknownGroup):
		for at, o := range w.groups[group] {
			if !slices.Contains(o.values, -1) {
				w.fatalf("group %s is not known, and has committed %v in %s/%d", group, o.values, at.topic.name, at.n)
			}
		}
	case errors.Is(err, embedlog.ErrGroupNotEmpty) && (w.joined(group) || w.hurt):
	case w.expected(err):
		for _, o := range w.groups[group] {
			o.values = append(o.values, -1)
		}
		for _, m := range w.undecidedTxns() {
			for i := range m.offsets {
				o := &m.offsets[i]
				o.maybeGone = o.maybeGone || o.group == group
			}
		}
	default:
		w.fatalf("delete group: %v", err)
	}
}
