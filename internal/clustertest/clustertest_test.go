package clustertest

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Three copies of one log agree, whoever leads, and one that was away catches up.
func TestLogsAgree(t *testing.T) {
	ctx, net, id := context.Background(), New(), engine.LogID{}
	var parts [4]*partition.Partition
	var logs [4]engine.ReplicatedLog
	var files [4]vfs.FS
	open := func(n int32) {
		r := net.Node(n).Log(id, []int32{1, 2, 3})
		p, err := partition.Open("", &partition.Options{FS: files[n], Replicator: r})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(p); err != nil {
			t.Fatal(err)
		}
		parts[n], logs[n] = p, r
	}
	shut := func(n int) {
		logs[n].Stop()
		if err := parts[n].Close(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range int32(3) {
		files[n+1] = vfs.NewMem()
		open(n + 1)
	}
	add := func(n int, value string) error {
		_, err := parts[n].Append(ctx, []log.Record{{Value: []byte(value)}}, nil)
		return err
	}
	if err := add(1, "a"); err != nil {
		t.Fatal(err)
	}
	if err := add(2, "b"); !errors.Is(err, partition.ErrNotLeader) {
		t.Errorf("append at a follower: %v", err)
	}
	shut(1)
	if leader, _ := logs[2].Leader(); leader != 2 {
		t.Fatalf("node %d leads", leader)
	}
	if err := add(2, "c"); err != nil {
		t.Fatal(err)
	}
	open(1)
	release := net.Hold(id)
	done := make(chan error)
	go func() { done <- add(2, "d") }()
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		if hw := parts[n].HighWatermark(); hw != 3 {
			t.Errorf("node %d: high watermark %d, want 3", n, hw)
		}
		shut(n)
	}
}
