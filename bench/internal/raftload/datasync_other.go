//go:build !linux

package raftload

import "os"

func datasync(f *os.File) error { return f.Sync() }
