package embedlog

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/x/embedlog/internal/kafkafile"
	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/internal/vfs"
)

// export writes partitions of a topic as a Kafka broker's files.
func (s *session) export(ctx context.Context, q sock.Export) (list []sock.Exported, err error) {
	t, err := s.db.engine.FindTopic(ctx, q.Topic)
	if err != nil {
		return nil, err
	}
	for _, n := range q.Partitions {
		if _, err := t.Partition(n); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(q.To, 0o700); err != nil {
		return nil, err
	}
	fsys, err := vfs.OS(q.To)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fsys.Close()) }()
	for _, p := range t.Partitions() {
		if len(q.Partitions) > 0 && !slices.Contains(q.Partitions, p.ID()) {
			continue
		}
		r, err := kafkafile.Export(ctx, p.Partition, fsys, t.Name(), p.ID(), [16]byte(t.ID()), &kafkafile.Options{
			Progress: func(offset, end int64) { s.progress(sock.Progress{What: p.String(), Done: offset, Total: end}) },
		})
		if err != nil {
			return list, err
		}
		list = append(list, sock.Exported{Dir: r.Dir, Segments: r.Segments, Batches: r.Batches, Records: r.Records, Bytes: r.Bytes})
	}
	return list, nil
}
