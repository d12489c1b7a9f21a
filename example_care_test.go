package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/x/embedlog"
)

// A backup is taken while the database is used; the same directory again copies
// only what is new.
func ExampleDB_Backup() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)
	db := threeOrders(ctx)
	defer db.Close()

	backup := filepath.Join(dir, "backup")
	if _, err := db.Backup(ctx, backup, nil); err != nil {
		log.Fatal(err)
	}
	report, err := db.Backup(ctx, backup, nil)
	fmt.Println(report.Partitions, report.ReusedBytes > 0, err) // orders, and the group's offsets
	// Output: 2 true <nil>
}

func ExampleRestore() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)
	backup, data := filepath.Join(dir, "backup"), filepath.Join(dir, "data")
	db := threeOrders(ctx) // the group "billing" has read one of three
	if _, err := db.Backup(ctx, backup, nil); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}

	if _, err := embedlog.Restore(ctx, backup, data, nil); err != nil {
		log.Fatal(err)
	}
	restored, err := embedlog.Open(data, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer restored.Close()
	info, err := restored.DescribeGroup(ctx, "billing")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Partitions[0].Committed, info.Partitions[0].HighWatermark)
	// A directory that holds something is not restored into.
	_, err = embedlog.Restore(ctx, backup, data, nil)
	fmt.Println(errors.Is(err, embedlog.ErrNotEmpty))
	// Output:
	// 1 3
	// true
}

// Repair is for a closed database that Verify found damaged. It keeps what it
// gives up beside the repaired files.
func ExampleRepair() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range []string{"a", "b", "c"} {
		if _, err := orders.Produce(ctx, embedlog.Record{Value: []byte(v)}); err != nil {
			log.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}
	flipByte(dir, 160) // within the first record

	report, err := embedlog.Repair(ctx, dir, &embedlog.RepairOptions{DryRun: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("would mend", len(report.Damaged), "partition")
	if _, err := embedlog.Repair(ctx, dir, nil); err != nil {
		log.Fatal(err)
	}
	if db, err = embedlog.Open(dir, nil); err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if orders, err = db.Topic("orders"); err != nil {
		log.Fatal(err)
	}
	for rec, err := range orders.Scan(ctx, nil) {
		fmt.Println(rec.Offset, string(rec.Value), err)
	}
	// Output:
	// would mend 1 partition
	// 1 b <nil>
	// 2 c <nil>
}

// Verify names each damaged place, and what is only slow to do without.
func ExampleVerifyReport() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Produce(ctx, embedlog.Record{Value: []byte("a")}); err != nil {
		log.Fatal(err)
	}
	flipByte(dir, 160)

	report, err := db.Verify(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.OK())
	for _, p := range report.Problems {
		if !p.Cache { // an index is made anew
			fmt.Printf("%s/%d %s at byte %d, damage: %t\n", p.Topic, p.Partition, p.File, p.Position, errors.Is(p.Err, embedlog.ErrCorrupt))
		}
	}
	// Output:
	// false
	// orders/0 00000000000000000000.log at byte 128, damage: true
}

func ExampleTopicInfo() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	for _, topic := range db.Topics() {
		if topic.Internal {
			continue
		}
		for _, p := range topic.Partitions {
			fmt.Printf("%s/%d: offsets %d to %d, takes records: %t\n", topic.Name, p.Partition, p.LogStart, p.HighWatermark, p.Err == nil)
		}
	}
	// Output: orders/0: offsets 0 to 3, takes records: true
}

// flipByte damages the first segment of every topic, as a disk does that goes bad.
func flipByte(dir string, at int64) {
	names, err := filepath.Glob(filepath.Join(dir, "topics", "*", "0", "00000000000000000000.log"))
	if err != nil || len(names) == 0 {
		log.Fatal("no segment: ", err)
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			log.Fatal(err)
		}
		b := make([]byte, 1)
		_, err = f.ReadAt(b, at)
		b[0] ^= 0xff
		_, werr := f.WriteAt(b, at)
		if err := errors.Join(err, werr, f.Close()); err != nil {
			log.Fatal(err)
		}
	}
}
