package embedlogtest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/vfs"
)

// Options say how a test wants its database. Nil is the defaults.
type Options struct {
	// DB are the options of the database. Now and Socket are this package's.
	DB embedlog.Options
	// FakeClock holds the database's time still, until Advance moves it. It begins at
	// 2026-01-01 00:00 UTC.
	FakeClock bool
	// Seed repeats what crashes kept in an earlier run. Zero chooses one.
	Seed uint64
	// DiskBytes is the size of the disk. Zero is no limit.
	DiskBytes int64
	// NoVerify leaves out the check of all logs at the end, for tests that damage them.
	NoVerify bool
	// NoLeakCheck leaves out the check for goroutines, for tests beside which others
	// use embedlog without this package.
	NoLeakCheck bool
	// Log writes what the database logs to the test's log.
	Log bool
}

// DB is a database in memory. The embedded *embedlog.DB changes with Crash, Kill
// and Reopen: handles of before, topics and consumers too, are closed by then.
type DB struct {
	*embedlog.DB

	tb     testing.TB
	o      Options
	mem    *vfs.Mem
	faults *vfs.Fault
	rand   *rand.Rand
	clock  *Clock
}

// Open opens an empty database, which ends with the test. It fails the test when it
// cannot.
func Open(tb testing.TB, o *Options) *DB {
	tb.Helper()
	d := &DB{tb: tb}
	if o != nil {
		d.o = *o
	}
	if d.o.DB.Socket {
		tb.Fatal("embedlogtest: a database in memory has no socket")
	}
	if d.o.Seed == 0 {
		d.o.Seed = rand.Uint64()
	}
	d.rand = rand.New(rand.NewPCG(d.o.Seed, 0))
	if d.o.FakeClock {
		d.clock = newClock()
		d.o.DB.Now = d.clock.Now
	}
	if d.o.Log && d.o.DB.Logger == nil {
		d.o.DB.Logger = slog.New(slog.NewTextHandler(testLog{tb}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	capacity := int64(-1)
	if d.o.DiskBytes > 0 {
		capacity = d.o.DiskBytes
	}
	opened(tb, d.o.NoLeakCheck)
	tb.Cleanup(d.end)
	d.open(vfs.NewMem(vfs.MapBytes(0), vfs.Capacity(capacity)))
	return d
}

// open opens the database in the files that mem holds.
func (d *DB) open(mem *vfs.Mem) {
	d.tb.Helper()
	d.mem, d.faults = mem, vfs.NewFault(mem)
	db, err := embedlog.OpenFS(d.faults, &d.o.DB)
	if err != nil {
		d.tb.Fatalf("embedlogtest: open: %v (seed %d)", err, d.o.Seed)
	}
	d.DB = db
}

// Crash cuts the power and opens what is left: of what was not synced, each part is
// kept, lost or torn at random. Faults that were set are gone.
func (d *DB) Crash() {
	d.tb.Helper()
	seed := d.rand.Uint64()
	d.tb.Logf("embedlogtest: the power is cut (Options.Seed: %d)", d.o.Seed)
	d.leave(d.mem.AfterCrash(vfs.Random(seed)))
}

// CrashLosing cuts the power and keeps nothing of what was not synced: the most
// that a power cut may take.
func (d *DB) CrashLosing() {
	d.tb.Helper()
	d.leave(d.mem.AfterCrash(vfs.KeepNone))
}

// Kill ends the database as kill -9 ends a process, and opens it again: what was
// written is there, synced or not.
func (d *DB) Kill() {
	d.tb.Helper()
	d.leave(d.mem.AfterKill())
}

// Reopen closes the database and opens it again.
func (d *DB) Reopen() {
	d.tb.Helper()
	if err := d.DB.Close(); err != nil {
		d.tb.Fatalf("embedlogtest: close: %v", err)
	}
	d.open(d.mem)
}

// leave gives up the database that crashed and opens what is left of its files.
func (d *DB) leave(left *vfs.Mem) {
	d.tb.Helper()
	_ = d.DB.Close() // its files are gone; what it says of that is no news
	d.open(left)
}

// Advance moves the clock of a database with Options.FakeClock, and has everything
// done that is due by then: retention, compaction, sessions and transactions that
// time out.
func (d *DB) Advance(by time.Duration) {
	d.tb.Helper()
	if d.clock == nil {
		d.tb.Fatal("embedlogtest: Advance needs Options.FakeClock")
	}
	d.clock.advance(by)
	d.Engine().Tick(context.Background())
}

// Clock is the clock of a database with Options.FakeClock, otherwise nil.
func (d *DB) Clock() *Clock { return d.clock }

// end checks and closes the database when the test ends.
func (d *DB) end() {
	if d.DB != nil {
		if !d.o.NoVerify && !d.tb.Failed() {
			d.verify()
		}
		if err := d.DB.Close(); err != nil && !d.o.NoVerify && !d.tb.Failed() {
			d.tb.Errorf("embedlogtest: close: %v", err)
		}
	}
	if d.tb.Failed() {
		d.tb.Logf("embedlogtest: Options.Seed: %d", d.o.Seed)
	}
	closed(d.tb)
}

// verify reads every log. A test that closed its database has it opened once more.
func (d *DB) verify() {
	d.faults.Clear()
	report, err := d.DB.Verify(context.Background())
	if errors.Is(err, embedlog.ErrClosed) {
		d.open(d.mem)
		report, err = d.DB.Verify(context.Background())
	}
	if err != nil {
		d.tb.Errorf("embedlogtest: verify: %v", err)
	}
	for i := range report.Problems {
		d.tb.Errorf("embedlogtest: %v", &report.Problems[i])
	}
}

// testLog writes lines of a logger to the test's log.
type testLog struct{ tb testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.tb.Log(string(p[:max(len(p)-1, 0)]))
	return len(p), nil
}
