package embedlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/vfs"
)

// A handle changes the topic that it is of, and not another one that got the name
// while the call waited for its turn.
func TestTopicHandleAndANameMadeAgain(t *testing.T) {
	ctx := context.Background()
	for _, row := range []struct {
		name string
		call func(*Topic) error
	}{
		{"Alter", func(t *Topic) error { return t.Alter(ctx, map[string]string{"retention.ms": "1234"}) }},
		{"AddPartitions", func(t *Topic) error { return t.AddPartitions(ctx, 7) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault := vfs.NewFault(vfs.NewMem())
				db, err := OpenFS(fault, &Options{MaintenanceInterval: -1})
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				old := makeTopic(t, db, "t", nil)
				synctest.Wait() // the ticker has begun: a wait for the metadata's lock would stop the clock
				gate := make(chan struct{})
				fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "meta/*.log", Effect: vfs.Call(func() { <-gate })})
				queue := func(f func() error) (result chan error) {
					result = make(chan error, 1)
					go func() { result <- f() }()
					synctest.Wait() // it waits for its turn, or for the disk
					return result
				}
				deleted := queue(func() error { return db.DeleteTopic(ctx, "t") })
				created := queue(func() error { _, err := db.CreateTopic(ctx, "t", nil); return err })
				called := queue(func() error { return row.call(old) })
				close(gate)
				if err := errors.Join(<-deleted, <-created); err != nil {
					t.Fatal(err)
				}
				checkError(t, <-called, ErrUnknownTopic, `"t"`)
				now, err := db.Topic("t")
				if err != nil || now.ID() == old.ID() {
					t.Fatalf("%v, %v", now, err)
				}
				info, err := now.Describe()
				if err != nil {
					t.Fatal(err)
				}
				explicit := 0
				for _, s := range info.Settings {
					if s.Explicit {
						explicit++
					}
				}
				if explicit != 0 || len(info.Partitions) != 1 {
					t.Errorf("the new topic has %d settings and %d partitions", explicit, len(info.Partitions))
				}
			})
		})
	}
}
