package embedlog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/sock"
)

// verify checks the topics named, or all of them and the metadata, and says before
// each partition how far it is.
func (s *session) verify(ctx context.Context, q sock.VerifyRequest) (sock.Verified, error) {
	var parts []*engine.Partition
	for _, t := range s.db.engine.Topics() {
		if len(q.Topics) == 0 || slices.Contains(q.Topics, t.Name()) {
			parts = append(parts, t.Partitions()...)
		}
	}
	for _, name := range q.Topics {
		if _, err := s.db.engine.Topic(name); err != nil {
			return sock.Verified{}, err
		}
	}
	var total int64
	for _, p := range parts {
		total += p.Log().AllocatedBytes()
	}
	var report VerifyReport
	done := int64(0)
	for _, p := range parts {
		s.progress(sock.Progress{What: p.String(), Done: done, Total: total})
		done += p.Log().AllocatedBytes()
		r, err := p.Verify(ctx)
		if err != nil {
			return sock.Verified{}, fmt.Errorf("verify %s: %w", p, err)
		}
		report.Partitions++
		report.add(p, &r)
		if why := p.Err(); len(r.Problems) == 0 && errors.Is(why, ErrCorrupt) {
			report.Problems = append(report.Problems, VerifyProblem{Topic: p.Topic(), Partition: p.ID(), Err: why})
		}
	}
	lost := []string{}
	if len(q.Topics) == 0 {
		r, err := s.db.engine.VerifyMetadata(ctx)
		if err != nil {
			return sock.Verified{}, fmt.Errorf("verify the metadata: %w", err)
		}
		for _, bad := range r.Problems {
			report.Problems = append(report.Problems, VerifyProblem{File: bad.File, Position: bad.Position, Cache: bad.Cache, Err: bad.Err})
		}
		positions, err := s.db.engine.LostPositions(ctx)
		if err != nil {
			return sock.Verified{}, err
		}
		for _, p := range positions {
			lost = append(lost, p.Error())
		}
	}
	v := sock.Verified{
		Partitions: report.Partitions, Segments: report.Segments, Bytes: report.Bytes,
		Batches: report.Batches, Records: report.Records, Problems: []sock.Problem{}, LostPositions: lost,
	}
	for i := range report.Problems {
		p := &report.Problems[i]
		v.Problems = append(v.Problems, sock.Problem{
			Topic: p.Topic, Partition: p.Partition, File: p.File, Position: p.Position, Cache: p.Cache, Problem: p.Err.Error(),
		})
	}
	return v, nil
}

// backup copies the database while it is used.
func (s *session) backup(ctx context.Context, q sock.Backup) (sock.BackedUp, error) {
	r, err := s.db.Backup(ctx, q.To, &BackupOptions{Progress: func(p BackupProgress) {
		s.progress(sock.Progress{What: p.Stage + " " + p.File, Done: p.Done, Total: p.Total})
	}})
	return sock.BackedUp{
		To: q.To, Taken: r.Taken, Partitions: r.Partitions, Files: r.Files, Bytes: r.Bytes, Reused: r.ReusedBytes,
		Trimmed: append([]string{}, r.Trimmed...),
	}, err
}
