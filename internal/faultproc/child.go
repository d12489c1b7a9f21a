package faultproc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/partition"
)

// specVariable in the environment makes a test binary a child.
const specVariable = "EMBEDLOG_FAULTPROC"

// Spec is what a child does.
type Spec struct {
	Dir    string
	Work   string // the name of a function in works
	Life   int    // part of every append's id
	Seed   uint64
	Rounds int // how many operations
	// KillStore kills after so many bytes of mapped stores, KillOp before so many
	// operations on files, counted from 1. Zero is never.
	KillStore, KillOp int64
	// Faulty says that the disk may answer with EIO: an operation may then fail with
	// it, and is not done, or half.
	Faulty bool

	// What an earlier life left.
	Committed, Epoch uint64
	Sequence         int32
	Retry            *Retry

	fs vfs.FS // made by fileSystem
}

var works = map[string]func(*Spec, io.Writer) error{
	"none":    func(*Spec, io.Writer) error { return nil },
	"local":   workLocal,
	"raft":    workRaft,
	"compact": workCompact,
	"hold":    workHold,
	"fill":    workFill,
	"read":    workRead,
	"gone":    workGone,
	"txns":    workTxns,
}

// Main is what a test binary calls first. In a child it does the work and exits.
func Main() {
	text := os.Getenv(specVariable)
	if text == "" {
		return
	}
	// strace counts the calls of each thread apart: most of them are to be the first one's.
	runtime.LockOSThread()
	var s Spec
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		if work := works[s.Work]; work == nil {
			err = fmt.Errorf("no work is named %q", s.Work)
		} else {
			err = work(&s, os.Stdout)
		}
	}
	if s.Faulty && errors.Is(err, syscall.EIO) {
		// Open or Close was refused. That no append was is for the journal to check.
		fmt.Println("poisoned")
		err = nil
	}
	if err != nil {
		fmt.Printf("bug %q\n", err.Error())
		os.Exit(1)
	}
	fmt.Println("end")
	os.Exit(0)
}

// fileSystem is the file system of the life, with what is to kill it.
func (s *Spec) fileSystem() (vfs.FS, error) {
	if s.fs != nil {
		return s.fs, nil
	}
	fs, err := vfs.OS(s.Dir)
	if err != nil {
		return nil, err
	}
	if s.KillStore > 0 {
		fs = newKillFS(fs, s.KillStore)
	}
	if s.KillOp > 0 {
		var ops atomic.Int64
		f := vfs.NewFault(fs)
		f.OnOp(func(vfs.Op, string) {
			if ops.Add(1) == s.KillOp {
				killSelf()
			}
		})
		fs = f
	}
	s.fs = fs
	return fs, nil
}

// open opens the partition, and reports where it starts and ends.
func (s *Spec) open(out io.Writer, cfg partition.Config, r partition.Replicator) (*partition.Partition, error) {
	fs, err := s.fileSystem()
	if err != nil {
		return nil, err
	}
	p, err := partition.Open(s.Dir, &partition.Options{FS: fs, Config: cfg, Replicator: r})
	if err != nil {
		return nil, err
	}
	if c := p.Recovered().Corruption; c != nil {
		return nil, fmt.Errorf("open reports damage: %w", c)
	}
	fmt.Fprintf(out, "open %d %d %d\n", p.LogStart(), p.LogEnd(), p.Log().NextIndex())
	return p, nil
}
