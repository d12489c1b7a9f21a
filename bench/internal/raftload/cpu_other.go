//go:build !unix

package raftload

import (
	"errors"
	"time"
)

func processCPU() (time.Duration, error) { return 0, errors.ErrUnsupported }
