package engine_test

import (
	"testing"
	"testing/synctest"
	"time"

	. "github.com/x/embedlog/internal/engine"
)

// A question to a leader that says nothing is asked again as soon as another one leads, and not
// when patience is over: a stopped machine keeps its connections.
func TestAsksWhoCameToLead(t *testing.T) { synctest.Test(t, testAsksWhoCameToLead) }

func testAsksWhoCameToLead(t *testing.T) {
	p := newPeers(t, 3)
	p.create("orders", 1, 0)
	p.agree()
	top, err := p.open[3].Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	id := LogID{Topic: top.ID()}
	if err := p.net.Elect(id, 1); err != nil {
		t.Fatal(err)
	}
	release := p.net.Deafen(id, 1) // it leads, and waits to hear what is committed before it answers
	defer release()
	begun, done := time.Now(), make(chan error, 1)
	go func() {
		_, err := top.Partitions()[0].LeaderView().Bounds(ctx)
		done <- err
	}()
	time.Sleep(time.Second)
	select {
	case err := <-done:
		t.Fatalf("answered by a leader that knows nothing: %v", err)
	default:
	}
	if err := p.net.Elect(id, 2); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the answer came after %v; another node led after 1s", took)
	}
}
