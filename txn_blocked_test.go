package embedlog

import (
	"context"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A partition that failed keeps the transactions which wrote to it from being ended
// there. It does not hold back others, nor readers of their other partitions.
func TestTxnsBesideAFailedPartition(t *testing.T) {
	faults := vfs.NewFault(vfs.NewMem())
	db, err := OpenFS(faults, &Options{MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	bad, err := db.CreateTopic(ctx, "bad", nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := db.CreateTopic(ctx, "good", nil)
	if err != nil {
		t.Fatal(err)
	}
	var txns []*Txn
	for range 3 {
		txns = append(txns, beginTxn(t, db, nil))
	}
	for _, tx := range txns {
		produceTxn(t, tx, text("bad", "x"), text("good", "aborted"))
	}
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpDatasync} {
		faults.Add(vfs.Rule{Op: op, Glob: "topics/" + bad.ID().String() + "/0/*.log", Count: -1, Effect: vfs.FailSync()})
	}
	for _, tx := range txns {
		if err := tx.Abort(ctx); err != nil {
			t.Fatalf("abort: %v", err)
		}
	}
	for range 4 {
		if err := db.Update(ctx, func(tx *Txn) error {
			_, err := tx.Produce(ctx, text("good", "v"))
			return err
		}); err != nil {
			t.Fatalf("a transaction that has nothing to do with it: %v", err)
		}
	}
	wantValues(t, good, "v", "v", "v", "v")
}
