package embedlogtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/embedlogtest"
)

func topic(t *testing.T, db *embedlogtest.DB, c *embedlog.TopicConfig) *embedlog.Topic {
	t.Helper()
	top, err := db.EnsureTopic(context.Background(), "orders", c)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func produce(t *testing.T, top *embedlog.Topic, n int) {
	t.Helper()
	for i := range n {
		if _, err := top.Produce(context.Background(), embedlog.Record{Value: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, top *embedlog.Topic) int {
	t.Helper()
	n := 0
	for _, err := range top.Scan(context.Background(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// What a crash takes is what the topic's durability says, and nothing else.
func TestWhatSurvives(t *testing.T) {
	for _, row := range []struct {
		name       string
		durability embedlog.Durability
		stop       func(*embedlogtest.DB)
		least      int
	}{
		{"durable, crash", embedlog.Durable, (*embedlogtest.DB).Crash, 10},
		{"durable, crash that loses all it may", embedlog.Durable, (*embedlogtest.DB).CrashLosing, 10},
		{"os, kill", embedlog.OS, (*embedlogtest.DB).Kill, 10},
		{"os, crash that loses all it may", embedlog.OS, (*embedlogtest.DB).CrashLosing, 0},
		{"os, reopen", embedlog.OS, (*embedlogtest.DB).Reopen, 10},
	} {
		t.Run(row.name, func(t *testing.T) {
			db := embedlogtest.Open(t, nil)
			produce(t, topic(t, db, &embedlog.TopicConfig{Durability: row.durability}), 10)
			row.stop(db)
			top := topic(t, db, nil)
			if n := count(t, top); n < row.least || n > 10 {
				t.Errorf("%d records survived, want at least %d of 10", n, row.least)
			}
			produce(t, top, 1)
		})
	}
}

// The harness can lose: at OS level a power cut that keeps nothing takes records.
func TestCrashLosingLoses(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	produce(t, topic(t, db, &embedlog.TopicConfig{Durability: embedlog.OS}), 10)
	db.CrashLosing()
	if n := count(t, topic(t, db, nil)); n != 0 {
		t.Errorf("%d records survived a power cut that keeps nothing", n)
	}
}

func TestFullDiskHeals(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top := topic(t, db, nil)
	produce(t, top, 1)
	db.Inject("*.log", embedlogtest.NoSpace())
	big := embedlog.Record{Value: make([]byte, 512<<10)}
	var err error
	for range 100 {
		if _, err = top.Produce(context.Background(), big); err != nil {
			break
		}
	}
	if !errors.Is(err, embedlog.ErrNoSpace) {
		t.Fatalf("on a full disk: %v, want ErrNoSpace", err)
	}
	if db.Faults() == 0 {
		t.Error("no fault was counted")
	}
	db.Heal()
	produce(t, top, 1)
}

func TestFailedSyncStopsUntilReopened(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top := topic(t, db, nil)
	produce(t, top, 3)
	db.Inject("topics/*/0/*.log", embedlogtest.SyncFails().Times(1))
	if _, err := top.Produce(context.Background(), embedlog.Record{}); !errors.Is(err, embedlog.ErrStorageFailed) && !errors.Is(err, embedlog.ErrUnknownOutcome) {
		t.Fatalf("a failed sync: %v", err)
	}
	if _, err := top.Produce(context.Background(), embedlog.Record{}); !errors.Is(err, embedlog.ErrStorageFailed) {
		t.Fatalf("after a failed sync: %v, want ErrStorageFailed", err)
	}
	db.Crash()
	if n := count(t, topic(t, db, nil)); n < 3 || n > 4 {
		t.Errorf("%d records, want the 3 that were acknowledged and perhaps the one that was not", n)
	}
}

func TestFakeClock(t *testing.T) {
	db := embedlogtest.Open(t, &embedlogtest.Options{FakeClock: true})
	top := topic(t, db, nil)
	before := db.Clock().Now()
	db.Advance(time.Hour)
	pos, err := top.Produce(context.Background(), embedlog.Record{Value: []byte("later")})
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range top.Scan(context.Background(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !rec.Timestamp.Equal(before.Add(time.Hour)) {
			t.Errorf("record %v has time %v, the clock says %v", pos, rec.Timestamp, before.Add(time.Hour))
		}
	}
}

// The checks of the end are there: each of these tests, run by itself, must fail
// and say why.
func TestChecksOfTheEnd(t *testing.T) {
	if why := os.Getenv("EMBEDLOGTEST_FAIL"); why != "" {
		fail(t, why)
		return
	}
	for _, row := range []struct{ how, want string }{
		{"leak", "goroutines are left"},
		{"damage", "embedlogtest: orders/0"},
		{"socket", "has no socket"},
		{"advance", "needs Options.FakeClock"},
	} {
		t.Run(row.how, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestChecksOfTheEnd$")
			cmd.Env = append(os.Environ(), "EMBEDLOGTEST_FAIL="+row.how)
			out, err := cmd.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte(row.want)) {
				t.Errorf("got %v and\n%s\nwant a failure that says %q", err, out, row.want)
			}
		})
	}
}

func fail(t *testing.T, how string) {
	switch how {
	case "leak":
		embedlogtest.Open(t, nil)
		other, err := embedlog.OpenMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = other // nobody closes it
	case "damage":
		db := embedlogtest.Open(t, nil)
		produce(t, topic(t, db, nil), 100)
		db.Damage("topics/*/0/*.log", 2000)
	case "socket":
		embedlogtest.Open(t, &embedlogtest.Options{DB: embedlog.Options{Socket: true}})
	case "advance":
		embedlogtest.Open(t, nil).Advance(time.Second)
	}
}

func TestLog(t *testing.T) {
	db := embedlogtest.Open(t, &embedlogtest.Options{Log: true, DiskBytes: 64 << 20, Seed: 7})
	produce(t, topic(t, db, nil), 1)
	db.Kill()
	if n := count(t, topic(t, db, nil)); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
	if !strings.HasPrefix(t.Name(), "TestLog") {
		t.Error(t.Name())
	}
}
