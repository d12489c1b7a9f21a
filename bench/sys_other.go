//go:build !linux

package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// The limits are made of Linux's calls: a mapping that is populated ahead, and
// fdatasync. Elsewhere the rows say that they cannot be measured.
var errNotLinux = fmt.Errorf("the limits are measured on Linux only: %w", errors.ErrUnsupported)

func mapWritable(*os.File, int64) ([]byte, error) { return nil, errNotLinux }
func mapReadable(*os.File, int64) ([]byte, error) { return nil, errNotLinux }
func unmap([]byte) error                          { return errNotLinux }
func datasync(*os.File) error                     { return errNotLinux }
func processorTime() time.Duration                { return 0 }
func residentBytes() (int64, error)               { return 0, errNotLinux }
func residentOf(int) (int64, error)               { return 0, errNotLinux }
func openConnections(int) ([][2]string, error)    { return nil, errNotLinux }
func machine(string) string                       { return "not Linux" }
