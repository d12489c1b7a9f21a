package engine

import (
	"math"
	"slices"
	"sort"
)

// shareState is one partition as one share group sees it: what lies below start is
// done; of [start, end) each offset has a state; what follows was not looked at. It knows
// no lock, no disk and no clock: the same calls give the same answers.
//
//	acquire   available, or behind end --> acquired
//	settle    acquired --> settling, with what it is to become and a ticket
//	finish    settling, once a snapshot that has the ticket is on the disk --> that
//	revert    settling, when it could not be written --> acquired
//	expire, release   acquired --> available, or archived when it was delivered often enough
//
// start moves past what is done only, and only in finish and skip: a snapshot says where it will be.
type shareState struct {
	start int64
	// runs cover [start, end) without holes, neighbours differ, and the first is not done.
	runs []shareRun
}

// shareRun is the offsets from the end of the run before (or start) to end.
type shareRun struct {
	end int64
	shareRecord
}

// shareRecord is what is known of an offset. It is comparable.
type shareRecord struct {
	state  deliveryState
	count  int16  // deliveries; 0 of what is archived is that there is no record
	holder string // of what is acquired or settling
	until  int64  // the lock's end: see Shares.clock
	ticket uint64 // of what is settling
	target deliveryState
}

// there says that the offset is one of a record, as far as is known.
func (r *shareRecord) there() bool { return r.state != shareArchived || r.count > 0 }

// settled is what the record is when all that was said of it is written.
func (r *shareRecord) settled() deliveryState {
	switch r.state {
	case shareSettling:
		return r.target
	case shareAcquired:
		return shareAvailable
	}
	return r.state
}

// shareGap is a record of an offset that nothing is at.
var shareGap = shareRecord{state: shareArchived}

func (s *shareState) end() int64 {
	if len(s.runs) == 0 {
		return s.start
	}
	return s.runs[len(s.runs)-1].end
}

// records is how many records are in the window.
func (s *shareState) records() (n int64) {
	at := s.start
	for i := range s.runs {
		if s.runs[i].there() {
			n += s.runs[i].end - at
		}
		at = s.runs[i].end
	}
	return n
}

// next is where there may be something to acquire: what is available in the window, or
// behind it when the window has room.
func (s *shareState) next(maxRecords int64) (offset int64, ok bool) {
	at := s.start
	for i := range s.runs {
		if s.runs[i].state == shareAvailable {
			return at, true
		}
		at = s.runs[i].end
	}
	return at, s.records() < maxRecords
}

// nextExpiry is when the first lock is over; ok is false when there is none.
func (s *shareState) nextExpiry() (at int64, ok bool) {
	at = math.MaxInt64
	for i := range s.runs {
		if s.runs[i].state == shareAcquired && s.runs[i].until < at {
			at, ok = s.runs[i].until, true
		}
	}
	return at, ok
}

// update calls f for each run, or part of one, within [from, to), as far as the window
// goes. Neighbours that are alike afterwards become one.
func (s *shareState) update(from, to int64, f func(first, end int64, r *shareRecord)) {
	from, to = max(from, s.start), min(to, s.end())
	if from >= to {
		return
	}
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end > from })
	at := s.start
	if i > 0 {
		at = s.runs[i-1].end
	}
	if at < from {
		s.runs = slices.Insert(s.runs, i, shareRun{from, s.runs[i].shareRecord})
		i++
	}
	first := i
	for at = from; at < to; i++ {
		if s.runs[i].end > to {
			s.runs = slices.Insert(s.runs, i, shareRun{to, s.runs[i].shareRecord})
		}
		f(at, s.runs[i].end, &s.runs[i].shareRecord)
		at = s.runs[i].end
	}
	s.join(max(first-1, 0), min(i+1, len(s.runs)))
}

// join makes one run of neighbours that are alike among runs[from:to].
func (s *shareState) join(from, to int) {
	if from >= to {
		return
	}
	out := from
	for i := from + 1; i < to; i++ {
		if s.runs[i].shareRecord == s.runs[out].shareRecord {
			s.runs[out].end = s.runs[i].end
			continue
		}
		out++
		s.runs[out] = s.runs[i]
	}
	s.runs = slices.Delete(s.runs, out+1, to)
}

// extend makes the window end at to, the offsets being r.
func (s *shareState) extend(to int64, r shareRecord) {
	if to > s.end() {
		s.runs = append(s.runs, shareRun{to, r})
		s.join(max(len(s.runs)-2, 0), len(s.runs))
	}
}

// skip notes that there are no records at [from, to). What somebody holds he may still
// acknowledge.
func (s *shareState) skip(from, to int64) {
	s.update(from, to, func(_, _ int64, r *shareRecord) {
		if r.state == shareAvailable {
			*r = shareGap
		}
	})
	if from <= s.end() {
		s.extend(to, shareGap)
	}
	s.advance()
}

// advance moves start past what is done.
func (s *shareState) advance() {
	n := 0
	for n < len(s.runs) && s.runs[n].state.done() {
		s.start = s.runs[n].end
		n++
	}
	s.runs = slices.Delete(s.runs, 0, n)
}

// trim moves start to an offset below which there is nothing any more, whatever the
// state of what lies there.
func (s *shareState) trim(start int64) {
	if start <= s.start {
		return
	}
	n := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end > start })
	s.start, s.runs = start, slices.Delete(s.runs, 0, n)
	s.advance()
}

// acquire gives what is available of [from, to) to the holder until then, and what lies behind
// the window if from is not past its end. It returns at most limit offsets.
func (s *shareState) acquire(from, to, limit int64, holder string, until int64) (got []shareBatch, n int64) {
	take := func(first, end int64, r *shareRecord) {
		*r = shareRecord{state: shareAcquired, count: r.count + 1, holder: holder, until: until}
		got, n = append(got, shareBatch{first, end - 1, shareAcquired, r.count}), n+end-first
	}
	type span struct{ from, to int64 }
	var free []span
	s.update(from, to, func(first, end int64, r *shareRecord) {
		if r.state == shareAvailable && r.count < math.MaxInt16 {
			free = append(free, span{first, end})
		}
	})
	for _, x := range free {
		if n < limit {
			s.update(x.from, min(x.to, x.from+limit-n), take)
		}
	}
	if at := s.end(); from <= at && at < to && n < limit {
		var r shareRecord
		end := min(to, at+limit-n)
		take(at, end, &r)
		s.extend(end, r)
	}
	return got, n
}

// holds says whether the holder has all of [from, to), as far as it is not below start.
func (s *shareState) holds(from, to int64, holder string) bool {
	if to > s.end() {
		return false
	}
	ok := true
	s.update(from, to, func(_, _ int64, r *shareRecord) {
		ok = ok && r.state == shareAcquired && r.holder == holder
	})
	return ok
}

// settle notes what is to become of [from, to), which somebody holds: see holds.
func (s *shareState) settle(from, to int64, target deliveryState, limit int16, ticket uint64) {
	s.update(from, to, func(_, _ int64, r *shareRecord) {
		r.state, r.ticket, r.target = shareSettling, ticket, target
		if target == shareAvailable && r.count >= limit {
			r.target = shareArchived
		}
	})
}

// renew begins the lock of [from, to) anew.
func (s *shareState) renew(from, to, until int64) {
	s.update(from, to, func(_, _ int64, r *shareRecord) { r.until = max(r.until, until) })
}

// each calls f for every run, and joins what is alike afterwards.
func (s *shareState) each(f func(r *shareRecord)) {
	for i := range s.runs {
		f(&s.runs[i].shareRecord)
	}
	s.join(0, len(s.runs))
}

// finish makes everything so that was settled with a ticket up to that one.
func (s *shareState) finish(ticket uint64) {
	s.each(func(r *shareRecord) {
		if r.state == shareSettling && r.ticket <= ticket {
			r.become(r.target)
		}
	})
	s.advance()
}

// become gives the record a state in which nobody has it.
func (r *shareRecord) become(state deliveryState) {
	count := r.count
	if state.done() {
		count = 1 // how often does not matter any more: neighbours become one
	}
	*r = shareRecord{state: state, count: count}
}

// revert gives back to its holder what could not be written.
func (s *shareState) revert(ticket uint64) {
	s.each(func(r *shareRecord) {
		if r.state == shareSettling && r.ticket == ticket {
			r.state, r.ticket, r.target = shareAcquired, 0, 0
		}
	})
}

// expire takes back what is locked for no longer than now. It reports whether anything was.
func (s *shareState) expire(now int64, limit int16) bool {
	return s.takeBack(limit, func(r *shareRecord) bool { return r.until <= now })
}

// release takes back all that the holder has.
func (s *shareState) release(holder string, limit int16) bool {
	return s.takeBack(limit, func(r *shareRecord) bool { return r.holder == holder })
}

func (s *shareState) takeBack(limit int16, which func(*shareRecord) bool) (any bool) {
	for i := range s.runs {
		r := &s.runs[i].shareRecord
		if r.state != shareAcquired || !which(r) {
			continue
		}
		any = true
		if r.count >= limit {
			r.become(shareArchived)
		} else {
			r.become(shareAvailable)
		}
	}
	if any {
		s.join(0, len(s.runs))
		s.advance()
	}
	return any
}

// held says whether somebody has any of it.
func (s *shareState) held() bool {
	return slices.ContainsFunc(s.runs, func(r shareRun) bool { return r.state == shareAcquired })
}

// done is how many offsets from start on are done.
func (s *shareState) done() (n int64) {
	at := s.start
	for i := range s.runs {
		if s.runs[i].state.done() {
			n += s.runs[i].end - at
		}
		at = s.runs[i].end
	}
	return n
}

// snapshot is what is to be kept: what it will be when all that is settling is written.
func (s *shareState) snapshot() (start int64, batches []shareBatch, done int64) {
	start = s.start
	at := s.start
	for i := range s.runs {
		r := &s.runs[i]
		first := at
		at = r.end
		state := r.settled()
		if state.done() && first == start {
			start = r.end
			continue
		}
		if state.done() {
			done += r.end - first
		}
		if state == shareAvailable && r.count == 0 {
			continue // as good as not looked at
		}
		b := shareBatch{first, r.end - 1, state, r.count}
		if state.done() && r.there() {
			b.count = 1
		}
		if n := len(batches); n > 0 && batches[n-1].last+1 == b.first && batches[n-1].state == b.state && batches[n-1].count == b.count {
			batches[n-1].last = b.last
			continue
		}
		batches = append(batches, b)
	}
	return start, batches, done
}

// restoreShare is the state that a snapshot tells of, of which offsets from end on are not
// those that it is about. A record whose last delivery was under way gets one more.
func restoreShare(start int64, batches []shareBatch, end int64, limit int16) shareState {
	s := shareState{start: min(start, end)}
	for _, b := range batches {
		if b.first >= end {
			break
		}
		s.extend(b.first, shareRecord{})
		r := shareRecord{state: b.state, count: b.count}
		if b.state == shareAvailable {
			r.count = min(r.count, limit-1)
		}
		s.extend(min(b.last+1, end), r)
	}
	s.advance()
	return s
}
