// Command appendread is the smallest program that appends to a log and reads it
// back: what the row "binary" measures the size of.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func main() {
	if err := run(); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run() error {
	p, err := partition.Open(os.Args[1], nil)
	if err != nil {
		return err
	}
	defer p.Close()
	ctx := context.Background()
	r, err := p.Append(ctx, []log.Record{{Key: []byte("ann"), Value: []byte("one")}}, nil)
	if err != nil {
		return err
	}
	reader, err := p.ReadFrom(r.BaseOffset, nil)
	if err != nil {
		return err
	}
	b, err := reader.Next(ctx)
	if err != nil {
		return err
	}
	for rec, err := range b.Records(0) {
		if err != nil {
			return err
		}
		os.Stdout.Write(rec.Value)
	}
	return nil
}
