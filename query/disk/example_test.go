package disk_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
	"github.com/x/embedlog/query/disk"
)

// A view whose rows are on disk is read like any other.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "embedlog")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	words, err := db.EnsureTopic(ctx, "words", nil)
	if err != nil {
		log.Fatal(err)
	}
	g := query.NewGraph(db, "language", &query.Options{Store: disk.New(nil)})
	counts := query.Add(g, "counts", query.Count(query.From(words, codec.String, codec.String)))
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	for _, word := range []string{"log", "view", "log"} {
		if _, err := words.Produce(ctx, embedlog.Record{Key: []byte(word), Value: []byte("seen")}); err != nil {
			log.Fatal(err)
		}
	}
	n, _, err := counts.Get(ctx, "log")
	fmt.Println(n, err)
	// Output: 2 <nil>
}

// Dir has the rows elsewhere than in the database's directory: on another disk, or beside a database in memory.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "rows")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	stores := disk.New(&disk.Options{Dir: dir, CacheBytes: 16 << 20})
	s, err := stores.OpenStore("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	if err := s.Apply([]query.RowChange{{Key: []byte("ann"), Row: []byte("450")}}); err != nil {
		log.Fatal(err)
	}
	row, found, err := s.Get(nil, []byte("ann"))
	fmt.Println(string(row), found, err)
	// Output: 450 true <nil>
}

// What goes wrong with a store's files is a StoreError. Here there is a file where the directory should be.
func ExampleStoreError() {
	dir, err := os.MkdirTemp("", "rows")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		log.Fatal(err)
	}
	stores := disk.New(&disk.Options{Dir: file})
	_, err = stores.OpenStore("", "example")
	var failed *disk.StoreError
	fmt.Println(errors.As(err, &failed), errors.Is(err, embedlog.ErrStorageFailed), errors.Is(err, embedlog.ErrNoSpace))
	// Output: true true false
}

// Without a directory there is no place for rows.
func ExampleStores() {
	var stores *disk.Stores = disk.New(nil)
	_, err := stores.OpenStore("", "example") // of a database in memory
	fmt.Println(errors.Is(err, disk.ErrNoDirectory))
	// Output: true
}

// A store for a view of ten million rows of a hundred bytes, a tenth of which are read often.
func ExampleOptions() {
	o := &disk.Options{CacheBytes: 256 << 20, WriteBytes: 64 << 20}
	stores := disk.New(o)
	fmt.Println(stores != nil)
	// Output: true
}
