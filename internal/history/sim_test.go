package history

import (
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/x/embedlog/internal/testcount"
)

// sim is clients of a broker, each of which does one step after the other, in an
// order that a seed decides.
type sim struct {
	*broker
	h      History
	clock  int64
	values int64
	parts  []int
}

// client is a process of the history.
type client struct {
	*sim
	process int32
	session int
	step    func() // lets others do something
}

// lives is how many operations each client does.
const lives = 20

func simulate(seed uint64, b bug) *sim {
	r := rand.New(rand.NewPCG(seed, 0))
	s := &sim{broker: newBroker(r, b, 4), parts: []int{0, 1, 2, 3}}
	works := []func(*client){
		(*client).send, (*client).send,
		(*client).transact, (*client).transact,
		func(c *client) { c.member("copy", []int{0, 1}, []int{2, 3}) },
		func(c *client) { c.member("copy", []int{0, 1}, []int{2, 3}) },
		func(c *client) { c.member("back", []int{2, 3}, []int{0, 1}) },
		func(c *client) { c.member("mix", []int{0, 2}, []int{0, 2}) },
		func(c *client) { c.member("count", []int{0, 1, 2, 3}, nil) },
		func(c *client) { c.member("count", []int{0, 1, 2, 3}, nil) },
		func(c *client) { c.read(true) },
		func(c *client) { c.read(true) },
		func(c *client) { c.read(false) },
		(*client).observe,
	}
	var next []func() (struct{}, bool)
	for i, work := range works {
		n, stop := iter.Pull(func(yield func(struct{}) bool) {
			work(&client{sim: s, process: int32(i), session: s.id(), step: func() { s.clock++; yield(struct{}{}) }})
		})
		defer stop()
		next = append(next, n)
	}
	for len(next) > 0 {
		if r.IntN(4) == 0 {
			s.work()
			s.expire(50)
		}
		i := r.IntN(len(next))
		if _, ok := next[i](); !ok {
			next = slices.Delete(next, i, i+1)
		}
	}
	s.expire(1)
	for s.work() {
	}
	for s.expire(1); s.work(); {
	}
	(&client{sim: s, process: 100, step: func() { s.clock++ }}).final()
	return s
}

// expire aborts one transaction in n that nobody works on any more.
func (s *sim) expire(n int) {
	for _, t := range s.active {
		if !t.ended && t.session < 0 && s.rand.IntN(n) == 0 {
			t.ended = true
		}
	}
}

func (c *client) begin(kind OpKind) *Op {
	c.clock++
	return &Op{Process: c.process, Kind: kind, Start: c.clock}
}

func (c *client) end(op *Op, o Outcome) {
	c.clock++
	op.End, op.Outcome = c.clock, o
	c.h = append(c.h, *op)
}

func (c *client) crash() {
	c.end(c.begin(OpCrash), OK)
	c.session = c.id()
}

func (c *client) value() int64 { c.values++; return 1000 + c.values }

func add(runs *[]Run, k Key, records ...Record) {
	if i := slices.IndexFunc(*runs, func(r Run) bool { return r.Key == k }); i >= 0 {
		(*runs)[i].Records = append((*runs)[i].Records, records...)
	} else {
		*runs = append(*runs, Run{k, slices.Clone(records)})
	}
}

// produce sends one record as an idempotent producer does, again and again until it
// has an answer, or gives up.
func (c *client) produce(part, txn int, value int64) (at int64, answered bool) {
	c.step()
	switch c.rand.IntN(24) {
	case 0: // no answer; never arrives
		return 0, false
	case 1: // no answer; arrives
		c.append(part, txn, value)
		return 0, false
	case 2: // no answer; arrives later
		c.late = append(c.late, lateWrite{c.session, part, txn, value})
		return 0, false
	case 3, 4, 5: // the answer is lost
		c.append(part, txn, value)
		c.step()
	}
	return c.append(part, txn, value), true
}

// send sends records outside transactions.
func (c *client) send() {
	for range lives {
		c.step()
		op, lost := c.begin(OpSend), false
		part, other := c.rand.IntN(4), c.rand.IntN(4)
		if len(c.h)%2 == 0 && c.bug == reorders && c.rand.IntN(4) == 0 {
			// Two records on their way, and the second is written first.
			one, two := c.value(), c.value()
			later := c.append(part, 0, two)
			earlier := c.append(part, 0, one)
			add(&op.Sends, c.broker.parts[part].key, Record{earlier, one}, Record{later, two})
			c.struck++
			c.end(op, OK)
			continue
		}
		for range 1 + c.rand.IntN(3) {
			value := c.value()
			to := []int{part, other}[c.rand.IntN(2)]
			at, ok := c.produce(to, 0, value)
			if !ok {
				at = Unanswered
			}
			add(&op.Sends, c.broker.parts[to].key, Record{at, value})
			if !ok {
				lost = true
				break
			}
		}
		c.end(op, OK)
		if lost {
			c.crash()
		}
	}
}

// transact sends records in transactions.
func (c *client) transact() {
	for range lives {
		c.step()
		op := c.begin(OpTxn)
		t := c.broker.begin(c.session)
		ok := c.sends(op, t, c.parts, 1+c.rand.IntN(4))
		c.finish(op, t, ok)
	}
}

// sends sends n records in a transaction; false when one has no answer.
func (c *client) sends(op *Op, t *simTxn, parts []int, n int) bool {
	for range n {
		value, part := c.value(), parts[c.rand.IntN(len(parts))]
		at, ok := c.produce(part, t.id, value)
		if !ok {
			at = NoOffset
		}
		add(&op.Sends, c.broker.parts[part].key, Record{at, value})
		if !ok {
			return false
		}
	}
	return true
}

// finish ends a transaction, by its client's will or not. It returns the outcome.
func (c *client) finish(op *Op, t *simTxn, ok bool) Outcome {
	c.step()
	n := c.rand.IntN(10)
	switch {
	case !ok || n == 0: // aborts
		t.ended = true
		for !t.settled() {
			c.step()
			c.settle(t)
		}
		c.end(op, Fail)
		return Fail
	case n == 1: // dies before it decides; its transaction will expire
		t.session = -1
		c.end(op, Info)
		c.crash()
		return Info
	case n == 2: // dies without the answer
		t.ended, t.commit = true, true
		c.end(op, Info)
		c.crash()
		return Info
	}
	t.ended, t.commit = true, true
	c.end(op, OK)
	for !t.settled() { // CONCURRENT_TRANSACTIONS until then
		c.step()
		c.settle(t)
	}
	return OK
}

// member is a member of a group. With out it copies: each transaction polls, sends,
// and commits the positions. Without it polls, and commits by itself.
func (c *client) member(name string, in, out []int) {
	g := c.group(name, in)
	generation, positions := -1, map[int]int64{}
	join := func() {
		op := c.begin(OpSubscribe)
		op.Group = name
		c.join(g, c.process)
		c.end(op, OK)
		generation = -1
	}
	// sync takes the partitions of a new generation, and says which have moved.
	sync := func() (moved []Key) {
		if generation == g.generation || !c.stable(name) {
			return nil
		}
		generation = g.generation
		was := positions
		positions = map[int]int64{}
		for _, part := range in {
			if g.owner[part] == c.process {
				positions[part] = c.position(g, part)
			}
			if _, ok := was[part]; ok || g.owner[part] == c.process {
				moved = append(moved, c.broker.parts[part].key)
			}
		}
		return moved
	}
	poll := func(op *Op) {
		for _, part := range slices.Sorted(maps.Keys(positions)) {
			records, next := c.fetch(part, positions[part], 1+c.rand.IntN(4), true)
			positions[part] = next
			if len(records) > 0 {
				add(&op.Polls, c.broker.parts[part].key, records...)
			}
		}
	}
	// offsets is what is to be committed, and says so in the operation.
	offsets := func(op *Op) map[int]int64 {
		op.Group = name
		for _, part := range slices.Sorted(maps.Keys(positions)) {
			op.Offsets = append(op.Offsets, Offset{c.broker.parts[part].key, positions[part]})
		}
		return maps.Clone(positions)
	}
	valid := func() bool {
		if generation != g.generation && c.bug == takesOldGeneration {
			c.struck++
			return true
		}
		return generation == g.generation
	}
	join()
	for range lives {
		c.step()
		if generation != g.generation {
			op := c.begin(OpRebalance)
			if op.Keys = sync(); len(op.Keys) > 0 {
				c.end(op, OK)
			}
			if generation < 0 {
				continue
			}
		}
		if out != nil {
			op := c.begin(OpTxn)
			t := c.broker.begin(c.session)
			before := maps.Clone(positions)
			poll(op)
			ok := c.sends(op, t, out, 1+c.rand.IntN(2))
			c.step()
			if c.rand.IntN(3) == 0 {
				poll(op) // what it sent itself is not to be there
			}
			if ok = ok && valid(); ok {
				t.offsets, t.group = offsets(op), name
			}
			switch c.finish(op, t, ok) {
			case Fail:
				positions = before
			case Info:
				positions = map[int]int64{}
				c.leave(g, c.process)
				join()
			}
			continue
		}
		op := c.begin(OpPoll)
		poll(op)
		c.step()
		if c.rand.IntN(3) == 0 {
			if op.Keys = sync(); len(op.Keys) > 0 {
				poll(op)
			}
		}
		c.end(op, OK)
		if c.rand.IntN(12) == 0 {
			c.crash()
			positions = map[int]int64{}
			c.leave(g, c.process)
			join()
			continue
		}
		op = c.begin(OpCommit)
		at := offsets(op)
		c.step()
		switch {
		case len(at) == 0:
		case !valid():
			c.end(op, Fail)
		case c.rand.IntN(8) == 0: // no answer; whether it arrived is not known
			if c.rand.IntN(2) == 0 {
				c.commit(g, at)
			}
			c.end(op, Info)
		default:
			c.commit(g, at)
			c.end(op, OK)
		}
	}
	c.leave(g, c.process)
}

// read reads partitions that it assigned to itself, and seeks now and then.
func (c *client) read(committed bool) {
	positions := map[int]int64{}
	for range 2 * lives {
		c.step()
		switch n := c.rand.IntN(16); {
		case n == 0 || len(positions) == 0:
			op := c.begin(OpAssign)
			was := positions
			positions = map[int]int64{}
			for _, part := range c.parts {
				if c.rand.IntN(2) == 0 {
					positions[part] = was[part] // goes on, or begins at the start
					op.Keys = append(op.Keys, c.broker.parts[part].key)
				}
			}
			c.end(op, OK)
		case n == 1:
			op := c.begin(OpSeek)
			part := slices.Sorted(maps.Keys(positions))[0]
			positions[part] = int64(c.rand.IntN(len(c.broker.parts[part].entries) + 1))
			op.Offsets = []Offset{{c.broker.parts[part].key, positions[part]}}
			c.end(op, OK)
		default:
			op := c.begin(OpPoll)
			op.Uncommitted = !committed
			for _, part := range slices.Sorted(maps.Keys(positions)) {
				c.step()
				records, next := c.fetch(part, positions[part], 1+c.rand.IntN(6), committed)
				positions[part] = next
				if len(records) > 0 {
					add(&op.Polls, c.broker.parts[part].key, records...)
				}
			}
			c.end(op, OK)
		}
	}
}

// observe asks for the positions of groups.
func (c *client) observe() {
	for range 2 * lives {
		c.step()
		for _, name := range slices.Sorted(maps.Keys(c.groups)) {
			c.committed(name, false)
		}
	}
}

func (c *client) committed(name string, final bool) {
	op := c.begin(OpCommitted)
	op.Group, op.Final = name, final
	g := c.groups[name]
	for _, part := range slices.Sorted(maps.Keys(g.committed)) {
		op.Offsets = append(op.Offsets, Offset{c.broker.parts[part].key, g.committed[part]})
	}
	c.end(op, OK)
}

// final reads everything once everybody else has stopped.
func (c *client) final() {
	done := c.begin(OpFinal)
	for _, part := range c.parts {
		k := c.broker.parts[part].key
		op := c.begin(OpSeek)
		op.Offsets = []Offset{{k, 0}}
		c.end(op, OK)
		for next := int64(0); ; {
			op := c.begin(OpPoll)
			op.Final = true
			var records []Record
			if records, next = c.fetch(part, next, 10, true); len(records) == 0 {
				break
			}
			add(&op.Polls, k, records...)
			c.end(op, OK)
		}
		done.Keys = append(done.Keys, k)
	}
	c.end(done, OK)
	for _, name := range slices.Sorted(maps.Keys(c.groups)) {
		c.committed(name, true)
	}
}

// firstSeed is where the seeds of a run begin: EMBEDLOG_HISTORY_SEED in the
// environment, to look at one that failed.
func firstSeed(t *testing.T) (seed uint64, given bool) {
	text := os.Getenv("EMBEDLOG_HISTORY_SEED")
	if text == "" {
		return rand.Uint64() >> 1, false
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("EMBEDLOG_HISTORY_SEED=%q: %v", text, err)
	}
	return seed, true
}

// A broker without bugs never shows an anomaly, but those that are allowed.
func TestCorrectBroker(t *testing.T) {
	first, one := firstSeed(t)
	n := testcount.N(100)
	if one {
		n = 1
	}
	var sum Figures
	for i := range uint64(n) {
		s := simulate(first+i, noBug)
		r := check(t, s.h, nil)
		if len(r.Bad()) > 0 {
			t.Fatalf("EMBEDLOG_HISTORY_SEED=%d: a correct broker shows anomalies\n%v", first+i, r)
		}
		f := &r.Figures
		sum.Ops.OK, sum.Ops.Fail, sum.Ops.Info = sum.Ops.OK+f.Ops.OK, sum.Ops.Fail+f.Ops.Fail, sum.Ops.Info+f.Ops.Info
		sum.Sent.OK, sum.Sent.Fail, sum.Sent.Info = sum.Sent.OK+f.Sent.OK, sum.Sent.Fail+f.Sent.Fail, sum.Sent.Info+f.Sent.Info
		sum.Polled, sum.Proven = sum.Polled+f.Polled, sum.Proven+f.Proven
	}
	t.Logf("seeds from %d: %d histories, operations %v, records sent %v, polled %d, transactions proven %d", first, n, sum.Ops, sum.Sent, sum.Polled, sum.Proven)
	if sum.Sent.OK == 0 || sum.Sent.Fail == 0 || sum.Sent.Info == 0 || sum.Proven == 0 || sum.Polled == 0 {
		t.Error("the histories are not of all kinds")
	}
}

// Each bug shows as the anomaly that it is, and as nothing that it cannot cause.
func TestBrokersWithBugs(t *testing.T) {
	first, one := firstSeed(t)
	// What readers pass by when a record that is known to be there is missing.
	passed := []Kind{LostWrite, TornTxn, IntPollSkip, PollSkip, GroupSkip}
	// What comes of a transaction that has not happened and seems to have.
	seeming := append([]Kind{DoubleProcess, CommitRegress}, passed...)
	for _, row := range []struct {
		name string
		bug  bug
		want []Kind // each of them in some history
		also []Kind // what may come with them
	}{
		{"loses an acknowledged record", losesAcknowledged, []Kind{LostWrite}, passed},
		{"forgets the end of a log", forgetsTail, []Kind{LostWrite}, passed},
		{"writes a record again when it is sent again", duplicatesRetry, []Kind{Duplicate}, nil},
		{"shows records of aborted transactions", showsAborted, []Kind{AbortedRead}, seeming},
		{"shows records of open transactions", showsOpen, []Kind{AbortedRead, PrecommittedRead, G1c}, seeming},
		{"passes open transactions by", passesOpen, []Kind{PollSkip, GroupSkip}, []Kind{IntPollSkip}},
		{"aborts a part of a transaction", tearsTxn, []Kind{TornTxn, LostWrite}, passed},
		{"moves a position back", commitsBack, []Kind{CommitRegress}, []Kind{DoubleProcess}},
		{"writes two records in the wrong order", reorders, []Kind{NonmonotonicSend}, nil},
		{"gives an offset to two records", sharesOffset, []Kind{InconsistentOffsets}, []Kind{LostWrite}},
		{"skips a record when a group is rebalanced", skipsAtRebalance, []Kind{GroupSkip}, nil},
		{"skips a record", skips, []Kind{PollSkip}, passed},
		{"goes back", goesBack, []Kind{NonmonotonicPoll}, []Kind{IntNonmonotonicPoll, DoubleProcess, CommitRegress}},
		{"leaves a record out", skipsInside, []Kind{IntPollSkip}, passed},
		{"gives a record twice", repeatsInside, []Kind{IntNonmonotonicPoll}, []Kind{PollSkip, IntPollSkip}},
		{"invents a record", invents, []Kind{Phantom, InconsistentOffsets}, []Kind{LostWrite, TornTxn}},
		{"writes a record to another partition", misplaces, []Kind{Phantom, LostWrite}, append([]Kind{InconsistentOffsets, NonmonotonicSend, IntNonmonotonicSend}, passed...)},
		{"answers with a wrong offset", answersWrongOffset, []Kind{Duplicate, InconsistentOffsets}, nil},
		{"commits the positions of aborted transactions", commitsOffsetsOfAborted, []Kind{GroupSkip, PhantomCommit}, []Kind{CommitRegress}},
		{"loses the positions of transactions", losesOffsetsOfTxn, []Kind{DoubleProcess, CommitRegress}, nil},
		{"takes late records of an aborted transaction into the next one", takesLateWrites, []Kind{AbortedRead}, nil},
		{"lets members of old generations commit", takesOldGeneration, []Kind{CommitRegress, DoubleProcess}, nil},
		{"tells positions that a transaction is about to move", doesNotWaitForTxn, []Kind{DoubleProcess}, []Kind{CommitRegress}},
	} {
		t.Run(row.name, func(t *testing.T) {
			shown, runs, struck := map[Kind]int{}, 0, 0
			missing := func() bool { return slices.ContainsFunc(row.want, func(k Kind) bool { return shown[k] == 0 }) }
			for least := testcount.N(20); runs < least || missing() && runs < 400 && !one; runs++ {
				seed := first + uint64(runs)
				s := simulate(seed, row.bug)
				r := check(t, s.h, nil)
				if s.struck > 0 {
					struck++
				}
				for _, a := range r.Bad() {
					if s.struck == 0 {
						t.Fatalf("EMBEDLOG_HISTORY_SEED=%d: the bug did not strike, and there are anomalies\n%v", seed, r)
					}
					if shown[a.Kind]++; shown[a.Kind] == 1 && !slices.Contains(row.want, a.Kind) && !slices.Contains(row.also, a.Kind) {
						t.Errorf("EMBEDLOG_HISTORY_SEED=%d: %v cannot come of this bug: %v", seed, a.Kind, a.First[0])
					}
				}
			}
			t.Logf("seeds from %d: it struck in %d of %d histories, which showed %v", first, struck, runs, shown)
			if missing() && !one {
				t.Errorf("want %v", row.want)
			}
		})
	}
}
