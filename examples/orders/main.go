// Command orders is a shop made of services that talk through a log, all of it in one program and one directory.
//
//	go run ./examples/orders
//
// Orders come in over HTTP and are checked by three services; what these say is put together, and comes back to the orders: a cycle. Who has ordered waits for the
// answer with a long poll. The program starts itself as an instance of the shop, orders, kills the instance (SIGKILL) in the middle of it and
// starts another one, which goes on where the first was. In the end it checks that each order was decided once, and that what
// is reserved is what was sold. README.md says what each service does.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if dir := os.Getenv(instanceEnv); dir != "" {
		end(serve(ctx, dir, os.Stdin, os.Stdout))
		return
	}
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: orders\n\nRuns a shop of services on a log: orders, checks, a kill and what comes of it. It needs nothing, takes some\nseconds and leaves no files.\n")
	}
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	end(run(ctx, os.Stdout))
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}
