// Command orders is a shop made of services that talk through a log, as three instances that can be killed.
//
//	go run ./examples/orders
//
// Orders come in over HTTP, at any instance, and are checked by three services; what these say is put together, and comes back to the orders: a cycle. Who has
// ordered waits for the answer with a long poll. The program starts itself as the instances, orders, kills (SIGKILL) the instance that
// runs most of the services' tasks in the middle of it, and starts it again. In the end it checks at each instance that every order was decided once, that what
// is reserved is what was sold, and that nobody got a mail twice. README.md says what each service does.
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
	if config := os.Getenv(instanceEnv); config != "" {
		end(serve(ctx, config, os.Stdin, os.Stdout))
		return
	}
	n := flag.Int("instances", 3, "how many instances there are: 1, which has the database alone, or `n` from 3 on, which replicate it")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: orders [-instances n]\n\nRuns a shop of services on a log: orders, checks, a kill and what comes of it. It needs nothing, takes some\nseconds and leaves neither processes nor files.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || *n != 1 && *n < 3 {
		flag.Usage()
		os.Exit(2)
	}
	end(run(ctx, *n, os.Stdout))
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}
