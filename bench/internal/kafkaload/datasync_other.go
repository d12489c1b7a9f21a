//go:build !linux

package kafkaload

import "os"

func datasync(f *os.File) error { return f.Sync() }
