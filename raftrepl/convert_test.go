package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// aloneDir is a directory that a database without a cluster has left, and what is in it.
type aloneDir struct {
	disk *vfs.Mem
	// values are those that readers of committed records find in each topic, in order of
	// partition and offset, starts where the partitions begin.
	values map[string][]string
	starts map[string][]int64
	// A client of the Kafka door has a transaction open in kept/0; what it wrote. next is the
	// sequence of its next record.
	client engine.InitRequest
	id     int64
	epoch  int16
	next   int32
	// An idempotent producer has written to kept/1: again is its last batch.
	again   log.Record
	againAs partition.Producer
}

// aloneTopics are the topics of an aloneDir.
var aloneTopics = []string{"kept", "short", "latest", "cut", "weak"}

// newAloneDir makes the directory: topics with retention, compaction, a start that was moved, a weak level, a
// group's offsets, and two open transactions, of a client and of a producer of the
// process. The process is killed, or the machine's power is cut.
func newAloneDir(t *testing.T, ending func(*vfs.Mem) *vfs.Mem) *aloneDir {
	t.Helper()
	ctx := context.Background()
	d := &aloneDir{disk: vfs.NewMem(), values: map[string][]string{}, starts: map[string][]int64{}}
	db, err := embedlog.OpenFS(d.disk, &embedlog.Options{MaintenanceInterval: -1})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	config := func(c embedlog.TopicConfig) *embedlog.TopicConfig {
		c.SegmentBytes = 4 << 10
		return &c
	}
	kept, err := db.CreateTopic(ctx, "kept", config(embedlog.TopicConfig{Partitions: 2}))
	must(err)
	short, err := db.CreateTopic(ctx, "short", config(embedlog.TopicConfig{Partitions: 1, RetentionBytes: 8 << 10}))
	must(err)
	latest, err := db.CreateTopic(ctx, "latest", config(embedlog.TopicConfig{Partitions: 1, Cleanup: embedlog.Compact}))
	must(err)
	cut, err := db.CreateTopic(ctx, "cut", config(embedlog.TopicConfig{Partitions: 1}))
	must(err)
	weak, err := db.CreateTopic(ctx, "weak", config(embedlog.TopicConfig{Partitions: 1, Durability: embedlog.OS}))
	must(err)
	fill := strings.Repeat("x", 200)
	for i := range 60 {
		for _, top := range []*embedlog.Topic{kept, short, latest, cut, weak} {
			_, err := top.ProduceTo(ctx, int32(i%top.Partitions()), embedlog.Record{Key: fmt.Append(nil, i%7), Value: fmt.Appendf(nil, "%s %d %s", top.Name(), i, fill)})
			must(err)
		}
		if i == 40 {
			db.Engine().Tick(ctx) // retention
			must(db.Compact(ctx, "latest"))
			_, err := cut.DeleteRecords(ctx, 0, 25)
			must(err)
		}
	}
	must(db.CommitPositions(ctx, "billing", embedlog.Position{Topic: "kept", Partition: 1, Offset: 12, LeaderEpoch: -1}))

	e := db.Engine()
	top, err := e.Topic("kept")
	must(err)
	first, err := top.Partition(0)
	must(err)
	second, err := top.Partition(1)
	must(err)
	d.client = engine.InitRequest{TransactionalID: "client", Timeout: 40 * time.Second, ProducerID: -1, Epoch: -1}
	d.id, d.epoch, err = e.Txns().InitProducer(ctx, d.client)
	must(err)
	must(d.write(e, first, "client 0"))
	idempotent, err := e.AllocateProducerID(ctx)
	must(err)
	for i := range int32(3) {
		d.again, d.againAs = log.Record{Value: fmt.Appendf(nil, "idempotent %d", i)}, partition.Producer{ID: idempotent, Sequence: i}
		_, err = second.Append(ctx, []log.Record{d.again}, &partition.AppendOptions{Producer: &d.againAs})
		must(err)
	}
	local, err := db.Begin(ctx, nil)
	must(err)
	_, err = local.ProduceTo(ctx, embedlog.Record{Topic: "kept", Partition: 1, Value: []byte("of a process that is gone")}, embedlog.Record{Topic: "weak", Value: []byte("of it, too")})
	must(err)
	must(local.CommitPositions(ctx, "billing", embedlog.Position{Topic: "kept", Partition: 1, Offset: 20, LeaderEpoch: -1}))
	must(db.Sync(ctx)) // the records of the weak topic, and of the transaction
	_, err = kept.ProduceTo(ctx, 1, embedlog.Record{Value: []byte("behind it")})
	must(err)
	for _, p := range top.Partitions() {
		if p.LastStable() == p.HighWatermark() {
			t.Fatalf("no transaction is open in %s", p)
		}
	}

	for _, name := range aloneTopics {
		d.note(t, db, name)
	}
	d.values["kept"] = append(d.values["kept"], "behind it") // what was open before it is not committed
	for name, want := range map[string]bool{"kept": false, "short": true, "latest": false, "cut": true, "weak": false} {
		if d.starts[name][0] > 0 != want {
			t.Fatalf("%s begins at %v", name, d.starts[name])
		}
	}
	if n := len(d.values["latest"]); n >= 60 {
		t.Fatalf("%d records after a compaction", n)
	}
	if d.starts["cut"][0] != 25 || len(d.values["cut"]) != 35 {
		t.Fatalf("cut begins at %v with %d records", d.starts["cut"], len(d.values["cut"]))
	}
	d.disk = ending(d.disk)
	db.Close() // what it does to its disk now is nobody's
	return d
}

// note reads a topic, as far as no transaction is open there.
func (d *aloneDir) note(t *testing.T, db *embedlog.DB, name string) {
	t.Helper()
	values, starts, err := readAll(db, name)
	if err != nil {
		t.Fatal(err)
	}
	d.values[name], d.starts[name] = values, starts
}

// readAll reads what is committed of a topic, and where its partitions begin.
func readAll(db *embedlog.DB, name string) (values []string, starts []int64, err error) {
	top, err := db.Topic(name)
	if err != nil {
		return nil, nil, err
	}
	for rec, err := range top.Scan(context.Background(), &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			return nil, nil, err
		}
		values = append(values, string(rec.Value))
	}
	info, err := top.Describe()
	for _, p := range info.Partitions {
		starts = append(starts, p.LogStart)
	}
	return values, starts, err
}

// write writes a record of the client's transaction, as the Kafka door does.
func (d *aloneDir) write(e *engine.Engine, p *engine.Partition, value string) error {
	ctx := context.Background()
	if err := e.Txns().AddPartitions(ctx, "client", d.id, d.epoch, []engine.TopicPartitions{{Topic: p.TopicID(), Partitions: []int32{p.ID()}}}); err != nil {
		return err
	}
	_, err := p.Append(ctx, []log.Record{{Value: []byte(value)}}, &partition.AppendOptions{Producer: &partition.Producer{
		ID: d.id, Epoch: d.epoch, Sequence: d.next, Transactional: true, TxnV2: true,
	}})
	if err == nil {
		d.next++
	}
	return err
}

// there says whether a node answers with all that was committed, and with nothing else.
func (d *aloneDir) there(n *dbNode) error {
	for _, name := range aloneTopics {
		values, starts, err := readAll(n.db, name)
		if err != nil {
			return fmt.Errorf("node %d, %s: %w", n.id, name, err)
		}
		if !slices.Equal(values, d.values[name]) {
			i := 0
			for i < min(len(values), len(d.values[name])) && values[i] == d.values[name][i] {
				i++
			}
			return fmt.Errorf("node %d has %d records of %s, want %d; from the first that differs: %.300q, want %.300q", n.id, len(values), name, len(d.values[name]), values[i:], d.values[name][i:])
		}
		if !slices.Equal(starts, d.starts[name]) {
			return fmt.Errorf("node %d: %s begins at %v, want %v", n.id, name, starts, d.starts[name])
		}
	}
	return nil
}

// decided says whether nothing is open any more in any partition that this node has.
func decided(n *dbNode) error {
	for _, top := range n.db.Engine().Topics() {
		for _, p := range top.Partitions() {
			if p.Replicated() != nil && p.LastStable() != p.HighWatermark() {
				return fmt.Errorf("node %d: %s is stable up to %d of %d", n.id, p, p.LastStable(), p.HighWatermark())
			}
		}
	}
	return nil
}

// addTwo adds nodes 2 and 3.
func (c *dbCluster) addTwo() {
	c.t.Helper()
	ctx, first := context.Background(), c.nodes[0]
	for id := int32(2); id <= 3; id++ {
		c.until("add a node", func() error {
			err := first.db.Cluster().AddNode(ctx, id, simAddress(id))
			if errors.Is(err, embedlog.ErrInvalidNode) {
				return nil // it is there already: the answer was lost
			}
			return err
		})
		n := &dbNode{id: id, disk: vfs.NewMem(), join: simAddress(1)}
		c.nodes = append(c.nodes, n)
		c.start(n)
	}
}

// grow adds two nodes, and gives all topics three replicas.
func (c *dbCluster) grow() {
	c.t.Helper()
	ctx, first := context.Background(), c.nodes[0]
	c.addTwo()
	for _, top := range first.db.Engine().Topics() {
		c.until("replicate "+top.Name(), func() error { return first.db.Cluster().SetReplicationFactor(ctx, top.Name(), 3) })
	}
	c.until("three replicas in sync", func() error {
		led := 0
		for _, n := range c.nodes {
			for _, s := range n.db.Cluster().Status() {
				if s.Leader == n.id {
					led++
					if len(s.InSync) != 3 || len(s.Members) != 3 || slices.ContainsFunc(s.Members, func(m engine.MemberStatus) bool { return !m.Voter }) {
						return fmt.Errorf("node %d: %+v", n.id, s)
					}
				}
			}
		}
		want := 1 // the metadata
		for _, top := range first.db.Engine().Topics() {
			want += len(top.Partitions())
		}
		if led != want {
			return fmt.Errorf("%d logs of %d are led", led, want)
		}
		return nil
	})
}

// A directory that was used alone, with retention, compaction, a start that was moved and open
// transactions, and whose process was killed, becomes one node, and three; the first one is killed and does not come
// back: everything is there, what was open is ended, and all goes on.
func TestOneBecomesMany(t *testing.T) {
	endings := map[string]func(*vfs.Mem) *vfs.Mem{
		"killed":    func(m *vfs.Mem) *vfs.Mem { return m.AfterKill() },
		"power cut": func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(vfs.Random(11)) },
	}
	for _, name := range slices.Sorted(maps.Keys(endings)) {
		// The client's transaction is ended by its timeout, or by the client, who comes back.
		for _, comesBack := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, client comes back %t", name, comesBack), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { oneBecomesMany(t, endings[name], comesBack) })
			})
		}
	}
}

func oneBecomesMany(t *testing.T, ending func(*vfs.Mem) *vfs.Mem, comesBack bool) {
	ctx := context.Background()
	d := newAloneDir(t, ending)
	c := &dbCluster{t: t, net: simnet.New(), maintenance: -1}
	first := &dbNode{id: 1, disk: d.disk}
	c.nodes = append(c.nodes, first)
	c.start(first)
	c.grow()
	open := func(n *dbNode) error {
		top, err := n.db.Engine().Topic("kept")
		if err != nil {
			return err
		}
		// What the process had open is ended; what the client has is not, before its time.
		if p, err := top.Partition(1); err != nil || p.LastStable() != p.HighWatermark() {
			return fmt.Errorf("node %d: the transaction of a process that is gone is open: %v", n.id, err)
		}
		if p, err := top.Partition(0); err != nil || p.LastStable() == p.HighWatermark() {
			return fmt.Errorf("node %d: the client's transaction is ended: %v", n.id, err)
		}
		return nil
	}
	for _, n := range c.nodes {
		if err := errors.Join(open(n), d.there(n)); err != nil {
			t.Error(err)
		}
	}
	// The first one is killed, in the middle of all, and gone.
	first.dead.Store(true)
	c.net.Host(hostName(1)).Crash()
	first.db.Close()
	c.nodes = c.nodes[1:]
	second := c.nodes[0]
	partitionOf := func(n int32) *engine.Partition {
		top, err := second.db.Engine().Topic("kept")
		if err != nil {
			t.Fatal(err)
		}
		p, err := top.Partition(n)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if comesBack {
		c.until("the client goes on", func() error { return d.write(second.db.Engine(), partitionOf(0), "client 1") })
		c.until("the client commits", func() error {
			_, _, err := second.db.Engine().AnyTxns().End(ctx, "client", d.id, d.epoch, true)
			return err
		})
		d.values["kept"] = slices.Insert(d.values["kept"], 30, "client 0", "client 1")
	} else {
		time.Sleep(d.client.Timeout)
	}
	for _, n := range c.nodes {
		c.until("nothing is open", func() error { return decided(n) })
		c.until("all is there", func() error { return d.there(n) })
	}
	// The idempotent producer did not hear that its last batch was written.
	c.until("the producer's retry", func() error {
		_, err := partitionOf(1).Append(ctx, []log.Record{d.again}, &partition.AppendOptions{Producer: &d.againAs})
		return err
	})
	for _, n := range c.nodes {
		c.until("all is there once", func() error { return d.there(n) })
		got, err := n.db.Engine().AnyGroups().Committed(ctx, "billing", nil, false)
		if err != nil || len(got) != 1 || got[0].Offset != 12 {
			t.Errorf("node %d: the group has committed %+v, %v", n.id, got, err)
		}
	}
	// All goes on: records, a transaction of the client's id, and one of this process.
	for _, name := range aloneTopics {
		c.until("a record in "+name, func() error {
			top, err := second.db.Topic(name)
			if err == nil {
				_, err = top.ProduceTo(ctx, 0, embedlog.Record{Key: []byte("new"), Value: []byte("new")})
			}
			return err
		})
	}
	c.until("a transaction", func() error {
		return second.db.Update(ctx, func(x *embedlog.Txn) error {
			_, err := x.ProduceTo(ctx, embedlog.Record{Topic: "weak", Value: []byte("newer")})
			return err
		})
	})
	d.values["kept"] = slices.Insert(d.values["kept"], len(d.values["kept"])-34, "new")
	for _, name := range aloneTopics[1:] {
		d.values[name] = append(d.values[name], "new")
	}
	d.values["weak"] = append(d.values["weak"], "newer")
	c.until("the client's id begins anew", func() error {
		id, epoch, err := second.db.Engine().AnyTxns().InitProducer(ctx, d.client)
		if err == nil && (id == d.id && epoch <= d.epoch) {
			t.Errorf("it gets producer %d, epoch %d; it had %d, %d", id, epoch, d.id, d.epoch)
		}
		return err
	})
	for _, n := range c.nodes {
		c.until("all is there in the end", func() error { return d.there(n) })
		c.until("nothing is open in the end", func() error { return decided(n) })
	}
	c.close()
}
