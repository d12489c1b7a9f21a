package raftrepl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A proposal goes through the library's main loop, and comes out of it in StoreLogs or
// not at all: the library says why only to who waits for a future, and that wait may
// never end when the library is shut down. So nobody waits for futures here. Each entry
// carries a ticket, which StoreLogs looks up:
//
//	Propose: ticket ── ApplyLog ── main loop ── StoreLogs: admit ── stored ── FSM: committed
//	             \                                  |
//	              '- withdrawn, or not leading ─────'-> the entry is stored as a noop
//
// and the proposal ends, whichever comes first, when it is stored, when this node ceases
// to lead, when the instance ends, or when the main loop has not come to it for
// withdrawAfter: its ticket is void then, so the refusal is final.
type proposal struct {
	inst    *instance
	id      uint64
	epoch   int32
	n       int
	command bool

	// The rest is guarded by inst.pmu.
	admitted int    // of the n entries, in order
	storedTo int    // of those
	index    uint64 // of the last one admitted
	void     bool   // no further entry is admitted
	err      error  // the outcome, when done is closed
	stored   chan struct{}
	done     chan struct{}
	over     bool // done is closed
	unknown  bool // some entries may be there nevertheless
}

// withdrawAfter is for how long a proposal waits for the main loop to come to it. It is
// far above what a slow disk takes, and bounds what a lost proposal costs.
const withdrawAfter = 10 * time.Second

// fullFor is for how long nothing is proposed after the disk was found full.
const fullFor = 5 * time.Second

// handOver gives the leadership to somebody who may have room, by the side: while the
// disk was found full once, and then again after fullFor.
func (g *Group) handOver(inst *instance) {
	if st, _ := inst.store.p.Group(); g.onlyVoter(st) {
		return // and leads on: who waits for a transfer takes no proposals
	}
	now := time.Now().UnixNano()
	last := g.handed.Load()
	if now < last+int64(fullFor) || !g.handed.CompareAndSwap(last, now) {
		return
	}
	inst.goCall(func() {
		ctx, cancel := context.WithTimeout(context.Background(), fullFor)
		defer cancel()
		if err := g.Transfer(ctx, 0); err != nil {
			g.cfg.Logger.Debug("the disk is full, and nobody takes the leadership", "error", err)
		}
	})
}

// ticketBytes is a proposal's id and the number of the entry within it.
const ticketBytes = 8 + 4

// Propose implements partition.Replicator.
func (g *Group) Propose(ctx context.Context, epoch int32, base int64, batches [][]byte) (partition.Proposal, error) {
	bytes := int64(0)
	for _, b := range batches {
		h, err := log.ParseBatchHeader(b)
		if err != nil {
			return nil, fmt.Errorf("propose: %w", err)
		}
		log.SetBatchOffset(b, base, epoch)
		base += int64(h.LastOffsetDelta) + 1
		bytes += int64(len(b))
	}
	if inst := g.instance(); inst != nil {
		// A store that finds no room costs the leader its instance. It is said before, where
		// it is known.
		err := inst.store.p.Log().HasRoom(bytes)
		if err == nil && time.Now().UnixNano() < g.full.Load() {
			err = log.ErrNoSpace
		}
		if err != nil {
			if capped := new(log.CapError); !errors.As(err, &capped) { // all have the same cap
				g.handOver(inst)
			}
			return nil, fmt.Errorf("propose: %w", err)
		}
	}
	return g.propose(ctx, epoch, batches, false)
}

// ProposeCommand implements partition.Commander.
func (g *Group) ProposeCommand(ctx context.Context, epoch int32, command []byte) (partition.Proposal, error) {
	if err := partition.CheckCommand(command); err != nil {
		return nil, fmt.Errorf("propose: %w", err)
	}
	return g.propose(ctx, epoch, [][]byte{command}, true)
}

func (g *Group) propose(ctx context.Context, epoch int32, data [][]byte, command bool) (partition.Proposal, error) {
	inst := g.instance()
	if inst == nil {
		return nil, g.notLeader()
	}
	p := &proposal{inst: inst, epoch: epoch, n: len(data), command: command, stored: make(chan struct{}, 1), done: make(chan struct{})}
	if !inst.register(p) {
		return nil, g.notLeader()
	}
	for i, b := range data {
		ticket := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(make([]byte, 0, ticketBytes), p.id), uint32(i))
		inst.raft.ApplyLog(raft.Log{Data: b, Extensions: ticket}, 0) // ends when the instance does
	}
	began := time.Now()
	late := time.NewTimer(g.cfg.Timing.Election)
	defer late.Stop()
	for {
		select {
		case <-p.stored:
			return p, nil
		case <-p.done:
			return p.result()
		case <-ctx.Done():
			if inst.withdraw(p, ctx.Err()) {
				return p.result()
			}
			// It is being stored: that is not called back.
			ctx = context.WithoutCancel(ctx)
		case <-late.C:
			hangs := inst.hangs()
			if (hangs || time.Since(began) > withdrawAfter) && inst.withdraw(p, g.notLeader()) {
				return p.result()
			}
			if hangs {
				return nil, &partition.UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: errHung}
			}
			late.Reset(g.cfg.Timing.Election)
		}
	}
}

// result is what Propose returns of a proposal that is over.
func (p *proposal) result() (partition.Proposal, error) {
	p.inst.pmu.Lock()
	defer p.inst.pmu.Unlock()
	if p.storedTo == p.n {
		return p, nil // Wait says how it ended
	}
	if p.unknown {
		return nil, &partition.UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: p.err}
	}
	return nil, p.err
}

// Wait implements partition.Proposal. It does not wait for a disk that hangs.
func (p *proposal) Wait(ctx context.Context) error {
	hung := time.NewTimer(p.inst.g.cfg.Timing.Election)
	defer hung.Stop()
	for {
		select {
		case <-p.done:
			p.inst.pmu.Lock()
			defer p.inst.pmu.Unlock()
			return p.err
		case <-hung.C:
			if p.inst.hangs() {
				return errHung
			}
			hung.Reset(p.inst.g.cfg.Timing.Election)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finishLocked ends the proposal.
func (p *proposal) finishLocked(err error) {
	if p.over {
		return
	}
	p.over, p.void, p.err = true, true, err
	p.unknown = err != nil && p.storedTo > 0
	delete(p.inst.proposals, p.id)
	close(p.done)
}

// register gives the proposal its ticket, while this node leads in its epoch.
func (i *instance) register(p *proposal) bool {
	i.pmu.Lock()
	defer i.pmu.Unlock()
	if i.cutOff.Load() || i.leading != uint64(p.epoch) || i.leading == 0 || i.transferring {
		return false
	}
	i.tickets++
	p.id = i.tickets
	i.proposals[p.id] = p
	return true
}

// admit says whether the entry of a proposal may be stored where the library has put it.
func (i *instance) admit(l *raft.Log, end int64) bool {
	if len(l.Extensions) != ticketBytes {
		return false
	}
	id, n := binary.BigEndian.Uint64(l.Extensions), int(binary.BigEndian.Uint32(l.Extensions[8:]))
	i.pmu.Lock()
	defer i.pmu.Unlock()
	p := i.proposals[id]
	if p == nil || p.void {
		return false
	}
	fits := uint64(p.epoch) == l.Term && n == p.admitted
	if fits && !p.command {
		h, err := log.ParseBatchHeader(l.Data)
		fits = err == nil && h.BaseOffset == end
	}
	if !fits {
		p.void = true
		i.refused = append(i.refused, p)
		return false
	}
	if p.admitted == 0 {
		i.inflight = append(i.inflight, p)
	}
	p.admitted, p.index = p.admitted+1, l.Index
	return true
}

// stored says how the StoreLogs ended that admitted entries.
func (i *instance) stored(err error) {
	i.pmu.Lock()
	defer i.pmu.Unlock()
	refused := i.refused
	i.refused = nil
	for _, p := range refused {
		p.finishLocked(i.g.notLeaderAs(i))
	}
	for k := len(i.inflight) - 1; k >= 0; k-- {
		p := i.inflight[k]
		if p.storedTo == p.admitted {
			break
		}
		if err != nil {
			p.finishLocked(err)
			continue
		}
		if p.storedTo = p.admitted; p.storedTo == p.n {
			p.stored <- struct{}{} // once: it has room for one
		}
	}
	i.inflight = slices.DeleteFunc(i.inflight, func(p *proposal) bool { return p.over })
}

// committed ends the proposals up to and with index.
func (i *instance) committed(index uint64) {
	i.pmu.Lock()
	defer i.pmu.Unlock()
	n := 0
	for ; n < len(i.inflight) && i.inflight[n].index <= index; n++ {
		p := i.inflight[n]
		if p.admitted < p.n {
			break
		}
		p.finishLocked(nil)
	}
	i.inflight = i.inflight[n:]
	if i.ready != nil && i.readyAt > 0 && i.readyAt <= index {
		close(i.ready)
		i.ready, i.isReady = nil, true
	}
}

// withdraw ends a proposal that was not admitted, or not all of it.
func (i *instance) withdraw(p *proposal, err error) bool {
	i.pmu.Lock()
	defer i.pmu.Unlock()
	if p.admitted > p.storedTo || p.storedTo == p.n {
		return false
	}
	p.finishLocked(err)
	return true
}

// dropProposals ends all of them: this node does not lead any more, or the instance ends.
func (i *instance) dropProposals(err error) {
	if seed.Is(seed.DeposedAcks) {
		err = nil
	}
	for _, p := range i.proposals {
		p.finishLocked(err)
		p.unknown = p.admitted > 0
	}
	i.inflight, i.refused = nil, nil
}
