package query

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// The process is killed, or the power fails, at some file operation while a graph computes windows, sessions, what of them is final, late rows and a join
// within a time, in two tasks or, by new keys, in one. When it goes on, all views are what their records come to, stream time is what it was, and
// every final row was appended once.
func TestWindowCrashes(t *testing.T) {
	seed := rand.Uint64()
	for _, level := range []embedlog.Durability{embedlog.Durable, embedlog.OS} {
		for _, power := range []bool{true, false} {
			k := func(i int) int { return i }
			runs := 1 << 30
			if !*crashAll {
				r := rand.New(rand.NewPCG(seed, uint64(level)))
				runs = testcount.N(10)
				k = func(int) int { return r.IntN(2500) }
			}
			done := 0
			for i := range runs {
				through, at := false, k(i)
				synctest.Test(t, func(t *testing.T) { through = windowCrashOnce(t, at, power, level, seed+uint64(i)) })
				if t.Failed() {
					t.Fatalf("seed %d, crash at operation %d, power %v, level %v", seed+uint64(i), at, power, level)
				}
				if done++; through && *crashAll {
					break
				}
			}
			t.Logf("level %v, power cut %v: %d crashes", level, power, done)
		}
	}
}

// windowCrash is the graph in a database.
type windowCrash struct {
	*windowCase
	level embedlog.Durability
	g     *Graph
	views windowViews
	life  *life
}

func (c *windowCrash) start(t *testing.T, db *embedlog.DB) (err error) {
	c.life = &life{T: t, db: db, ctx: context.Background(), counts: map[string]int64{}}
	var outs [2]*embedlog.Topic
	for i, name := range []string{"a", "b", "finals", "sessions"} {
		cfg := &embedlog.TopicConfig{Partitions: 2}
		if i < 2 {
			cfg.Durability = c.level
		}
		top, err := db.EnsureTopic(c.life.ctx, name, cfg)
		if err != nil {
			return err
		}
		if i >= 2 {
			outs[i-2] = top
		}
	}
	c.g = NewGraph(db, "g", &Options{CommitInterval: 5 * ms, MaxAhead: time.Duration(c.bound) * ms})
	if c.views, err = c.build(c.life, c.g); err != nil {
		return err
	}
	To(c.g, c.views.windowed["finals"].Table().Changes(), outs[0])
	To(c.g, c.views.windowed["final sessions"].Table().Changes(), outs[1])
	return c.g.Start(c.life.ctx)
}

// produce appends records, and lets time pass, so that some are committed.
func (c *windowCrash) produce(recs []record) error {
	for i := range recs {
		top, err := c.life.db.Topic(recs[i].topic)
		if err != nil {
			return err
		}
		if _, err := top.Produce(c.life.ctx, recs[i].record()); err != nil {
			return err
		}
		if i%4 == 3 {
			time.Sleep(7 * ms)
		}
	}
	return nil
}

// windowCrashOnce says whether the run came to its end before the crash.
func windowCrashOnce(t *testing.T, k int, power bool, level embedlog.Durability, seed uint64) (through bool) {
	c := &windowCrash{level: level, windowCase: &windowCase{parts: 2, bound: 60, rekey: seed%2 == 0, single: seed%2 == 0,
		windows: Hopping(20*ms, 10*ms).Grace(10 * ms).Retain(40 * ms), slides: Sliding(12 * ms).Grace(10 * ms).Retain(40 * ms),
		sessions: Session(8 * ms).Retain(30 * ms), joins: Within(10 * ms)}}
	clock := newWindowClock(rand.New(rand.NewPCG(seed, 9)))
	today := time.Now().Truncate(time.Hour).UnixMilli() - epoch // the bubble's
	records := func(n int) []record {
		recs := clock.records(n)
		for i := range recs {
			recs[i].ms += today
		}
		return recs
	}
	o := &embedlog.Options{MaintenanceInterval: -1}
	fs := vfs.NewMem(vfs.CrashAt(k))
	use := func(db *embedlog.DB, n int) {
		if c.start(t, db) == nil {
			c.produce(records(n))
			c.g.Close()
		}
		db.Close()
	}
	db, err := embedlog.OpenFS(fs, o)
	if err == nil {
		use(db, 16)
		if db, err = embedlog.OpenFS(fs, o); err == nil {
			use(db, 12)
		}
	}
	through = !fs.Crashed()
	after := fs.AfterKill()
	if power {
		after = fs.AfterCrash(vfs.Random(seed))
	}
	if db, err = embedlog.OpenFS(after, o); err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer db.Close()
	for round := range 2 {
		if err := c.start(t, db); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := c.produce(records(6)); err != nil {
			t.Fatal(err)
		}
		log, err := c.life.scan()
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.g.Snapshot(c.life.ctx)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		err = c.compare(c.life, &c.views, s, log)
		if s.Release(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := c.g.Close(); err != nil { // commits what was sent
			t.Fatal(err)
		}
		want := c.naive(log)
		for topic, want := range map[string]map[string]int64{"finals": want["every final"], "sessions": want["every final session"]} {
			got, err := sent(c.life.ctx, db, topic)
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("round %d: %s: appended %v, %v, want %v", round, topic, got, err, want)
			}
		}
	}
	return through
}

// sent is the windows that were appended to a topic. A window that was appended twice has another one's name for the second time.
func sent(ctx context.Context, db *embedlog.DB, name string) (map[string]int64, error) {
	top, err := db.Topic(name)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for rec, err := range top.Scan(ctx, nil) {
		if err != nil {
			return nil, err
		}
		key, err := (WindowCodec[string]{codec.String}).Decode(rec.Key)
		if err != nil {
			return nil, err
		}
		text := windowText(key)
		for _, twice := out[text]; twice; _, twice = out[text] {
			text += " again"
		}
		if out[text], err = codec.Int64.Decode(rec.Value); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
	}
	return out, nil
}
