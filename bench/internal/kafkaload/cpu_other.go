//go:build !unix

package kafkaload

import (
	"errors"
	"time"
)

func processCPU() (time.Duration, error) { return 0, errors.ErrUnsupported }
