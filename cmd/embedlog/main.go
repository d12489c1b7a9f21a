// Command embedlog works on a database of embedlog: topics, records, consumer
// groups, and what an operator needs. docs/cli.md describes it.
//
// It opens the directory itself, or, when a program holds it with Options.Socket,
// talks to that program, or to a Kafka listener at an address; the verbs are the same.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// sameSignal is within what time a second signal is the first one again.
const sameSignal = 100 * time.Millisecond

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole command. The first SIGINT or SIGTERM cancels what runs, so that
// it ends in order; the second ends the process at once, as if there were no
// handler.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		// timeout(1) and terminals with a wrapper in between send one signal twice
		// within microseconds: that is one wish, to end in order.
		for began := time.Now(); time.Since(began) < sameSignal; {
			<-signals
		}
		os.Exit(exitInterrupted)
	}()
	// Whoever reads our output may have enough: the write then fails with EPIPE,
	// and the database is closed in order, instead of the process being killed.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)

	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	err := a.execute(ctx, args)
	if err == nil || isPipe(err) {
		return exitOK
	}
	if ctx.Err() != nil && exitCode(err) != exitInterrupted {
		// What went wrong after an interrupt went wrong because of it.
		err = &exitError{exitInterrupted, err}
	}
	if known, ok := err.(*exitError); !ok || known.err != nil {
		fmt.Fprintln(stderr, a.paint(stderr, red, "embedlog:"), oneLine(err))
	}
	return exitCode(err)
}
