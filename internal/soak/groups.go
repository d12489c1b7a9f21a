package soak

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/x/embedlog/internal/history"
)

const (
	copyGroup  = "copy"
	countGroup = "count"
)

// moved is the keys that rebalances gave to a member or took from it, until somebody
// asks.
type moved struct {
	mu   sync.Mutex
	keys map[history.Key]bool
	lost int // commits whose answer was lost
	sent int // commits that were sent
}

// OnBrokerWrite counts commits that are sent: one that a cluster refuses may have been sent
// before, and answered with an error after which kgo sends it again.
func (m *moved) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == kmsg.OffsetCommit.Int16() {
		m.mu.Lock()
		m.sent++
		m.mu.Unlock()
	}
}

// OnBrokerE2E counts commits whose answer was lost: kgo sends them again.
func (m *moved) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key == kmsg.OffsetCommit.Int16() && e2e.Err() != nil {
		m.mu.Lock()
		m.lost++
		m.mu.Unlock()
	}
}

func (m *moved) commits() (sent, lost int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent, m.lost
}

func (m *moved) add(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		m.keys = map[history.Key]bool{}
	}
	for topic, list := range parts {
		for _, p := range list {
			m.keys[history.Key{Topic: topic, Partition: p}] = true
		}
	}
}

func (m *moved) take() []history.Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []history.Key
	for k := range m.keys {
		keys = append(keys, k)
	}
	clear(m.keys)
	return keys
}

// member are the options of a member of a group. Each life chooses its protocol, so
// that groups are classic, assigned by the server, and mixed.
func (w *worker) member(group string, m *moved, topics ...string) []kgo.Opt {
	var protocol []kgo.Opt
	switch w.rnd.IntN(4) {
	case 0:
		protocol = []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer())}
	case 1:
		protocol = []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())}
	default:
		protocol = []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}
	}
	return w.options(append(protocol,
		kgo.WithHooks(m),
		kgo.WithLogger(memberLog{w, group}),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topics...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(200*time.Millisecond),
		kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.RebalanceTimeout(10*time.Second),
		kgo.OnPartitionsAssigned(m.add),
		kgo.OnPartitionsRevoked(m.add),
		kgo.OnPartitionsLost(m.add),
	)...)
}

// memberLog writes what a member's client says of the group, for who looks for the cause of a pause.
type memberLog struct {
	w     *worker
	group string
}

func (l memberLog) Level() kgo.LogLevel {
	if l.w.Verbose {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

func (l memberLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	l.w.logf("%v of process %d in group %s: %s %v", level, l.w.process, l.group, msg, keyvals)
}

// subscribe notes that the process is a new member.
func (w *worker) subscribe(group string, topics ...string) {
	op := w.begin(history.OpSubscribe)
	op.Group = group
	for _, t := range topics {
		op.Keys = append(op.Keys, history.Key{Topic: t, Partition: -1})
	}
	w.end(op, history.OK)
}

// rebalanced notes rebalances that fell between operations.
func (w *worker) rebalanced(m *moved) {
	op := w.begin(history.OpRebalance)
	if op.Keys = m.take(); len(op.Keys) > 0 {
		w.end(op, history.OK)
	}
}

// positions are offsets to be committed.
func positions(at map[string]map[int32]kgo.EpochOffset) []history.Offset {
	var list []history.Offset
	for topic, parts := range at {
		for p, o := range parts {
			list = append(list, history.Offset{Key: history.Key{Topic: topic, Partition: p}, Offset: o.Offset})
		}
	}
	return list
}

// count is a member that polls and then commits, outside transactions: at least once.
func (w *worker) count(ctx context.Context) {
	topics := []string{fastTopic, safeTopic, copiedTopic}
	for ctx.Err() == nil {
		m := &moved{}
		opts := append(w.member(countGroup, m, topics...), kgo.DisableAutoCommit())
		block := w.rnd.IntN(2) == 0
		if block {
			opts = append(opts, kgo.BlockRebalanceOnPoll())
		}
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			w.fail(err)
			return
		}
		w.subscribe(countGroup, topics...)
		for life := 20 + w.rnd.IntN(100); ctx.Err() == nil && life > 0; life-- {
			w.rebalanced(m)
			op := w.begin(history.OpPoll)
			op.Polls = w.poll(ctx, cl.PollRecords, 1000)
			op.Keys = m.take()
			w.end(op, history.OK)
			if life > 1 && len(op.Polls) > 0 { // dies before it commits
				w.commit(cl, m)
			}
			if block {
				cl.AllowRebalance()
			}
		}
		cl.CloseAllowingRebalance()
		if ctx.Err() == nil {
			w.crash()
		}
		w.pause(ctx)
	}
}

// commit commits what was polled.
func (w *worker) commit(cl *kgo.Client, m *moved) {
	at := cl.UncommittedOffsets()
	if len(at) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	op := w.begin(history.OpCommit)
	op.Group, op.Offsets = countGroup, positions(at)
	var failed error
	sent, lost := m.commits()
	cl.CommitOffsetsSync(ctx, at, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err != nil {
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	outcome := history.OK
	for _, refused := range []error{kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.StaleMemberEpoch, kerr.FencedMemberEpoch} {
		if errors.Is(failed, refused) {
			outcome = history.Fail
		}
	}
	// A refusal of what was sent again says nothing about the first time.
	if nowSent, nowLost := m.commits(); failed != nil && (outcome == history.OK || nowLost > lost || nowSent > sent+1) {
		outcome = history.Info
	}
	w.note("commit", failed)
	w.end(op, outcome)
}

// copy is a member that copies from one topic to another, each batch and its positions
// in one transaction: exactly once.
func (w *worker) copy(ctx context.Context) {
	for ctx.Err() == nil {
		m := &moved{}
		sess, err := kgo.NewGroupTransactSession(append(w.member(copyGroup, m, safeTopic),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.TransactionalID(w.transactionalID()),
			kgo.TransactionTimeout(20*time.Second),
		)...)
		if err != nil {
			w.fail(err)
			return
		}
		w.subscribe(copyGroup, safeTopic)
		for life := 20 + w.rnd.IntN(200); ctx.Err() == nil && w.copyBatch(ctx, sess, m, life <= 0); life-- {
		}
		sess.CloseAllowingRebalance()
		if ctx.Err() == nil {
			w.crash()
		}
		w.pause(ctx)
	}
}

// copyBatch does one transaction; false when the session is not good for another.
func (w *worker) copyBatch(ctx context.Context, sess *kgo.GroupTransactSession, m *moved, die bool) bool {
	w.rebalanced(m)
	op, s := w.begin(history.OpTxn), &sending{}
	op.Group = copyGroup
	op.Polls = w.poll(ctx, sess.PollRecords, 300)
	end := func(o history.Outcome) {
		op.Keys, op.Sends = m.take(), s.runs()
		w.end(op, o)
	}
	if len(op.Polls) == 0 {
		return true
	}
	if err := sess.Begin(); err != nil {
		w.note("begin copy", err)
		end(history.Info)
		return false
	}
	for _, run := range op.Polls {
		op.Offsets = append(op.Offsets, history.Offset{Key: run.Key, Offset: run.Records[len(run.Records)-1].Offset + 1})
		for range run.Records {
			s.add(w, sess.Produce, history.Key{Topic: copiedTopic, Partition: run.Key.Partition}, history.NoOffset)
		}
	}
	if die {
		time.Sleep(time.Duration(w.rnd.IntN(5000)) * time.Microsecond)
		sess.CloseAllowingRebalance()
		s.wait()
		end(history.Info)
		return false
	}
	commit := kgo.TransactionEndTry(w.rnd.IntN(10) > 0)
	if answered, err := s.wait(); err != nil || !answered {
		w.note("send copy", err)
		commit = kgo.TryAbort
	}
	limit, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	switch committed, err := sess.End(limit, commit); {
	case err != nil:
		w.note("end copy", err)
		end(history.Info)
		return false
	case committed:
		end(history.OK)
	default:
		end(history.Fail)
	}
	return true
}

// ask asks for the positions of groups now and then.
func (w *worker) ask(ctx context.Context) {
	for ctx.Err() == nil && wait(ctx, w.rnd, time.Second) {
		if err := w.positions(ctx, false); err != nil && ctx.Err() == nil {
			w.note("ask for positions", err)
		}
	}
}

// positions notes the positions of both groups.
func (w *worker) positions(ctx context.Context, final bool) error {
	cl, err := kgo.NewClient(w.options()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, stuck)
	defer cancel()
	for _, group := range []string{copyGroup, countGroup} {
		op := w.begin(history.OpCommitted)
		op.Group, op.Final = group, final
		resp, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
		if err != nil {
			return fmt.Errorf("positions of group %s: %w", group, err)
		}
		resp.Each(func(o kadm.OffsetResponse) {
			if o.Err == nil {
				op.Offsets = append(op.Offsets, history.Offset{Key: history.Key{Topic: o.Topic, Partition: o.Partition}, Offset: o.At})
			} else {
				err = errors.Join(err, o.Err)
			}
		})
		if err != nil {
			return fmt.Errorf("positions of group %s: %w", group, err)
		}
		w.end(op, history.OK)
	}
	return nil
}
