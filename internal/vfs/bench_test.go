package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// BenchmarkStore compares a store of 240 bytes, one record's frame, with the bare
// copy into the same mapping.
func BenchmarkStore(b *testing.B) {
	const n = 240
	p := bytes.Repeat([]byte("x"), n)
	for _, disk := range []struct {
		name string
		fs   vfs.FS
	}{{"os", openOS(b, b.TempDir())}, {"mem", vfs.NewMem()}} {
		f, err := disk.fs.Create("a")
		must(b, err)
		must(b, f.Zero(0, 1<<20))
		w, err := f.Map(0, 1<<20)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		must(b, err)
		b.Run("fs="+disk.name+"/by=copy", func(b *testing.B) {
			buf, at := w.Bytes(), 0
			b.ReportAllocs()
			for b.Loop() {
				copy(buf[at:], p)
				if at += n; at > 1<<20-n {
					at = 0
				}
			}
		})
		b.Run("fs="+disk.name+"/by=store", func(b *testing.B) {
			at := 0
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Store(at, p); err != nil {
					b.Fatal(err)
				}
				if at += n; at > 1<<20-n {
					at = 0
				}
			}
		})
		b.Run("fs="+disk.name+"/by=write", func(b *testing.B) {
			at := 0
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.WriteAt(p, int64(at)); err != nil {
					b.Fatal(err)
				}
				if at += n; at > 1<<20-n {
					at = 0
				}
			}
		})
	}
}

// tenFiles is a directory of ten files of 16 KiB, of which the last 2 KiB and one
// rename are not synced.
func tenFiles(b *testing.B) *vfs.Mem {
	m := vfs.NewMem()
	p := bytes.Repeat([]byte("x"), 14<<10)
	for i := range 10 {
		f, err := m.Create(fmt.Sprint("file", i))
		must(b, err)
		_, err = f.WriteAt(p, 0)
		must(b, err)
		must(b, f.Sync())
		must(b, m.SyncDir("."))
		_, err = f.Append(p[:2<<10])
		must(b, err)
	}
	must(b, m.Rename("file3", "renamed"))
	return m
}

func BenchmarkAfterCrash(b *testing.B) {
	m := tenFiles(b)
	b.Run("choice=none", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.AfterCrash(nil)
		}
	})
	b.Run("choice=all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.AfterCrash(vfs.KeepAll)
		}
	})
	b.Run("choice=random", func(b *testing.B) {
		b.ReportAllocs()
		seed := uint64(0)
		for b.Loop() {
			m.AfterCrash(vfs.Random(seed))
			seed++
		}
	})
}

func BenchmarkAfterKill(b *testing.B) {
	m := tenFiles(b)
	b.ReportAllocs()
	for b.Loop() {
		m.AfterKill()
	}
}

// BenchmarkMemRun is what a test pays for one run before its crash: a new file
// system and about a hundred operations of a log.
func BenchmarkMemRun(b *testing.B) {
	p := bytes.Repeat([]byte("x"), 300)
	b.ReportAllocs()
	for b.Loop() {
		m := vfs.NewMem()
		for i := range 4 {
			f, _ := m.Create([]string{"a", "b", "c", "d"}[i])
			for range 10 {
				f.Append(p)
				f.Datasync()
			}
			m.SyncDir(".")
			f.Close()
		}
		if m.Ops() != 88 {
			b.Fatal("operations", m.Ops())
		}
	}
}

// BenchmarkWritev writes a group of batches, each a head of 109 bytes and its records,
// over pages that are there: gathered in one place first, and from where they lie. The
// records come out of the last level cache, as those that a socket just had.
func BenchmarkWritev(b *testing.B) {
	ring := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(ring)
	head := make([]byte, 109)
	for _, batches := range []int{1, 10} {
		for _, size := range []int{2 << 10, 4 << 10, 8 << 10, 12 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20} {
			if batches*size > 4<<20 {
				continue
			}
			for _, vector := range []bool{false, true} {
				b.Run(fmt.Sprintf("batches=%d/records=%dKiB/vector=%t", batches, size>>10, vector), func(b *testing.B) {
					fsys, err := vfs.OS(b.TempDir())
					must(b, err)
					defer fsys.Close()
					f, err := fsys.Create("a")
					must(b, err)
					defer f.Close()
					must(b, f.Zero(0, 8<<20))
					group := make([]byte, 0, 5<<20)
					var pieces [][]byte
					total := batches * (size + len(head))
					b.SetBytes(int64(total))
					from, off := 0, int64(0)
					for b.Loop() {
						group, pieces = group[:0], pieces[:0]
						for range batches {
							if from+size > len(ring) {
								from = 0
							}
							records := ring[from : from+size]
							from += size
							if vector {
								at := len(group)
								group = append(group, head...)
								pieces = append(pieces, group[at:], records)
							} else {
								group = append(append(group, head...), records...)
							}
						}
						if !vector {
							pieces = append(pieces, group)
						}
						if _, err := f.WritevAt(pieces, off); err != nil {
							b.Fatal(err)
						}
						if off += int64(total); off > 3<<20 {
							off = 0
						}
					}
				})
			}
		}
	}
}
