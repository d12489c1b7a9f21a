package raftrepl

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
)

// What a node backs up is restored as a database that is used alone, with all that was acknowledged before, wherever that
// was; and not as the node.
func TestBackupOfANodeIsRestoredAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := newDatabases(t, 3)
		other, asked := c.nodes[0], c.nodes[1]
		for i := range 20 {
			if err := produceTo(other, fmt.Sprint("record ", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := other.db.CommitPositions(ctx, "readers", embedlog.Position{Topic: "orders", Offset: 7, LeaderEpoch: -1}); err != nil {
			t.Fatal(err)
		}
		saved := vfs.NewMem()
		c.until("back up", func() error {
			_, err := asked.db.BackupFS(ctx, saved, "saved", nil)
			return err
		})
		if _, err := other.db.CreateTopic(ctx, "elsewhere", &embedlog.TopicConfig{Partitions: 3, ReplicationFactor: 1}); err != nil {
			t.Fatal(err)
		}
		c.until("a topic that the node has no replica of", func() error {
			_, err := asked.db.BackupFS(ctx, vfs.NewMem(), "half", nil)
			if missing := (*engine.ElsewhereError)(nil); errors.As(err, &missing) && strings.Contains(err.Error(), "elsewhere/") && strings.Contains(err.Error(), "no node has all of them") {
				return nil
			}
			return fmt.Errorf("a backup without a partition: %w", err)
		})
		c.close()

		restored := vfs.NewMem()
		if _, err := engine.Restore(ctx, saved, restored, "restored", nil); err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			db, err := embedlog.OpenFS(restored, nil)
			if err != nil {
				t.Fatal(err)
			}
			if db.Cluster().Node() != 0 || len(db.Cluster().Nodes()) != 0 {
				t.Errorf("it is node %d of %v", db.Cluster().Node(), db.Cluster().Nodes())
			}
			top, err := db.Topic("orders")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rec, err := range top.Scan(ctx, nil) {
				if err != nil || round == 0 && string(rec.Value) != fmt.Sprint("record ", n) {
					t.Fatalf("record %d: %q, %v", n, rec.Value, err)
				}
				n++
			}
			if n != 20+round {
				t.Errorf("%d records", n)
			}
			if _, err := top.Produce(ctx, embedlog.Record{Value: []byte("after")}); err != nil {
				t.Error(err)
			}
			if round == 0 {
				reader, err := db.Consumer(&embedlog.ConsumerConfig{Group: "readers", Topics: []string{"orders"}})
				if err != nil {
					t.Fatal(err)
				}
				for rec, err := range reader.Records(ctx) {
					if err != nil || rec.Offset != 7 {
						t.Errorf("the group goes on at offset %d, not 7: %v", rec.Offset, err)
					}
					break
				}
				if err := reader.Close(); err != nil {
					t.Error(err)
				}
			}
			name := fmt.Sprint("new-", round)
			if _, err := db.CreateTopic(ctx, name, nil); err != nil {
				t.Error(err)
			}
			if err := db.DeleteTopic(ctx, name); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
