package embedlog

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/vfs"
)

// After DB.Close every method of every handle fails with ErrClosed, or has no error
// to return; none panics and none waits, which would end the bubble. A method that is
// not in the table fails the test.
func TestEveryMethodAfterClose(t *testing.T) {
	for _, used := range []bool{false, true} {
		name := "handles that were never used"
		if used {
			name = "handles that were used"
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { everyMethodAfterClose(t, used) })
		})
	}
}

func everyMethodAfterClose(t *testing.T, used bool) {
	ctx := context.Background()
	rec := Record{Topic: "t", Key: []byte("k"), Value: []byte("v")}
	db, err := OpenMemory(&Options{AutoCreateTopics: true})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	topic, err := db.CreateTopic(ctx, "t", &TopicConfig{Cleanup: CompactAndDelete})
	must(err)
	p, err := db.Producer(nil)
	must(err)
	c, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}})
	must(err)
	manual, err := db.Consumer(&ConsumerConfig{Group: "other", Assign: []Position{{Topic: "t"}}, ManualCommit: true})
	must(err)
	txn, err := db.Begin(ctx, nil)
	must(err)
	transactor, err := db.Transactor(ctx, TxnOptions{ID: "id"})
	must(err)
	cluster := db.Cluster()
	if used {
		_, err = topic.Produce(ctx, rec)
		must(err)
		_, err = p.Produce(ctx, rec)
		must(err)
		for _, c := range []*Consumer{c, manual} {
			_, err = c.Poll(ctx, 1)
			must(err)
		}
		must(c.Commit(ctx))
		_, err = txn.Produce(ctx, rec)
		must(err)
		_, err = topic.Describe()
		must(err)
	}
	must(db.Close())

	first := func(_ any, err error) error { return err }
	walk := func(seq func(func(Record, error) bool)) (err error) {
		for _, err = range seq {
			if err != nil {
				break
			}
		}
		return err
	}
	type table map[string]func() error // nil where there is no error to return
	quiet := func(f func()) func() error { return func() error { f(); return ErrClosed } }
	for _, row := range []struct {
		handle any
		calls  table
	}{
		{db, table{
			"ACLs": quiet(func() { db.ACLs(ACLFilter{}) }),
			"AlterQuota": func() error {
				return db.AlterQuota(ctx, QuotaEntity{User: "ann"}, map[string]float64{"producer_byte_rate": 1})
			},
			"AlterUser":          func() error { return db.AlterUser(ctx, "ann", nil, ScramSHA256) },
			"Authorizer":         quiet(func() { db.Authorizer(nil) }),
			"AutoCreatesTopics":  quiet(func() { db.AutoCreatesTopics() }),
			"Backup":             func() error { return first(db.Backup(ctx, t.TempDir(), nil)) },
			"BackupFS":           func() error { return first(db.BackupFS(ctx, vfs.NewMem(), "memory", nil)) },
			"BeforeClose":        func() error { return first(db.BeforeClose(func() {})) },
			"Begin":              func() error { return first(db.Begin(ctx, nil)) },
			"CheckPassword":      quiet(func() { db.CheckPassword("ann", "secret") }),
			"Close":              quiet(func() { must(db.Close()) }),
			"CommitPositions":    func() error { return db.CommitPositions(ctx, "g", Position{Topic: "t"}) },
			"Compact":            func() error { return db.Compact(ctx) },
			"Consumer":           func() error { return first(db.Consumer(&ConsumerConfig{Topics: []string{"t"}})) },
			"CreateACLs":         func() error { return db.CreateACLs(ctx) },
			"Cluster":            quiet(func() { db.Cluster() }),
			"CreateTopic":        func() error { return first(db.CreateTopic(ctx, "new", nil)) },
			"DefaultPartitions":  quiet(func() { db.DefaultPartitions() }),
			"DeleteACLs":         func() error { return first(db.DeleteACLs(ctx, ACLFilter{})) },
			"DeleteGroup":        func() error { return db.DeleteGroup(ctx, "g") },
			"DeleteGroupOffsets": func() error { return db.DeleteGroupOffsets(ctx, "g", "t") },
			"DeleteTopic":        func() error { return db.DeleteTopic(ctx, "t") },
			"DeleteUser":         func() error { return db.DeleteUser(ctx, "ann") },
			"DescribeGroup":      func() error { return first(db.DescribeGroup(ctx, "g")) },
			"Engine":             quiet(func() { db.Engine() }),
			"EnsureTopic":        func() error { return first(db.EnsureTopic(ctx, "t", nil)) },
			"Groups":             func() error { return first(db.Groups(ctx)) },
			"Info":               quiet(func() { db.Info() }),
			"Producer":           func() error { return first(db.Producer(nil)) },
			"Peers": func() error {
				_, err := db.Peers().Call(ctx, 0, "x", nil)
				return err
			},
			"Quotas":        quiet(func() { db.Quotas() }),
			"ResetGroup":    func() error { return first(db.ResetGroup(ctx, "g", ResetSpec{Topics: []string{"t"}, To: Earliest})) },
			"ServeCommands": func() error { return serveClosed(ctx, db) },
			"StateDir": func() error {
				_, _, err := db.StateDir()
				return err
			},
			"SetUser":    func() error { return db.SetUser(ctx, "ann", "secret") },
			"Stats":      quiet(func() { db.Stats() }),
			"Sync":       func() error { return db.Sync(ctx) },
			"Topic":      func() error { return first(db.Topic("t")) },
			"Topics":     quiet(func() { db.Topics() }),
			"Transactor": func() error { return first(db.Transactor(ctx, TxnOptions{ID: "task"})) },
			"Update":     func() error { return db.Update(ctx, func(*Txn) error { return nil }) },
			"Users":      quiet(func() { db.Users() }),
			"Verify":     func() error { return first(db.Verify(ctx)) },
		}},
		{transactor, table{
			"Begin": func() error { return first(transactor.Begin(ctx)) },
		}},
		{topic, table{
			"AddPartitions": func() error { return topic.AddPartitions(ctx, 2) },
			"Alter":         func() error { return topic.Alter(ctx, map[string]string{"retention.ms": "1000"}) },
			"DB":            quiet(func() { topic.DB() }),
			"DeleteRecords": func() error { return first(topic.DeleteRecords(ctx, 0, -1)) },
			"Describe":      func() error { return first(topic.Describe()) },
			"EngineTopic":   func() error { return first(topic.EngineTopic()) },
			"ID":            quiet(func() { topic.ID() }),
			"ListOffsets":   func() error { return first(topic.ListOffsets(ctx, Latest)) },
			"Name":          quiet(func() { topic.Name() }),
			"Leader":        func() error { return first(topic.Leader(0)) },
			"Partitions":    quiet(func() { topic.Partitions() }),
			"Produce":       func() error { return first(topic.Produce(ctx, rec)) },
			"ProduceAt":     func() error { return first(topic.ProduceAt(ctx, 0, 0, rec)) },
			"ProduceTo":     func() error { return first(topic.ProduceTo(ctx, 0, rec)) },
			"Scan":          func() error { return walk(topic.Scan(ctx, nil)) },
		}},
		{p, table{
			"Abort":   quiet(p.Abort),
			"Close":   quiet(func() { must(p.Close()) }),
			"Flush":   func() error { return p.Flush(ctx) },
			"Produce": func() error { return first(p.Produce(ctx, rec)) },
			"Send":    func() error { return p.Send(ctx, rec, nil) },
		}},
		{cluster, table{
			"AddNode":              func() error { return cluster.AddNode(ctx, 2, "") },
			"Advertise":            quiet(func() { cluster.Advertise() }),
			"AskStatus":            quiet(func() { cluster.AskStatus(ctx) }),
			"DrainNode":            func() error { return cluster.DrainNode(ctx, 1) },
			"DrainLostNode":        func() error { return cluster.DrainLostNode(ctx, 1) },
			"ElectPreferred":       func() error { return first(cluster.ElectPreferred(ctx)) },
			"Node":                 quiet(func() { cluster.Node() }),
			"Nodes":                quiet(func() { cluster.Nodes() }),
			"CancelReassignment":   func() error { return cluster.CancelReassignment(ctx, "t", 0) },
			"Reassign":             func() error { return cluster.Reassign(ctx, "t", 0, []int32{1}) },
			"Recover":              func() error { return first(cluster.Recover(ctx, "t", 0)) },
			"RemoveNode":           func() error { return cluster.RemoveNode(ctx, 1) },
			"Removed":              quiet(func() { must(cluster.Removed()) }),
			"SetReplicationFactor": func() error { return cluster.SetReplicationFactor(ctx, "t", 2) },
			"Status":               quiet(func() { cluster.Status() }),
			"TransferLeadership":   func() error { return cluster.TransferLeadership(ctx, "t", 0, 0) },
			"UndrainNode":          func() error { return cluster.UndrainNode(ctx, 1) },
		}},
		{c, table{
			"Assignment": quiet(func() { c.Assignment() }),
			"Batches": func() (err error) {
				for _, err = range c.Batches(ctx) {
					break
				}
				return err
			},
			"Close":        quiet(func() { must(c.Close()) }),
			"Commit":       func() error { return c.Commit(ctx) },
			"Committed":    func() error { return first(c.Committed(ctx)) },
			"Lag":          func() error { return first(c.Lag(ctx)) },
			"Mark":         quiet(func() { c.Mark(rec) }),
			"MarkPosition": quiet(func() { c.MarkPosition(Position{Topic: "t"}) }),
			"Pause":        func() error { return c.Pause("t") },
			"Poll":         func() error { return first(c.Poll(ctx, 1)) },
			"Position":     quiet(func() { c.Position("t", 0) }),
			"Records":      func() error { return walk(c.Records(ctx)) },
			"Resume":       func() error { return c.Resume("t") },
			"Rewind":       quiet(c.Rewind),
			"Seek":         func() error { return c.Seek(Position{Topic: "t"}) },
		}},
		{txn, table{
			"Abort":           func() error { return txn.Abort(ctx) },
			"Commit":          func() error { return txn.Commit(ctx) },
			"CommitOffsets":   func() error { return txn.CommitOffsets(ctx, manual) },
			"CommitPositions": func() error { return txn.CommitPositions(ctx, "g", Position{Topic: "t"}) },
			"Produce":         func() error { return first(txn.Produce(ctx, rec)) },
			"ProduceTo":       func() error { return first(txn.ProduceTo(ctx, rec)) },
		}},
	} {
		typ := reflect.TypeOf(row.handle)
		var names []string
		for m := range typ.Methods() {
			names = append(names, m.Name)
		}
		for name := range row.calls {
			if !slices.Contains(names, name) {
				t.Errorf("%v has no method %s", typ, name)
			}
		}
		for _, name := range names {
			call := row.calls[name]
			if call == nil {
				t.Errorf("%v.%s is not in the table", typ, name)
				continue
			}
			if err := call(); !errors.Is(err, ErrClosed) {
				t.Errorf("%v.%s after DB.Close: %v, want an error that matches ErrClosed", typ, name, err)
			}
			synctest.Wait()
		}
	}
}

// serveClosed is a client that hangs up when it is answered.
func serveClosed(ctx context.Context, db *DB) error {
	here, there := net.Pipe()
	defer here.Close()
	go func() { _, _ = io.Copy(io.Discard, there); there.Close() }()
	return db.ServeCommands(ctx, here)
}
