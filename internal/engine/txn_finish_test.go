package engine

import (
	"context"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A partition is done when this node knows that its topic was deleted. That somebody else does
// not know the topic proves nothing: he may have started a moment ago.
func TestMarkersOfTopicsThatOthersDoNotKnow(t *testing.T) {
	ctx := context.Background()
	e, err := Open("x", &Options{FS: vfs.NewMem(vfs.Volatile())})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	top, err := e.CreateTopic(ctx, TopicSpec{Name: "orders", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	unknown := func(txnPart) error { return &UnknownTopicError{ID: top.ID()} }
	for _, parts := range [][]txnPart{{{top.ID(), 0}}, {{top.ID(), 0}, {top.ID(), 1}}} {
		if failed, err := e.txns.each(parts, unknown); len(failed) != len(parts) || err == nil {
			t.Errorf("of %d parts %d are to be done again: %v", len(parts), len(failed), err)
		}
	}
	if err := e.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	if failed, err := e.txns.each([]txnPart{{top.ID(), 0}}, unknown); len(failed) != 0 || err != nil {
		t.Errorf("of a deleted topic: %v, %v", failed, err)
	}
}
