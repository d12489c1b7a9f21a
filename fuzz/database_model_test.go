package fuzz

import (
	"slices"
	"time"

	"github.com/x/embedlog"
)

// model is what was acknowledged, and what may be there beside it.
type model struct {
	count        int // records tried, for values that never repeat
	seq          int // of offsets committed: the later one counts
	topics       map[string]*topicModel
	groups       map[string]map[place]*groupOffset
	unsettled    []sentRecord
	undecided    []*txnModel // transactions whose outcome is not known
	unknownTopic bool        // a topic may be there that nobody was told of
	powerCuts    int
}

func newModel() model {
	return model{topics: map[string]*topicModel{}, groups: map[string]map[place]*groupOffset{}}
}

// topicModel is one topic; another one of the same name is another.
type topicModel struct {
	name         string
	id           embedlog.TopicID
	level        embedlog.Durability
	levelUnknown bool
	weak         bool // it was not always Durable
	compacted    bool
	gone         bool
	maybeGone    bool
	parts        []*partModel
	more         int            // partitions that it may have
	maybes       []*recordModel // that may be there, in any partition
}

// partModel is one partition.
type partModel struct {
	topic      *topicModel
	n          int32
	recs       map[int64]*recordModel // acknowledged, or found there
	start      int64
	maybeStart int64
}

// recordModel is one record that somebody tried to write.
type recordModel struct {
	value, key     string
	tombstone      bool
	offset         int64
	acked, durable bool
	txn            *txnModel // nil: of no transaction
	part           *partModel
}

// sentRecord is one that Producer.Send took.
type sentRecord struct {
	topic   *topicModel
	rec     *recordModel
	durable bool
}

type txnState int

const (
	txnOpen txnState = iota
	txnCommitted
	txnAborted
	txnUnknown
)

func (s txnState) String() string { return [...]string{"open", "committed", "aborted", "unknown"}[s] }

// txnModel is one transaction.
type txnModel struct {
	id      string
	state   txnState
	began   time.Time // when its first record was tried; zero before
	there   time.Time // when it surely had begun; zero before
	failed  bool      // a part of it failed: it can only be aborted
	fenced  bool
	recs    []*recordModel
	offsets []txnOffset
}

// mayHaveExpired says that the coordinator may have aborted it.
func (m *txnModel) mayHaveExpired() bool {
	return !m.began.IsZero() && time.Since(m.began) >= time.Minute
}

// took notes that a call of it went well.
func (m *txnModel) took() {
	if m.there.IsZero() {
		m.there = time.Now()
	}
}

// surelyExpired leaves the coordinator the time to notice.
func (m *txnModel) surelyExpired() bool {
	return !m.there.IsZero() && time.Since(m.there) >= time.Minute+3*time.Second
}

type txnOffset struct {
	group     string
	at        place
	offset    int64
	seq       int
	maybeGone bool // a deletion of the group may have taken it along
}

// place is a partition of one topic.
type place struct {
	topic *topicModel
	n     int32
}

// groupOffset is what a group has committed in a partition: one of values, or, of a
// consumer that commits by itself, anything from the least of them up to upTo.
type groupOffset struct {
	values []int64 // -1: nothing
	upTo   int64
	seq    int
}

func (o *groupOffset) allows(offset int64) bool {
	return slices.Contains(o.values, offset) || o.upTo > offset && offset > slices.Min(o.values) || offset == o.upTo && o.upTo > 0
}

func (m *topicModel) grow(total int) {
	m.weak = m.weak || m.level != embedlog.Durable
	for n := len(m.parts); n < total; n++ {
		m.parts = append(m.parts, &partModel{topic: m, n: int32(n), recs: map[int64]*recordModel{}})
	}
}

func (w *database) add(p *partModel, x *recordModel) {
	if old := p.recs[x.offset]; old != nil {
		w.fatalf("%s/%d: offset %d was given to %.20q and to %.20q", p.topic.name, p.n, x.offset, old.value, x.value)
	}
	p.recs[x.offset], x.part = x, p
	if x.txn != nil {
		x.txn.recs = append(x.txn.recs, x)
	}
}

func (w *database) maybe(m *topicModel, x *recordModel) { m.maybes = append(m.maybes, x) }

func (w *database) unmaybe(m *topicModel, x *recordModel) {
	m.maybes = slices.DeleteFunc(m.maybes, func(y *recordModel) bool { return x == y })
}

// drop forgets a topic with all that groups have committed there.
func (w *database) drop(m *topicModel) {
	m.gone = true
	delete(w.topics, m.name)
	for _, g := range w.groups {
		for at := range g {
			if at.topic == m {
				delete(g, at)
			}
		}
	}
}

// allDurable is after a sync of everything.
func (w *database) allDurable() {
	for _, m := range w.topics {
		for _, p := range m.parts {
			for _, x := range p.recs {
				x.durable = true
			}
		}
	}
}

// committed notes what a group has committed for certain.
func (w *database) committed(group string, at place, offset int64) {
	w.seq++
	w.setCommitted(group, at, offset, w.seq)
}

func (w *database) setCommitted(group string, at place, offset int64, seq int) {
	if at.topic.gone {
		return
	}
	o := w.groupOffset(group, at)
	if seq < o.seq {
		return
	}
	*o = groupOffset{values: []int64{offset}, seq: seq}
}

// maybeCommitted notes what it may have.
func (w *database) maybeCommitted(group string, at place, offset int64) {
	if at.topic.gone {
		return
	}
	w.seq++
	o := w.groupOffset(group, at)
	o.values, o.seq = append(o.values, offset), w.seq
}

// groupOffset is what there is, made where there is none.
func (w *database) groupOffset(group string, at place) *groupOffset {
	if w.groups[group] == nil {
		w.groups[group] = map[place]*groupOffset{}
	}
	o := w.groups[group][at]
	if o == nil {
		o = &groupOffset{values: []int64{-1}}
		w.groups[group][at] = o
	}
	return o
}

// decide ends a transaction in the model.
func (w *database) decide(m *txnModel, state txnState) {
	m.state = state
	switch state {
	case txnCommitted:
		for _, x := range m.recs {
			x.durable = true
		}
		for _, o := range m.offsets {
			w.setCommitted(o.group, o.at, o.offset, o.seq)
		}
	case txnUnknown:
		w.undecided = append(w.undecided, m)
	}
}

// txnsGone is what becomes of those that are open when the database ends.
func (w *database) txnsGone() {
	for _, x := range w.txns {
		if x.m.state == txnOpen {
			w.decide(x.m, txnAborted)
		}
	}
}
