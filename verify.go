package embedlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
)

// VerifyReport says what Verify read and what is wrong with it.
type VerifyReport struct {
	Partitions, Segments            int
	Bytes, Frames, Batches, Records int64
	Problems                        []VerifyProblem
	More                            bool // there are more problems than are listed
	// LostPositions are committed positions that lie past what is left of their
	// partition, as a power cut at a weak level leaves them. They are no damage: the
	// group goes on where the log ends, and is told.
	LostPositions []error
}

// VerifyProblem is one thing that is wrong.
type VerifyProblem struct {
	Topic     string // empty for the database's own metadata
	Partition int32
	File      string // name within the partition's directory; empty when it is the partition as a whole
	Position  int64  // byte in the file
	// Cache says that the file is an index: it is slow to do without, nothing is lost.
	Cache bool
	// Err is a *CorruptionError, a *BadBatchError, or what does not fit together.
	Err error
}

func (p *VerifyProblem) Error() string {
	if p.Topic == "" {
		return fmt.Sprintf("metadata: %s at byte %d: %v", p.File, p.Position, p.Err)
	}
	if p.File == "" {
		return fmt.Sprintf("%s/%d: %v", p.Topic, p.Partition, p.Err)
	}
	return fmt.Sprintf("%s/%d: %s at byte %d: %v", p.Topic, p.Partition, p.File, p.Position, p.Err)
}

// Unwrap returns Err.
func (p *VerifyProblem) Unwrap() error { return p.Err }

// OK says that nothing is wrong.
func (r *VerifyReport) OK() bool { return len(r.Problems) == 0 }

// Verify reads every byte of every partition, and of the metadata, and checks it,
// and that committed positions lie within their partitions, without changing anything; writers go on meanwhile. What is wrong is in the report. The error is
// nil unless something could not be read at all, or ctx ended, and the report then
// holds what was read before.
func (db *DB) Verify(ctx context.Context) (VerifyReport, error) {
	var report VerifyReport
	err := db.eachPartition(ctx, "verify", func(p *engine.Partition) error {
		report.Partitions++
		r, err := p.Verify(ctx)
		report.add(p, &r)
		if why := p.Err(); why != nil && len(r.Problems) == 0 && errors.Is(why, ErrCorrupt) {
			// It could not even be opened.
			report.Problems = append(report.Problems, VerifyProblem{Topic: p.Topic(), Partition: p.ID(), Err: why})
		}
		if err != nil {
			return fmt.Errorf("verify %s: %w", p, err)
		}
		return nil
	})
	if ctx.Err() != nil || db.isClosed() {
		return report, err
	}
	r, merr := db.engine.VerifyMetadata(ctx)
	for _, bad := range r.Problems {
		report.Problems = append(report.Problems, VerifyProblem{File: bad.File, Position: bad.Position, Cache: bad.Cache, Err: bad.Err})
	}
	var lerr error
	report.LostPositions, lerr = db.engine.LostPositions(ctx)
	return report, errors.Join(err, merr, lerr)
}

func (r *VerifyReport) add(p *engine.Partition, one *log.VerifyReport) {
	r.Segments += one.Segments
	r.Bytes += one.Bytes
	r.Frames += one.Frames
	r.Batches += one.Batches
	r.Records += one.Records
	r.More = r.More || one.More
	for _, bad := range one.Problems {
		r.Problems = append(r.Problems, VerifyProblem{
			Topic: p.Topic(), Partition: p.ID(), File: bad.File, Position: bad.Position, Cache: bad.Cache, Err: bad.Err,
		})
	}
}

// Compact compacts the named topics now, or all that are compacted, instead of
// when enough of them is new. Records that are younger than min.compaction.lag.ms
// stay. It may take long; when ctx ends, what was done stays done.
func (db *DB) Compact(ctx context.Context, topics ...string) error {
	named := make(map[string]bool)
	for _, name := range topics {
		top, err := db.engine.Topic(name)
		if err != nil {
			return fmt.Errorf("compact: %w", err)
		}
		if !top.Settings().Compacts() {
			return fmt.Errorf("compact: %w", &InvalidTopicError{Name: name, Reason: "its cleanup.policy is without compact"})
		}
		named[name] = true
	}
	return db.eachPartition(ctx, "compact", func(p *engine.Partition) error {
		top, err := db.engine.TopicByID(p.TopicID())
		if err != nil {
			return err
		}
		s := top.Settings()
		if !s.Compacts() || len(named) > 0 && !named[top.Name()] {
			return nil
		}
		// What is in the active segment would stay.
		if err := p.Roll(ctx); err != nil {
			return fmt.Errorf("compact %s: %w", p, err)
		}
		policy := log.CompactPolicy{
			Now: db.engine.Now(), MinAge: s.MinCompactionLag(), DeleteRetention: s.DeleteRetention(), Again: true,
		}
		if policy.DeleteRetention == 0 {
			policy.DeleteRetention = -1 // none, where zero is the default
		}
		if _, err := p.Compact(ctx, policy); err != nil {
			return fmt.Errorf("compact %s: %w", p, err)
		}
		return nil
	})
}
