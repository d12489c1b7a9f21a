package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/partition"
)

// txnScript plays requests against one transactional id, in the notation of the
// tests below, and notes the answers.
type txnScript struct {
	m    txnMeta
	next int64 // producer id
	now  time.Time
}

func newTxnScript() *txnScript {
	return &txnScript{m: newTxnMeta("t"), now: time.Unix(1700000000, 0)}
}

// do plays one step: "init", "init 0.3" (expected producer and epoch), "add 0.3
// 1" (a partition), "commit 0.3", "abort1 0.3" (1: the first protocol), "done"
// (the markers are written), "fence" (the timeout), "epoch 32766", "restart".
func (s *txnScript) do(step string) (answer string) {
	verb, rest, _ := strings.Cut(step, " ")
	id, epoch, part := int64(-1), int16(-1), 0
	if rest != "" && verb != "epoch" {
		fmt.Sscanf(rest, "%d.%d %d", &id, &epoch, &part)
	}
	version := txnV2
	if v, ok := strings.CutSuffix(verb, "1"); ok {
		verb, version = v, txnV1
	}
	m, err := s.m, error(nil)
	switch verb {
	case "init":
		var what initStep
		m, what, err = s.m.init(&txnInit{producerID: id, epoch: epoch, timeout: time.Minute, now: s.now})
		switch {
		case err != nil:
		case what == initAllocate:
			m = m.withProducer(s.next)
			s.next++
		case what == initAbort:
			return "abort first"
		}
	case "add":
		m, _, err = s.m.add(id, epoch, []txnPart{{partition: int32(part)}}, s.now)
	case "commit", "abort":
		var repeated bool
		if m, repeated, err = s.m.end(id, epoch, verb == "commit", version, s.now); repeated && err == nil {
			p, e := m.answer()
			return fmt.Sprintf("again %d.%d", p, e)
		}
		if err == nil && version == txnV2 && s.m.exhausted() {
			m.next = s.next
			s.next++
		}
	case "fence":
		m = s.m.prepare(false, s.m.version, fenceTimeout, s.now)
	case "done":
		m = s.m.complete(s.now)
	case "restart":
		m = s.m.retired()
	case "epoch":
		fmt.Sscanf(rest, "%d", &m.epoch)
	default:
		panic(step)
	}
	if err != nil {
		for _, e := range []struct {
			is   error
			name string
		}{
			{ErrTxnAborted, "timed out"}, {partition.ErrFenced, "fenced"}, {ErrConcurrentTransactions, "concurrent"},
			{partition.ErrInvalidTxnState, "invalid"}, {ErrProducerMapping, "mapping"},
		} {
			if errors.Is(err, e.is) {
				return e.name
			}
		}
		return err.Error()
	}
	s.m = m
	p, e := m.answer()
	return fmt.Sprintf("%v %d.%d", m.state, p, e)
}

func TestTxnState(t *testing.T) {
	tests := []struct{ name, steps string }{
		{"one after another, each with an epoch of its own", `
			init = Empty 0.0
			add 0.0 1 = Ongoing 0.0
			add 0.0 2 = Ongoing 0.0
			add 0.0 1 = Ongoing 0.0
			commit 0.0 = PrepareCommit 0.1
			done = CompleteCommit 0.1
			add 0.1 1 = Ongoing 0.1
			abort 0.1 = PrepareAbort 0.2
			done = CompleteAbort 0.2
			add 0.2 1 = Ongoing 0.2`},
		{"the first protocol keeps the epoch", `
			init = Empty 0.0
			add 0.0 1 = Ongoing 0.0
			commit1 0.0 = PrepareCommit 0.0
			commit1 0.0 = concurrent
			abort1 0.0 = invalid
			done = CompleteCommit 0.0
			commit1 0.0 = again 0.0
			abort1 0.0 = invalid
			add 0.0 1 = Ongoing 0.0
			abort1 0.0 = PrepareAbort 0.0
			done = CompleteAbort 0.0
			abort1 0.0 = again 0.0`},
		{"an end that was not heard is answered again", `
			init = Empty 0.0
			add 0.0 1 = Ongoing 0.0
			commit 0.0 = PrepareCommit 0.1
			commit 0.0 = concurrent
			abort 0.0 = invalid
			add 0.1 1 = concurrent
			init = concurrent
			done = CompleteCommit 0.1
			commit 0.0 = again 0.1
			abort 0.0 = invalid
			commit 0.1 = invalid
			add 0.1 1 = Ongoing 0.1
			commit 0.0 = fenced
			abort 0.0 = fenced`},
		{"an abort that was not heard", `
			init = Empty 0.0
			add 0.0 1 = Ongoing 0.0
			abort 0.0 = PrepareAbort 0.1
			done = CompleteAbort 0.1
			abort 0.0 = again 0.1
			commit 0.0 = invalid
			abort 0.1 = PrepareAbort 0.2`},
		{"nothing to commit, but what may have begun is aborted", `
			init = Empty 0.0
			commit 0.0 = invalid
			commit1 0.0 = invalid
			abort1 0.0 = invalid
			abort 0.0 = PrepareAbort 0.1
			done = CompleteAbort 0.1
			abort 0.0 = again 0.1`},
		{"who takes the id over fences", `
			init = Empty 0.0
			add 0.0 1 = Ongoing 0.0
			init = abort first
			abort 0.0 = PrepareAbort 0.1
			done = CompleteAbort 0.1
			init = Empty 0.2
			add 0.0 1 = fenced
			add 0.1 1 = fenced
			commit 0.0 = fenced
			commit 0.1 = fenced
			abort 0.1 = fenced
			init 0.0 = fenced
			init 0.1 = fenced
			add 7.2 1 = mapping
			commit 7.2 = mapping`},
		{"a repeated InitProducer gets the same epoch", `
			init = Empty 0.0
			init 0.0 = Empty 0.1
			init 0.0 = Empty 0.1
			init 0.1 = Empty 0.2
			init 0.0 = fenced`},
		{"a transaction that took too long", `
			init = Empty 0.0
			add 0.0 1 = Ongoing 0.0
			fence = PrepareAbort 0.1
			add 0.0 1 = timed out
			commit 0.0 = timed out
			done = CompleteAbort 0.1
			add 0.0 1 = timed out
			commit 0.0 = timed out
			abort 0.0 = timed out
			init 0.0 = Empty 0.2
			add 0.0 1 = fenced
			add 0.2 1 = Ongoing 0.2`},
		{"the last epoch leads to another producer id", `
			init = Empty 0.0
			epoch 32766 = Empty 0.32766
			add 0.32766 1 = Ongoing 0.32766
			commit 0.32766 = PrepareCommit 1.0
			commit 0.32766 = concurrent
			done = CompleteCommit 1.0
			commit 0.32766 = again 1.0
			add 0.32766 1 = fenced
			add 1.0 1 = Ongoing 1.0
			commit 0.32766 = fenced`},
		{"so does an InitProducer", `
			init = Empty 0.0
			epoch 32765 = Empty 0.32765
			init = Empty 0.32766
			init = Empty 1.0
			init 0.32766 = fenced
			add 0.32766 1 = fenced`},
		{"and the first protocol's timeout", `
			init = Empty 0.0
			epoch 32766 = Empty 0.32766
			add 0.32766 1 = Ongoing 0.32766
			fence = PrepareAbort 0.32767
			done = CompleteAbort 0.32767
			init 0.32766 = Empty 1.0`},
		{"after a restart a local id gets another producer id", `
			init = Empty 0.0
			add 0.0 1 = Ongoing 0.0
			abort 0.0 = PrepareAbort 0.1
			done = CompleteAbort 0.1
			restart = CompleteAbort -1.-1
			add 0.1 1 = mapping
			commit 0.1 = mapping
			abort 0.0 = mapping
			add -1.-1 1 = mapping
			init = Empty 1.0`},
	}
	for _, tt := range tests {
		s := newTxnScript()
		for line := range strings.Lines(strings.TrimSpace(tt.steps)) {
			step, want, _ := strings.Cut(strings.TrimSpace(line), " = ")
			if got := s.do(step); got != want {
				t.Errorf("%s: %s: got %q, want %q", tt.name, step, got, want)
				break
			}
		}
	}
}

// Clients at random: no epoch of a producer id is given to two of them, none goes back,
// and what a client is told of its transaction is what was decided.
func TestTxnStateRandom(t *testing.T) {
	for seed := range uint64(testcount.N(3000)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := newTxnScript()
		s.do("init")
		s.m.epoch = int16([]int{0, 5, 32760}[rng.IntN(3)])
		type client struct {
			id    int64
			epoch int16
		}
		clients := make([]client, 3)
		for i := range clients {
			clients[i].id, clients[i].epoch = -1, -1
		}
		owner := -1 // who was given the id last
		var log []string
		given := map[string]int{} // epoch: client
		outcome := map[string]txnState{}
		key := func(c *client) string { return fmt.Sprintf("%d.%d", c.id, c.epoch) }
		give := func(i int) {
			c := &clients[i]
			c.id, c.epoch = s.m.answer()
			if other, there := given[key(c)]; there && other != i {
				t.Fatalf("seed %d: %s given to %d and %d\n%s", seed, key(c), other, i, strings.Join(log, "\n"))
			}
			given[key(c)] = i
			owner = i
		}
		for range 60 {
			i := rng.IntN(len(clients))
			c := &clients[i]
			var step string
			switch rng.IntN(8) {
			case 0:
				step = "init"
				if c.id >= 0 && rng.IntN(2) == 0 {
					step += " " + key(c)
				}
			case 1, 2, 3:
				step = fmt.Sprintf("add %s %d", key(c), rng.IntN(3))
			case 4:
				step = "commit " + key(c)
			case 5:
				step = "abort " + key(c)
			case 6:
				if s.m.state != txnOngoing {
					continue
				}
				step = "fence"
			default:
				if !s.m.state.prepared() {
					continue
				}
				step = "done"
			}
			before := s.m
			answer := s.do(step)
			log = append(log, fmt.Sprintf("%d: %s = %s", i, step, answer))
			fail := func(what string) {
				t.Fatalf("seed %d: %s\n%s", seed, what, strings.Join(log, "\n"))
			}
			if s.m.producerID < before.producerID || s.m.producerID == before.producerID && s.m.epoch < before.epoch {
				fail("the epoch went back")
			}
			if s.m.epoch > 32766 && s.m.state.ended() && s.m.fenced == notFenced && s.m.version == txnV2 {
				fail("a transaction could have an epoch that leaves none for its markers")
			}
			verb, _, _ := strings.Cut(step, " ")
			switch {
			case answer == "abort first":
				s.m = s.m.prepare(false, s.m.version, fenceTakeover, s.now)
				if before.exhausted() {
					s.m.next = s.next
					s.next++
				}
			case verb == "init" && strings.HasPrefix(answer, "Empty"):
				give(i)
			case verb == "add" && strings.HasPrefix(answer, "Ongoing"):
				if i != owner {
					fail("one who is not the owner wrote")
				}
			case verb == "fence":
				if before.exhausted() {
					s.m.next = s.next
					s.next++
				}
			case verb == "commit" || verb == "abort":
				want := txnPrepareCommit
				if verb == "abort" {
					want = txnPrepareAbort
				}
				switch {
				case strings.HasPrefix(answer, "Prepare"):
					if s.m.state != want {
						fail("decided the other way")
					}
					outcome[key(c)] = want
					give(i)
				case strings.HasPrefix(answer, "again"):
					if got := outcome[key(c)]; got != want && i == owner {
						fail(fmt.Sprintf("told that it was %s, it was %v", verb, got))
					}
				}
			}
		}
	}
}
