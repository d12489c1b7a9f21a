package partition

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// leads stores what is proposed, and never hears of a majority.
type leads struct{ p *Partition }

func (leads) LeaderEpoch() (int32, error) { return 1, nil }

func (l leads) Propose(_ context.Context, epoch int32, _ int64, batches [][]byte) (Proposal, error) {
	for _, b := range batches {
		index, _ := l.p.LastEntry()
		if err := l.p.Store([]Entry{{Kind: log.KindData, Index: index + 1, Epoch: uint64(epoch), Data: b}}); err != nil {
			return nil, err
		}
	}
	return never{}, nil
}

type never struct{}

func (never) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// A repetition waits for its original. When that is taken back, and another leader's records get its
// offset and are committed, the repetition has not been written.
// Found by the simulation of package raftrepl.
func TestRepetitionOfWhatIsTakenBack(t *testing.T) {
	for name, other := range map[string]bool{"the original stays": false, "another one comes in its place": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &leads{}
				p, err := Open("", &Options{FS: vfs.NewMem(), Replicator: l, Config: Config{Log: log.Config{SegmentAge: -1}}})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				l.p = p
				send := func(ctx context.Context) (Result, error) {
					return p.Append(ctx, []log.Record{{Value: []byte("v"), Timestamp: 1}}, &AppendOptions{Producer: &Producer{ID: 7}})
				}
				ctx, cancel := context.WithCancel(t.Context())
				first := make(chan error, 1)
				go func() {
					_, err := send(ctx)
					first <- err
				}()
				synctest.Wait()
				cancel()
				if err := <-first; !errors.Is(err, ErrUnknownOutcome) {
					t.Fatalf("the original: %v", err)
				}
				type outcome struct {
					r   Result
					err error
				}
				again := make(chan outcome, 1)
				go func() {
					r, err := send(t.Context())
					again <- outcome{r, err}
				}()
				synctest.Wait()
				if other {
					h := log.BatchHeader{LeaderEpoch: 2, ProducerID: 8}
					b, err := log.AppendBatch(nil, &h, []log.Record{{Value: []byte("w"), Timestamp: 1}})
					if err != nil {
						t.Fatal(err)
					}
					if err := errors.Join(p.TruncateFrom(1), p.Store([]Entry{{Kind: log.KindData, Index: 1, Epoch: 2, Data: b}})); err != nil {
						t.Fatal(err)
					}
				}
				if err := p.Commit(1); err != nil {
					t.Fatal(err)
				}
				got := <-again
				if other && !errors.Is(got.err, ErrUnknownOutcome) || !other && (got.err != nil || !got.r.Duplicate || got.r.BaseOffset != 0) {
					t.Errorf("the repetition: %+v, %v", got.r, got.err)
				}
			})
		})
	}
}

func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// replaced has been replaced as the leader, and does not know it before it asks.
type replaced struct{ leads }

func (replaced) Confirm(context.Context) error { return &NotLeaderError{Leader: 2, LeaderEpoch: 2} }

// A leader that was replaced does not judge sequences, epochs and transactions by what it has: others
// have written meanwhile.
// Found by the simulation of package raftrepl.
func TestReplacedLeaderDoesNotJudge(t *testing.T) {
	for name, test := range map[string]struct {
		r    Replicator
		want error
	}{
		"leads still":  {&leads{}, ErrOutOfOrderSequence},
		"was replaced": {&replaced{}, ErrNotLeader},
	} {
		inBubble(t, name, func(t *testing.T) {
			p, err := Open("", &Options{FS: vfs.NewMem(), Replicator: test.r, Config: Config{Log: log.Config{SegmentAge: -1}}})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			switch r := test.r.(type) {
			case *leads:
				r.p = p
			case *replaced:
				r.p = p
			}
			rec := []log.Record{{Value: []byte("v"), Timestamp: 1}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // nobody ever has it committed
			defer cancel()
			p.Append(ctx, rec, &AppendOptions{Producer: &Producer{ID: 7}})
			if _, err := p.Append(t.Context(), rec, &AppendOptions{Producer: &Producer{ID: 7, Sequence: 5}}); !errors.Is(err, test.want) || errors.Is(err, ErrUnknownOutcome) {
				t.Fatalf("a sequence too high: %v, want %v", err, test.want)
			}
		})
	}
}

// until leads until it is told that it does no more.
type until struct {
	leads
	over atomic.Bool
}

func (u *until) LeaderEpoch() (int32, error) {
	if u.over.Load() {
		return 0, &NotLeaderError{Leader: -1}
	}
	return 1, nil
}

// Who leads no more, and hears of nobody else, does not wait for ever for what it had sent before.
// Found by the simulation of whole databases: DB.Close waited for it.
func TestRepetitionAtALeaderThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &until{}
		p, err := Open("", &Options{FS: vfs.NewMem(), Replicator: u, Config: Config{Log: log.Config{SegmentAge: -1}}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		u.p = p
		rec, o := []log.Record{{Value: []byte("v"), Timestamp: 1}}, &AppendOptions{Producer: &Producer{ID: 7}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Append(ctx, rec, o); !errors.Is(err, ErrUnknownOutcome) {
			t.Fatalf("the original: %v", err)
		}
		again := make(chan error, 1)
		go func() {
			_, err := p.Append(t.Context(), rec, o)
			again <- err
		}()
		time.Sleep(time.Minute)
		select {
		case err := <-again:
			t.Fatalf("it leads still, and the repetition is over: %v", err)
		default:
		}
		u.over.Store(true)
		if err := <-again; !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, ErrNotLeader) {
			t.Errorf("the repetition: %v", err)
		}
	})
}
