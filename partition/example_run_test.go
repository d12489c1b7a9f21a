package partition_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// run is a program with one partition and nothing else.
func run(ctx context.Context, dir string) (err error) {
	p, err := partition.Open(dir, nil) // makes the directory if there is none
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()

	// Append returns once the record is on the disk.
	res, err := p.Append(ctx, []log.Record{{Key: []byte("ann"), Value: []byte("450"), Timestamp: 1_700_000_000_000}}, nil)
	if err != nil {
		return err
	}
	r, err := p.ReadFrom(res.BaseOffset, nil)
	if err != nil {
		return err
	}
	batch, err := r.Next(ctx) // waits if there is nothing yet
	if err != nil {
		return err
	}
	for rec, err := range batch.Records(0) {
		if err != nil {
			return err
		}
		fmt.Printf("%d %s=%s\n", rec.Offset, rec.Key, rec.Value)
	}
	return nil
}

// One partition, without topics and groups.
func Example_partition() {
	dir, err := os.MkdirTemp("", "embedlog")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	fmt.Println(run(context.Background(), dir))
	// Output:
	// 0 ann=450
	// <nil>
}
