package vfs

import (
	"errors"
	"runtime"
	"runtime/debug"
)

// Guard runs f, which may load and store mapped memory, and turns a fault in it
// into a *FaultError. Every other panic goes on: a nil dereference of our own is a
// bug, not a disk's doing.
//
// The fault unwinds f: a mutex that f locks without defer stays locked, so lock
// outside of f. It covers this goroutine only, not those that f starts.
func Guard(name string, f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = faultOf(name, r)
		}
	}()
	return f()
}

// faultOf turns a recovered panic value into a *FaultError when it is a memory
// fault at an address, and panics with it again when it is anything else. The
// runtime gives an Addr method to a fault at an address that is not nil's page.
func faultOf(name string, r any) error {
	re, ok := r.(runtime.Error)
	if !ok {
		panic(r)
	}
	var at interface{ Addr() uintptr }
	if !errors.As(re, &at) {
		panic(r)
	}
	return &FaultError{Name: name, Addr: at.Addr()}
}
