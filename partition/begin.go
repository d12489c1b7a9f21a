package partition

import (
	"context"
	"errors"
	"sync/atomic"
)

// An append that is begun waits for the disk beside its caller, who begins the next
// one meanwhile. Appends that one caller begins in a Line are taken up in their order,
// and share a group, so one sync serves all that came while the last one ran:
//
//	begin 1   begin 2   begin 3                       finish 1   finish 2, 3
//	  |- write, sync -----------|- write 2 and 3, sync -|
//
// What holds for the outcomes:
//
//   - In the log, what a line's appends take effect in is the order of their beginning.
//   - When one fails after it was begun, those that were begun behind it while it was
//     under way have no effect: they fail with ErrLineBroken, and their caller appends
//     them anew when he knows what became of the one before. So nothing passes an
//     append that its caller is going to try again, and the log is what it would be had
//     each append been waited for before the next.
//   - One that its caller left (Leave) before it was taken had no effect, and those
//     behind it go on, as they would have after its error.

// Line is what keeps the appends of one caller to one partition in order. Its zero
// value is ready. One goroutine begins and ends the appends of a line.
type Line struct {
	under      int    // begun and not ended
	generation uint64 // counts the times that something was begun while nothing was under way
	// broken is the generation in which one failed. The writer sets it, and generations
	// come to the writer in their order.
	broken atomic.Uint64
}

// ErrLineBroken is the error of an append that was not tried, because one that was
// begun before it in its line has failed.
var ErrLineBroken = errors.New("append: one that was begun before it has failed")

// Begun is an append under way. It ends with one call of Finish or Leave.
type Begun struct {
	p    *Partition
	r    *request
	line *Line
}

// CanBegin says whether appends may be begun: with a replicator they may not.
func (p *Partition) CanBegin() bool { return p.replicator == nil }

// BeginBatch begins what AppendBatch does. batch must stay as it is until the append
// has ended. When the caller is the first of a group, lead is called with what writes
// the group: lead must return at once, and have it run to its end in a goroutine.
//
// It fails, with nothing begun, with what can be refused without the partition's turn.
func (p *Partition) BeginBatch(batch []byte, o *AppendOptions, line *Line, lead func(write func())) (Begun, error) {
	r, err := p.batchRequest(batch, o)
	if err != nil {
		return Begun{}, err
	}
	if line.under == 0 {
		line.generation++
	}
	line.under++
	r.line, r.generation = line, line.generation
	if p.queue.join(r) {
		lead(p.lead)
	}
	return Begun{p, r, line}, nil
}

// lead writes the group that is open when its turn comes.
func (p *Partition) lead() {
	p.turn.Lock()
	group := p.queue.take()
	p.writeGroups(group)
	p.turn.Unlock()
	p.answer(group, nil)
}

// Done has a token when the outcome is there. Who takes it calls Finish.
func (b *Begun) Done() <-chan struct{} { return b.r.done }

// Finish is the outcome, as AppendBatch would have returned it. The token of Done must
// have been taken.
func (b *Begun) Finish() (Result, error) {
	b.line.under--
	return b.p.finish(context.Background(), b.r)
}

// Leave gives the append up, because ctx has ended: see AppendBatch. The batch is free
// when it returns.
func (b *Begun) Leave(ctx context.Context) (Result, error) {
	b.line.under--
	return b.p.leave(ctx, b.r)
}
