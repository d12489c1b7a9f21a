//go:build unix

package raftload

import (
	"syscall"
	"time"
)

// processCPU is what this process took of the processor, in user and system mode.
func processCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
