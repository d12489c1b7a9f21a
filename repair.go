package embedlog

import (
	"context"
	"fmt"

	"github.com/x/embedlog/internal/engine"
)

// RepairOptions say how to repair. Nil is all defaults.
type RepairOptions = engine.RepairOptions

// RepairReport says what Repair found and did; String is the same for people.
type RepairReport = engine.RepairReport

// RepairedLog is a partition, or the metadata, that was not whole.
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
