package vfs_test

import (
	"errors"
	"fmt"

	"github.com/x/embedlog/internal/vfs"
)

// A run is stopped at each of its operations in turn; after each the file system
// is looked at as every power cut could have left it.
func ExampleMem() {
	save := func(fs vfs.FS, content string) error {
		f, err := fs.Create("new")
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(content), 0); err != nil {
			return err
		}
		if err := f.Sync(); err != nil { // without it the example prints torn content
			return err
		}
		if err := fs.Rename("new", "config"); err != nil {
			return err
		}
		return fs.SyncDir(".")
	}
	found := map[string]int{}
	k := 0
	for ; ; k++ {
		fs := vfs.NewMem(vfs.CrashAt(k), vfs.CrashByte(1))
		err := save(fs, "v1")
		if !errors.Is(err, vfs.ErrCrashed) {
			break
		}
		for w := vfs.NewWalk(); w.Next(); {
			after := fs.AfterCrash(w)
			f, err := after.Open("config")
			if err != nil {
				found["no config"]++
				continue
			}
			p := make([]byte, 9)
			n, _ := f.ReadAt(p, 0)
			found[string(p[:n])]++
		}
	}
	fmt.Println(k, "operations")
	fmt.Println("config is missing or whole:", found["no config"] > 0 && found["v1"] > 0 && len(found) == 2)
	// Output:
	// 5 operations
	// config is missing or whole: true
}
