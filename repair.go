package embedlog

import (
	"context"
	"fmt"

	"github.com/x/embedlog/internal/engine"
)

// RepairOptions say how to repair. Nil is all defaults.
//
//	DryRun   bool                               // find out what would be done, write nothing
//	Progress func(done, total int, path string) // what is looked at next
//	Logger   *slog.Logger                       // nil is silent
//	Now      func() time.Time                   // nil is time.Now
type RepairOptions = engine.RepairOptions

// RepairReport says what Repair found and did; String is the same for people.
//
//	Logs     int           // looked at: partitions, and the metadata
//	Damaged  []RepairedLog // those of them that were not whole
//	Orphans  []Orphan      // directories that the metadata does not know
//	Identity bool          // FORMAT was damaged or missing and made anew
//	File     string        // the report in the database's directory; empty when nothing was found
type RepairReport = engine.RepairReport

// RepairedLog is a partition, or the metadata, that was not whole: its Name
// (orders/3), its Path below the database's directory, the Damage, what was SetAside,
// Start and End of the offsets it holds now, Missing when its files were gone, and Err
// when it could not be repaired.
type RepairedLog = engine.RepairedLog

// Orphan is a directory that the metadata does not know.
type Orphan = engine.Orphan

// Repair makes the damaged database in dir usable again by giving up what cannot be
// read. It is for a database that nobody has open, and never happens by itself:
// Verify says what is wrong first, and RepairOptions.DryRun what would be done.
//
//   - Records before and behind damage keep their offsets. Damaged files stay beside
//     the repaired ones as <name>.corrupt-<n>.
//   - A partition whose files are gone is made anew, empty.
//   - Directories that the metadata does not know are listed and left as they are.
//   - When anything was wrong, one report of all is written into dir.
//
// It fails with a *LockedError when somebody has the database open. An error about
// one partition does not keep it from the others; they are joined.
func Repair(ctx context.Context, dir string, o *RepairOptions) (RepairReport, error) {
	fs, err := existing(dir)
	if err != nil {
		return RepairReport{}, fmt.Errorf("repair: %w", err)
	}
	defer fs.Close()
	r, err := engine.Repair(ctx, fs, o)
	if err != nil {
		return r, fmt.Errorf("%s: %w", dir, err)
	}
	return r, nil
}
