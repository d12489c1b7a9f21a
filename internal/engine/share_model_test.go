package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// naiveShare is a share partition with a record of its own for each offset.
type naiveShare struct {
	start, end int64
	at         map[int64]shareRecord
}

func (n *naiveShare) get(o int64) shareRecord { return n.at[o] }

func (n *naiveShare) advance() {
	for n.start < n.end && n.at[n.start].state.done() {
		n.start++
	}
}

func (n *naiveShare) each(from, to int64, f func(r *shareRecord)) {
	for o := max(from, n.start); o < min(to, n.end); o++ {
		r := n.at[o]
		f(&r)
		n.at[o] = r
	}
}

// text is every offset of the window: its state, count and holder.
func (n *naiveShare) text() string {
	s := fmt.Sprint(n.start, " ")
	for o := n.start; o < n.end; o++ {
		s += recordText(n.at[o])
	}
	return s
}

func recordText(r shareRecord) string {
	if r.state.done() {
		return fmt.Sprintf("[%d %v]", r.state, r.there())
	}
	return fmt.Sprintf("[%d %d %s %d]", r.state, r.count, r.holder, r.until)
}

func windowText(s *shareState) string {
	text, at := fmt.Sprint(s.start, " "), s.start
	for i := range s.runs {
		for ; at < s.runs[i].end; at++ {
			text += recordText(s.runs[i].shareRecord)
		}
	}
	return text
}

// The runs of a state say of each offset what a state without runs says.
func TestShareStateAgainstModel(t *testing.T) {
	for seed := range uint64(testcount.N(300)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s shareState
		n := &naiveShare{at: map[int64]shareRecord{}}
		const limit = 3
		now, ticket := int64(0), uint64(0)
		var log []string
		check := func(what string) {
			t.Helper()
			log = append(log, what)
			checkShareState(t, &s)
			if got, want := windowText(&s), n.text(); got != want {
				t.Fatalf("seed %d, after %v:\ngot  %s\nwant %s", seed, log[max(0, len(log)-8):], got, want)
			}
		}
		for range 120 {
			holder := string(rune('a' + rng.IntN(3)))
			from := n.start + rng.Int64N(12) - 2
			to := from + 1 + rng.Int64N(8)
			switch op := rng.IntN(10); op {
			case 0, 1, 2: // acquire
				from = max(from, n.start)
				if from > n.end {
					from = n.end
				}
				most := 1 + rng.Int64N(9)
				s.acquire(from, to, most, holder, now+20)
				k := int64(0)
				for o := from; o < to && k < most; o++ {
					r := n.get(o)
					if o < n.end && r.state != shareAvailable {
						continue
					}
					n.at[o] = shareRecord{state: shareAcquired, count: r.count + 1, holder: holder, until: now + 20}
					n.end, k = max(n.end, o+1), k+1
				}
				check(fmt.Sprintf("%s acquires %d-%d, %d", holder, from, to, most))
			case 3, 4, 5: // acknowledge
				target := []deliveryState{shareAccepted, shareArchived, shareAvailable}[rng.IntN(3)]
				holds := to <= n.end
				n.each(from, to, func(r *shareRecord) { holds = holds && r.state == shareAcquired && r.holder == holder })
				if got := s.holds(from, to, holder); got != holds {
					t.Fatalf("seed %d: %s holds %d-%d: %v, want %v in %s", seed, holder, from, to, got, holds, n.text())
				}
				if !holds {
					continue
				}
				ticket++
				s.settle(from, to, target, limit, ticket)
				if rng.IntN(4) == 0 {
					s.revert(ticket)
					check("reverted")
					continue
				}
				start, batches, _ := s.snapshot()
				s.finish(ticket)
				n.each(from, to, func(r *shareRecord) {
					if target == shareAvailable && r.count >= limit {
						r.become(shareArchived)
					} else {
						r.become(target)
					}
				})
				n.advance()
				check(fmt.Sprintf("%s says %d of %d-%d", holder, target, from, to))
				if start != s.start {
					t.Fatalf("seed %d: the snapshot starts at %d, the state at %d", seed, start, s.start)
				}
				// What is restored is what is there, less who has what.
				again := restoreShare(start, batches, 1<<40, limit)
				checkShareState(t, &again)
				for o := n.start; o < max(n.end, again.end()); o++ {
					want, got := n.get(o), shareRecord{}
					again.update(o, o+1, func(_, _ int64, r *shareRecord) { got = *r })
					if want.state == shareAcquired {
						want = shareRecord{count: want.count}
					}
					if !want.state.done() {
						want.count = min(want.count, limit-1)
					}
					if o < again.start {
						got = shareRecord{state: shareArchived, count: 1}
						got.state = want.state
					}
					if recordText(got) != recordText(want) && !(want.state.done() && got.state == want.state) {
						t.Fatalf("seed %d: offset %d is restored as %s, want %s", seed, o, recordText(got), recordText(want))
					}
				}
			case 6: // time
				now += rng.Int64N(15)
				s.expire(now, limit)
				n.takeBack(limit, func(r *shareRecord) bool { return r.until <= now })
				check(fmt.Sprintf("it is %d", now))
			case 7: // somebody goes
				s.release(holder, limit)
				n.takeBack(limit, func(r *shareRecord) bool { return r.holder == holder })
				check(holder + " goes")
			case 8: // nothing is there
				from = max(from, n.start)
				s.skip(from, to)
				if from <= n.end {
					for o := from; o < to; o++ {
						if o >= n.end || n.get(o).state == shareAvailable {
							n.at[o] = shareGap
							n.end = max(n.end, o+1)
						}
					}
				} else {
					n.each(from, to, func(r *shareRecord) {
						if r.state == shareAvailable {
							*r = shareGap
						}
					})
				}
				n.advance()
				check(fmt.Sprintf("nothing at %d-%d", from, to))
			case 9:
				if rng.IntN(3) > 0 {
					continue
				}
				s.trim(from)
				if from > n.start {
					n.start, n.end = from, max(n.end, from)
				}
				n.advance()
				check(fmt.Sprintf("the log starts at %d", from))
			}
		}
	}
}

func (n *naiveShare) takeBack(limit int16, which func(*shareRecord) bool) {
	n.each(n.start, n.end, func(r *shareRecord) {
		if r.state != shareAcquired || !which(r) {
			return
		}
		if r.count >= limit {
			r.become(shareArchived)
		} else {
			r.become(shareAvailable)
		}
	})
	n.advance()
}

// shareLife is what a run of members knows: what it was given, and what it was told is done.
type shareLife struct {
	*shareBed
	rng   *rand.Rand
	fs    *vfs.Mem
	seed  uint64
	kills int

	members map[string]bool
	records map[int64]*lifeRecord // all that were produced and are not deleted
	log     int64                 // start
}

// lifeRecord is one record as its receivers know it.
type lifeRecord struct {
	holder     string
	until      time.Time
	deliveries int // in this run, and before by what was counted
	total      int
	done       bool // accepted or rejected, and that was answered
}

const (
	lifeLock  = 10 * time.Second
	lifeLimit = 3
)

func (l *shareLife) held(r *lifeRecord) bool { return r.holder != "" && time.Now().Before(r.until) }

func (l *shareLife) failf(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("seed %d: %s (state %s)", l.seed, fmt.Sprintf(format, args...), l.state())
}

func (l *shareLife) deliver(member string, limit int) int {
	res, err := l.e.Shares().Acquire(ctx, ShareRequest{Group: shareGroupName, MemberID: member, Topic: l.topic.ID(), MaxRecords: limit, Strict: true})
	if err != nil {
		l.failf("acquire: %v", err)
	}
	n := 0
	for _, a := range res.Acquired {
		for o := a.First; o <= a.Last; o++ {
			r := l.records[o]
			switch {
			case r == nil:
				l.failf("%s gets %d, which there is not", member, o)
			case l.held(r):
				l.failf("%s gets %d, which %s has until %v", member, o, r.holder, r.until)
			case r.done:
				l.failf("%s gets %d, which is done", member, o)
			case a.DeliveryCount > lifeLimit, r.total > lifeLimit+l.kills:
				l.failf("%s gets %d for the %d. time", member, o, r.total)
			case l.kills == 0 && int(a.DeliveryCount) != r.total+1:
				l.failf("%s gets %d for the %d. time, and is told the %d.", member, o, r.total+1, a.DeliveryCount)
			}
			r.holder, r.until, r.deliveries = member, time.Now().Add(lifeLock), int(a.DeliveryCount)
			r.total, n = r.total+1, n+1
		}
	}
	if limit > 0 && n > limit {
		l.failf("%s gets %d records, and asked for %d", member, n, limit)
	}
	return n
}

// say acknowledges records that somebody has, or has not.
func (l *shareLife) say(member string) {
	var have []int64
	for o, r := range l.records {
		if r.holder == member {
			have = append(have, o)
		}
	}
	if len(have) == 0 {
		return
	}
	slices.Sort(have)
	i := l.rng.IntN(len(have))
	first, last := have[i], have[i]
	for i++; i < len(have) && have[i] == last+1 && l.rng.IntN(4) > 0; i++ {
		last++
	}
	types := make([]AckType, 0, last-first+1)
	for range last - first + 1 {
		types = append(types, []AckType{AckAccept, AckAccept, AckAccept, AckRelease, AckReject, AckRenew}[l.rng.IntN(6)])
	}
	// What was delivered too often is done, and the start may have passed it.
	all, start := true, l.start()
	for o := first; o <= last; o++ {
		r := l.records[o]
		all = all && (l.held(r) || o < l.log || o < start)
	}
	if l.rng.IntN(8) == 0 && first >= start {
		if err := l.ack("x", first, last, types...); !errors.Is(err, ErrNotAcquired) {
			l.failf("a stranger acknowledges %d-%d: %v", first, last, err)
		}
	}
	err := l.ack(member, first, last, types...)
	if (err == nil) != all || err != nil && !errors.Is(err, ErrNotAcquired) {
		l.failf("%s acknowledges %d-%d as %v, has all: %v: %v", member, first, last, types, all, err)
	}
	if err != nil {
		return
	}
	for o := first; o <= last; o++ {
		r := l.records[o]
		if !l.held(r) {
			continue // passed over
		}
		switch types[o-first] {
		case AckRenew:
			r.until = time.Now().Add(lifeLock)
		case AckRelease:
			r.holder = ""
		default:
			r.holder, r.done = "", true
		}
	}
}

// start is everything below which is done.
func (l *shareLife) start() int64 {
	g, err := l.e.Shares().group(ctx, shareGroupName, false)
	if err != nil {
		l.failf("%v", err)
	}
	sp := g.find(topicPart{l.topic.ID(), 0})
	p, _ := l.topic.Partition(0)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.refreshLocked(p, l.e.Shares().clock(time.Now()))
	checkShareState(l.t, &sp.state)
	return sp.state.start
}

// check says what must be true at every moment: the start has not passed what is not done.
func (l *shareLife) check() {
	start := l.start()
	for o, r := range l.records {
		if o < start && o >= l.log && !r.done && (l.held(r) || r.deliveries < lifeLimit) {
			l.failf("the start %d has passed %d, which was delivered %d times", start, o, r.deliveries)
		}
	}
}

func (l *shareLife) letGo(which func(*lifeRecord) bool) {
	for _, r := range l.records {
		if r.holder != "" && which(r) {
			r.holder = ""
		}
	}
}

func (l *shareLife) reopen(kill bool) {
	old := l.e
	if kill {
		l.fs = l.fs.AfterKill()
		old.Close()
		l.kills++
	} else if err := old.Close(); err != nil {
		l.failf("close: %v", err)
	}
	for _, r := range l.records { // whose last delivery was under way gets one more
		if l.held(r) && r.deliveries == lifeLimit {
			r.deliveries, r.total = r.deliveries-1, r.total-1
		}
	}
	l.letGo(func(*lifeRecord) bool { return true })
	l.shareBed = newShareBed(l.t, l.fs, nil)
	for m := range l.members {
		l.join(m)
	}
}

func (l *shareLife) step() {
	member := string(rune('a' + l.rng.IntN(3)))
	switch l.rng.IntN(20) {
	case 0, 1, 2:
		p, _ := l.topic.Partition(0)
		base, n := p.LogEnd(), 1+l.rng.IntN(8)
		l.produce(n)
		for i := range n {
			l.records[base+int64(i)] = &lifeRecord{}
		}
	case 3, 4, 5, 6, 7:
		if !l.members[member] {
			l.join(member)
			l.members[member] = true
		}
		l.deliver(member, 1+l.rng.IntN(10))
	case 8, 9, 10, 11, 12, 13:
		l.say(member)
	case 14, 15:
		time.Sleep(time.Duration(l.rng.IntN(8)) * time.Second)
	case 16:
		if l.members[member] {
			if _, err := l.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: member, MemberEpoch: LeaveEpoch}); err != nil {
				l.failf("leave: %v", err)
			}
			delete(l.members, member)
			l.letGo(func(r *lifeRecord) bool { return r.holder == member && l.held(r) })
		}
	case 17:
		if l.rng.IntN(3) == 0 {
			p, _ := l.topic.Partition(0)
			at := min(l.log+l.rng.Int64N(6), p.HighWatermark())
			if _, err := p.DeleteRecords(ctx, at); err != nil {
				l.failf("delete records: %v", err)
			}
			l.log = at
		}
	case 18:
		if l.rng.IntN(4) == 0 {
			l.reopen(l.rng.IntN(2) == 0)
		}
	case 19:
		l.e.Tick(ctx)
	}
	for m := range l.members { // they are alive
		r, err := l.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: m, MemberEpoch: l.epochs[m]})
		if err != nil {
			l.failf("heartbeat: %v", err)
		}
		l.epochs[m] = r.MemberEpoch
	}
	l.check()
}

// finish delivers all that is left, and accepts it.
func (l *shareLife) finish() {
	time.Sleep(lifeLock)
	l.join("z")
	for l.deliver("z", 7) > 0 {
		for o, r := range l.records {
			if r.holder == "z" && l.held(r) {
				if err := l.ack("z", o, o, AckAccept); err != nil {
					l.failf("%v", err)
				}
				r.holder, r.done = "", true
			}
		}
	}
	p, _ := l.topic.Partition(0)
	for o, r := range l.records {
		if !r.done && o >= l.log && r.deliveries < lifeLimit {
			l.failf("%d was delivered %d times, and never done", o, r.deliveries)
		}
	}
	l.want("all is done", l.state(), fmt.Sprint(p.HighWatermark()))
}

// Random lives of members: a record has one holder at a time, is delivered no more often than
// the limit, not again when it is done, and otherwise until it is; the start never passes it before.
func TestShareGroupLives(t *testing.T) {
	for seed := range uint64(testcount.N(60)) {
		synctest.Test(t, func(t *testing.T) {
			fs := vfs.NewMem()
			l := &shareLife{
				shareBed: newShareBed(t, fs, nil), rng: rand.New(rand.NewPCG(seed, 2)), fs: fs, seed: seed,
				members: map[string]bool{}, records: map[int64]*lifeRecord{},
			}
			defer func() { l.e.Close() }()
			l.set(shareSettingLock, fmt.Sprint(lifeLock.Milliseconds()))
			l.set(shareSettingLimit, fmt.Sprint(lifeLimit))
			l.set(shareSettingRecords, "100")
			l.join("y")
			l.deliver("y", 1) // so that it begins before records are deleted
			for range 150 {
				l.step()
			}
			l.finish()
		})
	}
}
