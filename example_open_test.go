package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/x/embedlog"
)

// tempDir is a directory for an example, which removes it.
func tempDir() string {
	dir, err := os.MkdirTemp("", "embedlog")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

// A directory has one owner. The second learns who that is; with LockTimeout it
// waits first, as a service does whose predecessor is still ending.
func ExampleOpen() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	_, err = embedlog.Open(dir, &embedlog.Options{LockTimeout: 10 * time.Millisecond})
	var locked *embedlog.LockedError
	if errors.As(err, &locked) {
		fmt.Println("held by this process:", locked.PID == os.Getpid())
	}
	// Output: held by this process: true
}

// With a cap the oldest records go before the disk is full. Topics that are to be
// kept for ever keep theirs: then producing fails with ErrNoSpace.
func ExampleOptions_maxBytes() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(&embedlog.Options{MaxBytes: 8 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	readings, err := db.EnsureTopic(ctx, "readings", nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 40 { // 20 MiB
		if _, err := readings.Produce(ctx, embedlog.Record{Value: make([]byte, 512<<10)}); err != nil {
			log.Fatal(err)
		}
	}
	stats := db.Stats()
	first, err := readings.ListOffsets(ctx, embedlog.Earliest)
	fmt.Println(stats.Bytes <= 8<<20, first[0].Offset > 0, err)
	// Output: true true <nil>
}

// A database of measurements that may lose the last 100 ms in a power cut, with one
// topic of orders that may not.
func ExampleDurability() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(&embedlog.Options{Durability: embedlog.Interval})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.CreateTopic(ctx, "measurements", nil); err != nil {
		log.Fatal(err)
	}
	if _, err := db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Durability: embedlog.Durable}); err != nil {
		log.Fatal(err)
	}
	for _, topic := range db.Topics() {
		for _, s := range topic.Settings {
			if s.Name == "embedlog.durability" {
				fmt.Println(topic.Name, s.Value, s.Explicit)
			}
		}
	}
	// Sync waits for everything that was acknowledged at a weaker level.
	fmt.Println(db.Sync(ctx))
	// Output:
	// measurements interval false
	// orders durable true
	// <nil>
}

// Hooks are called where things happen; what they count is the program's.
func ExampleHooks() {
	ctx := context.Background()
	var records int
	db, err := embedlog.OpenMemory(&embedlog.Options{Hooks: &embedlog.Hooks{
		OnProduce: func(topic string, partition int32, n int, bytes int64, took time.Duration, err error) {
			records += n
		},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Produce(ctx, embedlog.Record{}, embedlog.Record{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(records)
	// Output: 2
}
