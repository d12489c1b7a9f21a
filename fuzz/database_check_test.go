package fuzz

import (
	"maps"
	"slices"
	"time"

	"github.com/x/embedlog"
)

// settle waits for what was sent and not flushed.
func (w *database) settle() {
	if len(w.unsettled) > 0 {
		time.Sleep(50 * time.Millisecond) // of the bubble's: lingering is over
		w.takeSent(false)
	}
}

// compare looks at everything after the database was opened again. With all nothing
// may be lost; otherwise what the levels allow. The model then is what was found.
func (w *database) compare(all bool) {
	w.t.Helper()
	if !all {
		w.powerCuts++
	}
	w.compareTopics()
	for _, name := range slices.Sorted(maps.Keys(w.topics)) {
		m := w.topics[name]
		info := w.describe(m)
		for _, p := range m.parts {
			w.comparePart(p, &info.Partitions[p.n], all)
		}
		m.maybes = nil
	}
	w.decideUnknown()
	for _, m := range w.topics {
		info := w.describe(m)
		for _, p := range m.parts {
			if i := info.Partitions[p.n]; i.LastStable != i.HighWatermark {
				w.fatalf("%s/%d: a transaction is open after the database was opened: last stable %d, high watermark %d", m.name, p.n, i.LastStable, i.HighWatermark)
			}
			w.compareCommitted(p)
			for _, x := range p.recs {
				x.durable = true // opening has synced what it shows
			}
		}
	}
	w.compareGroups()
	w.unsettled = nil
}

// compareLive is compare while the database runs, unhurt.
func (w *database) compareLive() {
	w.t.Helper()
	w.settle()
	w.compareTopics()
	for _, name := range slices.Sorted(maps.Keys(w.topics)) {
		m := w.topics[name]
		info := w.describe(m)
		for _, p := range m.parts {
			w.comparePart(p, &info.Partitions[p.n], true)
			w.compareCommitted(p)
		}
	}
	w.compareGroups()
}

func (w *database) describe(m *topicModel) embedlog.TopicInfo {
	w.t.Helper()
	h, err := w.db.Topic(m.name)
	if err == nil {
		var info embedlog.TopicInfo
		if info, err = h.Describe(); err == nil {
			return info
		}
	}
	w.fatalf("topic %s: %v", m.name, err)
	panic("unreachable")
}

func (w *database) compareTopics() {
	w.t.Helper()
	there := map[string]bool{}
	for _, info := range w.db.Topics() {
		if info.Internal {
			continue
		}
		there[info.Name] = true
		m := w.topics[info.Name]
		if m == nil {
			if !w.unknownTopic {
				w.fatalf("topic %s is there", info.Name)
			}
			if err := w.db.DeleteTopic(bg(), info.Name); err != nil {
				w.fatalf("delete: %v", err)
			}
			continue
		}
		m.maybeGone = false
		if m.id != info.ID {
			w.fatalf("topic %s has id %v, was made with %v", m.name, info.ID, m.id)
		}
		for _, s := range info.Settings {
			if s.Name != "embedlog.durability" {
				continue
			}
			if !m.levelUnknown && s.Value != m.level.String() {
				w.fatalf("topic %s is %s, was %v", m.name, s.Value, m.level)
			}
			for _, level := range levels {
				if level.String() == s.Value {
					m.level, m.levelUnknown = level, false
				}
			}
		}
		if n := len(info.Partitions); n < len(m.parts) || n > max(len(m.parts), m.more) {
			w.fatalf("topic %s has %d partitions, not %d or %d", m.name, n, len(m.parts), m.more)
		}
		m.grow(len(info.Partitions))
		m.more = 0
	}
	for _, m := range w.topics {
		if there[m.name] {
			continue
		}
		if !m.maybeGone {
			w.fatalf("topic %s is not there", m.name)
		}
		w.drop(m)
	}
	w.unknownTopic = false
}

// comparePart compares all records, those that no transaction has committed too.
func (w *database) comparePart(p *partModel, info *embedlog.PartitionInfo, all bool) {
	w.t.Helper()
	m := p.topic
	if info.Err != nil {
		w.fatalf("%s/%d: %v", m.name, p.n, info.Err)
	}
	if info.LogStart != p.start {
		if info.LogStart != p.maybeStart {
			w.fatalf("%s/%d starts at %d, want %d (or %d)", m.name, p.n, info.LogStart, p.start, p.maybeStart)
		}
		p.start = info.LogStart
	}
	p.maybeStart = 0
	got := map[int64]bool{}
	last := int64(-1)
	for _, rec := range w.scan(p, true) {
		if rec.Offset <= last || rec.Offset < p.start {
			w.fatalf("%s/%d: offset %d after %d, log start %d", m.name, p.n, rec.Offset, last, p.start)
		}
		last = rec.Offset
		got[last] = true
		x := p.recs[rec.Offset]
		if x == nil {
			x = w.found(m, &rec)
			if x == nil {
				w.fatalf("%s/%d: offset %d holds %.20q, which nobody wrote there", m.name, p.n, rec.Offset, rec.Value)
			}
			w.unmaybe(m, x)
			x.offset = rec.Offset
			w.add(p, x)
		}
		if string(rec.Value) != x.value || rec.Value == nil != x.tombstone || string(rec.Key) != x.key {
			w.fatalf("%s/%d: offset %d holds %.20q, %.20q was sent there", m.name, p.n, rec.Offset, rec.Value, x.value)
		}
	}
	for offset, x := range p.recs {
		switch {
		case offset < p.start:
			delete(p.recs, offset)
		case got[offset]:
		case m.compacted && w.superseded(p, x, got):
			delete(p.recs, offset)
		case all:
			w.fatalf("%s/%d: offset %d, %.20q, is not there (up to %d is)", m.name, p.n, offset, x.value, last)
		case x.durable || x.txn != nil && x.txn.state == txnCommitted:
			w.fatalf("%s/%d: offset %d, %.20q, durable, is not there (up to %d is)", m.name, p.n, offset, x.value, last)
		case offset < last:
			w.fatalf("%s/%d: offset %d, %.20q, is not there, and %d is", m.name, p.n, offset, x.value, last)
		default:
			delete(p.recs, offset)
		}
	}
}

// found is the record that may be there and is.
func (w *database) found(m *topicModel, rec *embedlog.Record) *recordModel {
	for _, x := range m.maybes {
		if x.value == string(rec.Value) && x.tombstone == (rec.Value == nil) && x.key == string(rec.Key) {
			return x
		}
	}
	return nil
}

// superseded says that compaction may have taken the record.
func (w *database) superseded(p *partModel, x *recordModel, got map[int64]bool) bool {
	if x.tombstone || x.txn != nil && x.txn.state == txnAborted {
		return true
	}
	for offset, y := range p.recs {
		if offset > x.offset && y.key == x.key && (got[offset] || y.tombstone) && (y.txn == nil || y.txn.state == txnCommitted) {
			return true
		}
	}
	return false
}

func (w *database) scan(p *partModel, uncommitted bool) []embedlog.Record {
	w.t.Helper()
	h, err := w.db.Topic(p.topic.name)
	if err != nil {
		w.fatalf("%v", err)
	}
	var list []embedlog.Record
	for rec, err := range h.Scan(bg(), &embedlog.ScanOptions{Partitions: []int32{p.n}, ReadUncommitted: uncommitted}) {
		if err != nil {
			w.fatalf("scan: %v", err)
		}
		list = append(list, rec)
	}
	return list
}

// compareCommitted compares what readers of committed records see.
func (w *database) compareCommitted(p *partModel) {
	w.t.Helper()
	seen := map[int64]bool{}
	for _, rec := range w.scan(p, false) {
		x := p.recs[rec.Offset]
		if x == nil || x.txn != nil && x.txn.state != txnCommitted {
			w.fatalf("%s/%d: a reader of committed records sees offset %d, %+v", p.topic.name, p.n, rec.Offset, x)
		}
		seen[rec.Offset] = true
	}
	limit := int64(1) << 62
	for _, x := range p.recs {
		if x.txn != nil && (x.txn.state == txnOpen && !x.txn.surelyExpired() && !x.txn.fenced) {
			limit = min(limit, x.offset)
		}
	}
	for _, t := range w.txns { // it holds readers back also when its records there were deleted
		for _, x := range t.m.recs {
			if x.part == p && x.offset < p.start && t.m.state == txnOpen && !t.m.surelyExpired() && !t.m.fenced {
				limit = min(limit, p.start)
			}
		}
	}
	for _, m := range p.topic.maybes { // a record of an open transaction whose place is not known
		if m.txn != nil && m.txn.state == txnOpen {
			limit = -1
		}
	}
	for offset, x := range p.recs {
		if offset < limit && !seen[offset] && (x.txn == nil || x.txn.state == txnCommitted) {
			w.fatalf("%s/%d: a reader of committed records does not see offset %d, %.20q, of a transaction %v (open from %d)", p.topic.name, p.n, offset, x.value, x.txn != nil, limit)
		}
	}
}

// decideUnknown finds out what became of transactions whose outcome was not known: a
// part that is visible says that all of it has to be.
func (w *database) decideUnknown() {
	w.t.Helper()
	list := w.undecided
	w.undecided = nil
	for _, m := range list {
		seen, hidden := 0, 0
		for _, t := range w.topics {
			for _, p := range t.parts {
				visible := map[int64]bool{}
				for _, rec := range w.scan(p, false) {
					visible[rec.Offset] = true
				}
				for offset, x := range p.recs {
					if x.txn != m {
						continue
					}
					if visible[offset] {
						seen++
					} else if !t.compacted {
						hidden++
					}
				}
			}
		}
		for _, o := range m.offsets {
			if o.at.topic.gone {
				continue
			}
			if g := w.groupOffset(o.group, o.at); o.seq > g.seq && !g.allows(o.offset) {
				if w.groupHas(o.group, o.at) == o.offset {
					seen++
				} else if !o.maybeGone {
					hidden++
				}
			}
		}
		if seen > 0 && hidden > 0 {
			w.fatalf("of a transaction %d parts are there and %d are not", seen, hidden)
		}
		if seen > 0 {
			w.decide(m, txnCommitted)
		} else {
			w.decide(m, txnAborted)
		}
		w.did("a transaction of unknown outcome is %v", m.state)
	}
}

// groupHas is what the group has committed; of a position that was lost, the
// one before.
func (w *database) groupHas(group string, at place) int64 {
	w.t.Helper()
	info, _ := w.db.DescribeGroup(bg(), group)
	for _, p := range info.Partitions {
		if p.Topic == at.topic.name && p.Partition == at.n {
			if p.Lost != nil {
				return p.Lost.Offset
			}
			return p.Committed
		}
	}
	return -1
}

func (w *database) compareGroups() {
	w.t.Helper()
	for _, group := range groupNames {
		info, err := w.db.DescribeGroup(bg(), group)
		there := map[place]embedlog.GroupPartition{}
		if err == nil {
			for _, p := range info.Partitions {
				if m := w.topics[p.Topic]; m != nil {
					there[place{m, p.Partition}] = p
				} else {
					w.fatalf("group %s has topic %s", group, p.Topic)
				}
			}
		}
		for at, p := range there {
			if p.Committed >= 0 && w.groups[group][at] == nil {
				w.fatalf("group %s is at %d in %s/%d, where it committed nothing", group, p.Committed, p.Topic, p.Partition)
			}
		}
		for at, o := range w.groups[group] {
			p, ok := there[at]
			if !ok {
				p.Committed = -1
			}
			offset := p.Committed
			if p.Lost != nil {
				if offset = p.Lost.Offset; w.powerCuts == 0 || !at.topic.weak || p.Committed > offset {
					w.fatalf("group %s in %s/%d: %+v", group, at.topic.name, at.n, p.Lost)
				}
			} else if p.Committed > p.HighWatermark {
				w.fatalf("group %s in %s/%d is at %d, past the end at %d, and nothing is said", group, at.topic.name, at.n, p.Committed, p.HighWatermark)
			}
			if !o.allows(offset) {
				w.fatalf("group %s in %s/%d is at %d, want one of %v up to %d", group, at.topic.name, at.n, offset, o.values, o.upTo)
			}
			if len(o.values) > 1 || o.upTo > 0 {
				if w.activeAuto(group) {
					continue // it goes on committing
				}
				*o = groupOffset{values: []int64{offset}, seq: o.seq}
			}
		}
	}
}

func (w *database) activeAuto(group string) bool {
	return slices.ContainsFunc(w.consumers, func(r *reader) bool { return r.group == group })
}
