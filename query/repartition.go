package query

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// A repartition is a topic in the middle of a graph. The tasks of a stage append rows to it, in the transactions of their commits, each row to
// the partition that its key belongs to; the tasks of the stage behind read one partition each. A commit ends with a mark in every
// partition: what the task before has written until then is applied at once.
//
//	row   key:   the key's bytes
//	      value: 0 (2: the row has no key) ++ task ++ weight ++ time ++ stream time ++ the value's bytes
//	mark  no key
//	      value: 1 ++ task ++ commit ++ stream time ++ number of positions ++ positions
//	position     length of topic ++ topic ++ partition ++ offset
//
// Task, commit, lengths, numbers, partitions and offsets are unsigned varints, weights and times (milliseconds since 1970) signed ones. A changed row of a table is
// two rows: what it was, with weight -1, and what it is. A row's stream time is that of its record's partition of the source,
// wherever it goes, so that whether it is late does not depend on others. A mark's is how far event time has come for the task: no row that comes
// later is of an earlier stream time.
type repartition struct {
	name       string
	partitions int // 0: as many as what it is made of
	write      func(b *builder, n *node)
}

const (
	kindRow byte = iota
	kindMark
	kindBare // a row without a key
)

const repartitionSuffix = "-repartition"

// Repartition has what is made of the rows computed by tasks of its own, by the keys that the rows have now: see Repartition of
// Grouped.
func (s *Stream[K, V]) Repartition(name string, partitions int) *Stream[K, V] {
	return &Stream[K, V]{repartitioned(s.n, s.key, s.value, name, partitions), s.key, s.value}
}

// Repartition sends rows that got new keys through a topic of the graph, <graph>-<name>-repartition, so that tasks of their own, one for each of its
// partitions, go on with them: without it a graph whose rows get new keys has one task. Zero partitions are as many as the sources of the rows have at
// most. What follows sees the rows when the tasks before have committed them.
//
//	perProduct := query.GroupBy(orders, codec.String, product).Repartition("by-product", 4)
//	sold := query.Add(g, "sold", query.Count(perProduct))
func (g *Grouped[K, V]) Repartition(name string, partitions int) *Grouped[K, V] {
	return &Grouped[K, V]{repartitioned(g.n, g.key, g.value, name, partitions), g.key, g.value}
}

// Repartition has what is made of the table computed by other tasks, as many as partitions says: a join takes tables of one number of
// partitions. See Repartition of Grouped.
func (t *Table[K, V]) Repartition(name string, partitions int) *Table[K, V] {
	return &Table[K, V]{repartitioned(t.n, t.key, t.value, name, partitions), t.key, t.value}
}

// maxPartitions bounds what a caller may ask for.
const maxPartitions = 10_000

func repartitioned[K, V any](in *node, key Codec[K], value Codec[V], name string, partitions int) *node {
	n := &node{kind: "repartition", label: name, inputs: []*node{in}, appends: in.appends}
	if partitions != 0 {
		n.label = fmt.Sprintf("%s into %d", name, partitions)
	}
	if name == "" || partitions < 0 || partitions > maxPartitions {
		n.err = fmt.Errorf("repartition %q into %d partitions: it needs a name, and up to %d", name, partitions, maxPartitions)
	}
	n.rep = &repartition{name: name, partitions: partitions, write: func(b *builder, n *node) { writeRows[K, V](b, n, key, value) }}
	n.build = func(b *builder) any {
		r := &repRows[K, V]{task: b.task, key: key, value: value, out: new(port[K, V])}
		b.task.reps[n] = &repSource{node: n, topic: b.task.g.repName(n), rows: r, parts: map[int32]*repPart{}}
		return r.out
	}
	return n
}

func (g *Graph) repName(n *node) string { return g.kept + "-" + n.rep.name + repartitionSuffix }

// repWriter is a repartition that a task writes.
type repWriter struct {
	topic      string
	partitions int
	mark       *watermark
}

// writeRows has a task append what comes out of a node to a repartition.
func writeRows[K, V any](b *builder, n *node, key Codec[K], value Codec[V]) {
	t := b.task
	w := &repWriter{topic: t.g.repName(n), partitions: t.g.width(n), mark: b.watermark(n.inputs[0])}
	t.writers = append(t.writers, w)
	k := &keyer[K]{codec: key}
	t.keyers(&k.err)
	portOf[K, V](b, n.inputs[0]).to(func(ds []delta[K, V]) {
		for i := range ds {
			d := &ds[i]
			if d.weight < 0 && seed.Is(seed.ViewRepartition) {
				continue
			}
			rec := embedlog.Record{Topic: w.topic, Timestamp: time.UnixMilli(max(d.time.ms, 0))}
			kind := kindRow
			if d.null {
				kind, rec.Partition = kindBare, int32(t.index%w.partitions)
			} else {
				rec.Key = append([]byte{}, keyOf(k, d)...)
				rec.Partition = embedlog.KeyPartition(placeOf(key, rec.Key), w.partitions)
			}
			head := make([]byte, 0, 64)
			head = binary.AppendUvarint(append(head, kind), uint64(t.index))
			head = binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(head, d.weight), d.time.ms), d.time.stream)
			var err error
			if rec.Value, err = value.Append(head, d.val); err != nil {
				t.fail(fmt.Errorf("encode a value for repartition %s: %w", n.rep.name, err))
				return
			}
			t.sent = append(t.sent, rec)
			t.sentBytes += len(rec.Key) + len(rec.Value)
		}
	})
}

// marks are what a commit ends with in every partition that the task writes to.
func (t *task) marks(recs []embedlog.Record, commit int64, version Version) []embedlog.Record {
	for _, w := range t.writers {
		b := binary.AppendUvarint([]byte{kindMark}, uint64(t.index))
		b = binary.AppendVarint(binary.AppendUvarint(b, uint64(commit)), w.mark.now())
		b = binary.AppendUvarint(b, uint64(len(version)))
		for _, p := range version {
			b = append(binary.AppendUvarint(b, uint64(len(p.Topic))), p.Topic...)
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(p.Partition)), uint64(p.Offset))
		}
		for p := range int32(w.partitions) {
			recs = append(recs, embedlog.Record{Topic: w.topic, Partition: p, Value: b})
		}
	}
	return recs
}

// repSource is a repartition that a task reads.
type repSource struct {
	node  *node
	topic string
	rows  repDecoder
	parts map[int32]*repPart
}

// repPart is a partition of it. It has, from each of the tasks before, the rows that no mark follows yet.
type repPart struct {
	from []*upstream
	end  int64 // what was read
}

// upstream is what one of the tasks before has written to a partition, up to its last mark. It is kept with the task's progress.
type upstream struct {
	// Mark is the offset of the mark, -1 before the first one, Commit its number, Time its stream time.
	Mark   int64 `json:"mark"`
	Commit int64 `json:"commit"`
	Time   int64 `json:"time"`
	// Version is what its rows are of.
	Version Version `json:"version,omitempty"`

	first   int64 // the offset of the first row that waits; -1 where none does
	waiting any   // []delta[K, V]
}

// begin is where reading begins again: behind it are all rows that were not applied.
func (p *repPart) begin() int64 {
	at := p.end
	for _, u := range p.from {
		if u.first >= 0 && !seed.Is(seed.ViewWaiting) {
			at = min(at, u.first)
		}
	}
	return at
}

// time is how far event time has come in the partition: for all tasks that write to it.
func (p *repPart) time() int64 {
	least := int64(math.MaxInt64)
	for _, u := range p.from {
		least = min(least, u.Time)
	}
	return least
}

// part is a partition of a repartition in the task.
func (t *task) part(r *repSource, partition int32) *repPart {
	p := r.parts[partition]
	if p == nil {
		p = &repPart{}
		for range t.g.writer(r.node).tasks {
			p.from = append(p.from, &upstream{Mark: -1, Time: unknownTime, first: -1})
		}
		r.parts[partition] = p
	}
	return p
}

// rep is the repartition of a topic, if the task reads it as one.
func (t *task) rep(topic string) *repSource {
	for _, r := range t.reps {
		if r.topic == topic {
			return r
		}
	}
	return nil
}

// repDecoder has the types of a repartition's rows.
type repDecoder interface {
	// take decodes a row and has it wait.
	take(u *upstream, key []byte, null bool, weight int64, at moment, value []byte) error
	// apply hands what waits to the operators, some rows at a time.
	apply(u *upstream, size int, f func())
}

type repRows[K, V any] struct {
	task  *task
	key   Codec[K]
	value Codec[V]
	out   *port[K, V]
}

func (r *repRows[K, V]) take(u *upstream, key []byte, null bool, weight int64, at moment, value []byte) (err error) {
	d := delta[K, V]{raw: key, time: at, weight: weight, null: null}
	if null {
		d.raw = nil
	} else if d.key, err = r.key.Decode(key); err != nil {
		return fmt.Errorf("decode the key: %w", err)
	}
	if d.val, err = r.value.Decode(value); err != nil {
		return fmt.Errorf("decode the value: %w", err)
	}
	list, _ := u.waiting.([]delta[K, V])
	u.waiting = append(list, d)
	return nil
}

func (r *repRows[K, V]) apply(u *upstream, size int, after func()) {
	list, _ := u.waiting.([]delta[K, V])
	for rest := list; len(rest) > 0; {
		n := min(size, len(rest))
		r.out.emit(rest[:n:n])
		after()
		rest = rest[n:]
	}
	clear(list) // they hold their batch
	if u.waiting = list[:0]; cap(list) > 16*chunk {
		u.waiting = nil
	}
}

var errRepartition = errors.New("query: invalid encoding of a repartition's record")

// varints reads numbers from a record. The first that is not there ends it.
type varints struct {
	b   []byte
	err error
}

func (v *varints) unsigned(most uint64) uint64 {
	x, n := binary.Uvarint(v.b)
	if n <= 0 || x > most {
		v.b, v.err = nil, errRepartition
		return 0
	}
	v.b = v.b[n:]
	return x
}

func (v *varints) signed() int64 {
	x, n := binary.Varint(v.b)
	if n <= 0 {
		v.b, v.err = nil, errRepartition
		return 0
	}
	v.b = v.b[n:]
	return x
}

func (v *varints) text() string {
	n := v.unsigned(uint64(len(v.b)))
	if uint64(len(v.b)) < n {
		v.b, v.err = nil, errRepartition
		return ""
	}
	s := string(v.b[:n])
	v.b = v.b[n:]
	return s
}

// mark is a mark's value after the task.
func (v *varints) mark(u *upstream) error {
	next := upstream{Commit: int64(v.unsigned(math.MaxInt64)), Time: v.signed()}
	for n := v.unsigned(uint64(len(v.b))); n > 0 && v.err == nil; n-- {
		next.Version = append(next.Version, embedlog.Position{
			Topic: v.text(), Partition: int32(v.unsigned(math.MaxInt32)), LeaderEpoch: -1, Offset: int64(v.unsigned(math.MaxInt64)),
		})
	}
	if v.err == nil && len(v.b) > 0 {
		v.err = errRepartition
	}
	if v.err == nil {
		u.Commit, u.Time, u.Version = next.Commit, next.Time, next.Version
	}
	return v.err
}

// takeRows brings a batch of a repartition's records into the stores, as far as marks follow.
func (t *task) takeRows(ctx context.Context, r *repSource, b *embedlog.Batch) error {
	part, at := t.part(r, b.Partition), place{b.Topic, b.Partition}
	for rec, err := range b.Records() {
		if err == nil {
			err = t.takeRow(ctx, r, part, at, &rec)
		}
		if err != nil {
			return err
		}
	}
	return t.advance(func() {}, func() {
		part.end = max(part.end, b.LastOffset+1)
		t.positions[at] = part.begin()
	})
}

func (t *task) takeRow(ctx context.Context, r *repSource, part *repPart, at place, rec *embedlog.Record) error {
	broken := func(err error) error {
		return fmt.Errorf("repartition %s/%d@%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	if len(rec.Value) == 0 {
		return broken(errRepartition)
	}
	kind, v := rec.Value[0], &varints{b: rec.Value[1:]}
	task := v.unsigned(uint64(len(part.from) - 1))
	if v.err != nil {
		return broken(v.err)
	}
	u := part.from[task]
	if rec.Offset <= u.Mark && !seed.Is(seed.ViewMarkTwice) {
		return nil // it was applied; others before it were not
	}
	switch kind {
	case kindRow, kindBare:
		weight, ms, stream := v.signed(), v.signed(), v.signed()
		if v.err == nil && ((rec.Key == nil) != (kind == kindBare) || weight != 1 && (weight != -1 || r.node.appends)) {
			v.err = errRepartition
		}
		if v.err == nil {
			v.err = r.rows.take(u, rec.Key, kind == kindBare, weight, moment{ms, stream}, v.b)
		}
		if v.err != nil {
			return broken(v.err)
		}
		if u.first < 0 {
			u.first = rec.Offset
		}
		return nil
	case kindMark:
		next := &upstream{}
		if err := v.mark(next); err != nil {
			return broken(err)
		}
		size := chunk
		if t.single {
			size = 1
		}
		err := t.advance(func() {
			r.rows.apply(u, size, t.runLater)
			u.Mark, u.Commit, u.Time, u.Version, u.first = rec.Offset, next.Commit, next.Time, next.Version, -1
			t.streamTime(at).Time = part.time()
		}, func() {
			part.end = max(part.end, rec.Offset+1)
			t.positions[at] = part.begin()
			t.marked = true
		})
		if err != nil {
			return err
		}
		return t.relieve(ctx)
	}
	return broken(errRepartition)
}

// What a repartition may hold that the tasks behind have not committed: those before do not commit more until they have.
const repartitionRecords = 1 << 20

// restoreParts takes what is kept of a repartition's partition.
func (t *task) restoreParts(p *sourcePosition) error {
	r := t.rep(p.Topic)
	if r == nil {
		return nil
	}
	part := t.part(r, p.Partition)
	if len(p.From) != len(part.from) {
		return fmt.Errorf("%s/%d is written by %d tasks, not %d: %w", p.Topic, p.Partition, len(part.from), len(p.From), errRepartition)
	}
	for i, u := range p.From {
		if u == nil {
			return errRepartition
		}
		u.first = -1
		part.from[i] = u
	}
	part.end = p.Offset
	t.g.committedUpTo(t.stage, place{p.Topic, p.Partition}, p.Offset)
	return nil
}

// trimRecords is how many records there have to be before they are deleted.
const trimRecords = 10_000

// trim deletes what the tasks behind have applied and committed.
func (t *task) trim(ctx context.Context, committed map[place]int64) error {
	for _, r := range t.reps {
		for partition := range r.parts {
			at := place{r.topic, partition}
			t.g.committedUpTo(t.stage, at, committed[at])
			if committed[at] < t.trimmed[at]+t.g.trimRecords {
				continue
			}
			if err := t.trimPartition(ctx, at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *task) trimPartition(ctx context.Context, at place) error {
	before, ok := t.g.trimmable(ctx, at)
	if !ok || before < t.trimmed[at]+t.g.trimRecords {
		return nil
	}
	if _, err := t.g.between[at.topic].DeleteRecords(ctx, at.partition, before); err != nil {
		return fmt.Errorf("delete what was read of %s/%d: %w", at.topic, at.partition, err)
	}
	t.trimmed[at] = before
	return nil
}

// committedUpTo notes what a stage's task has committed of a repartition's partition.
func (g *Graph) committedUpTo(s *stage, at place, offset int64) {
	g.trimMu.Lock()
	defer g.trimMu.Unlock()
	if g.trims[at] == nil {
		g.trims[at] = map[int]int64{}
	}
	g.trims[at][s.index] = offset
}

// trimPatience bounds the question what another node has committed. Without an answer there is another time.
const trimPatience = time.Second

// trimmable is what all stages that read a repartition's partition have committed, wherever their tasks are.
func (g *Graph) trimmable(ctx context.Context, at place) (before int64, ok bool) {
	ctx, cancel := context.WithTimeout(whileBuilding(ctx), trimPatience)
	defer cancel()
	before = math.MaxInt64
	for _, s := range g.stages {
		if !slices.ContainsFunc(s.reads, func(n *node) bool { return g.repName(n) == at.topic }) {
			continue
		}
		slot := s.first
		if s.tasks > 1 {
			slot += int(at.partition)
		}
		known := false
		err := g.at(ctx, slot, func(t *task) error {
			var c int64
			c, known = g.committedOf(s, at)
			before = min(before, c)
			return nil
		}, request{Op: opCommitted, Topic: at.topic, Part: at.partition}, func(_ int32, a *reply) error {
			known = a.Found
			before = min(before, a.Commit)
			return nil
		})
		if err != nil || !known {
			return 0, false
		}
	}
	return before, true
}

// committedOf is what a stage's task has committed of a repartition's partition, as far as this node knows; that is never too much.
func (g *Graph) committedOf(s *stage, at place) (offset int64, known bool) {
	g.trimMu.Lock()
	defer g.trimMu.Unlock()
	offset, known = g.trims[at][s.index]
	return offset, known
}

// room waits until the tasks behind have committed enough of what was written to repartitions.
func (t *task) room(ctx context.Context) error {
	for _, w := range t.writers {
		top, pause := t.g.between[w.topic], time.Millisecond
		for !t.g.closing.Load() {
			full, err := backlog(ctx, top)
			if err != nil {
				return err
			}
			if full <= t.g.repartitionRecords {
				break
			}
			select {
			case <-time.After(pause):
				pause = min(2*pause, 50*time.Millisecond)
			case <-ctx.Done():
				return ctx.Err()
			}
			if pause < 50*time.Millisecond {
				continue
			}
			// The tasks behind delete what they have committed, but not when one of them could not be asked and has nothing to commit since.
			for p := range int32(w.partitions) {
				if err := t.trimPartition(ctx, place{w.topic, p}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// backlog is the longest of a topic's partitions, in records.
func backlog(ctx context.Context, top *embedlog.Topic) (most int64, err error) {
	ends, err := top.ListOffsets(ctx, embedlog.Latest)
	if err != nil {
		return 0, err
	}
	starts, err := top.ListOffsets(ctx, embedlog.Earliest)
	if err != nil {
		return 0, err
	}
	for i := range ends {
		for j := range starts {
			if starts[j].Partition == ends[i].Partition {
				most = max(most, ends[i].Offset-starts[j].Offset)
			}
		}
	}
	return most, nil
}
