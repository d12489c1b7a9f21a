//go:build !linux && !darwin

package sock

import (
	"errors"
	"fmt"
	"os"
)

// Name is the socket's name in the directory.
const Name = "sock"

// Listener is not there on this system.
type Listener struct{}

var errUnsupported = fmt.Errorf("a command socket on this system: %w", errors.ErrUnsupported)

// Listen fails with errors.ErrUnsupported.
func Listen(string) (*Listener, error) { return nil, errUnsupported }

// Accept fails with errors.ErrUnsupported.
func (*Listener) Accept() (*os.File, error) { return nil, errUnsupported }

// Close does nothing.
func (*Listener) Close() error { return nil }

// Dial fails with errors.ErrUnsupported.
func Dial(string) (*os.File, error) { return nil, errUnsupported }
