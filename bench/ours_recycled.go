package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Our side of the row that writes over a recycled segment. Before the clock
// starts, a segment is filled, closed and freed by moving the log start offset
// behind it, and the active segment is made of its file.

func init() {
	for _, r := range rows() {
		if strings.HasSuffix(r.name, "/segment=recycled") {
			register(r.name, side{run: appendRecycled})
		}
	}
}

func appendRecycled(r *rep) (result, error) {
	cfg, err := oursConfig(r)
	if err != nil {
		return result{}, err
	}
	cfg.Log.Recycle, cfg.Log.SegmentBytes = true, r.Bytes
	durable := cfg.Log.Level
	cfg.Log.Level = log.OS // filling is not measured
	p, err := partition.Open(r.Dir, &partition.Options{Config: cfg})
	if err != nil {
		return result{}, err
	}
	if err := recycle(r, p, durable); err != nil {
		return result{}, errors.Join(err, p.Close())
	}
	return timeAppends(r, p)
}

// recycle leaves the partition with an active segment that was another one before.
func recycle(r *rep, p *partition.Partition, level log.Level) error {
	ctx := context.Background()
	a := newAppender(p, r)
	for i := int64(0); i+int64(r.Batch) <= r.Records; i += int64(r.Batch) {
		if err := a.append(i); err != nil {
			return err
		}
	}
	if err := p.Sync(ctx); err != nil {
		return err
	}
	if err := p.SetLevel(level); err != nil {
		return err
	}
	roll := func() error {
		p.Log().Lock()
		defer p.Log().Unlock()
		return p.Log().Roll()
	}
	if err := roll(); err != nil {
		return err
	}
	if err := a.append(0); err != nil { // an empty segment does not roll
		return err
	}
	if _, err := p.DeleteRecords(ctx, r.Records); err != nil {
		return err
	}
	spare := filepath.Join(r.Dir, "spare")
	if _, err := os.Stat(spare); err != nil {
		return fmt.Errorf("nothing was recycled: %w", err)
	}
	if err := roll(); err != nil {
		return err
	}
	if _, err := os.Stat(spare); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the spare segment was not used: %v", err)
	}
	return nil
}
