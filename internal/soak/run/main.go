// Command run lets Kafka clients work on a server that is killed again and again, and
// says what was wrong with what they saw. See package soak.
//
//	go run ./internal/soak/run -time 3m -kill 4s
//	go build -o bin/ ./cmd/embedlog && go run ./internal/soak/run -binary bin/embedlog
//
// It exits with 1 when there was an anomaly, and then leaves the files.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/x/embedlog/internal/soak"
)

func main() {
	soak.Main() // a server does not come back
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	cfg := soak.Config{Log: os.Stderr}
	flag.StringVar(&cfg.Dir, "dir", "", "empty `directory` for the database and the history; without one a temporary one")
	flag.DurationVar(&cfg.Time, "time", 3*time.Minute, "how long clients work")
	flag.DurationVar(&cfg.KillEvery, "kill", 4*time.Second, "mean time between kills of the server; negative is never")
	flag.DurationVar(&cfg.CutEvery, "cut", 2*time.Second, "mean time between cuts of all connections; negative is never")
	flag.IntVar(&cfg.Rate, "rate", 10_000, "records a second of all producers together")
	flag.IntVar(&cfg.RecordBytes, "bytes", 100, "size of a record's value")
	flag.IntVar(&cfg.Partitions, "partitions", 3, "partitions of each topic")
	flag.Uint64Var(&cfg.Seed, "seed", rand.Uint64(), "of what is random")
	flag.StringVar(&cfg.Binary, "binary", "", "the server is `embedlog`'s serve, of this binary")
	flag.StringVar(&cfg.Server, "server", "", "`address` of a server that runs already, and is not killed")
	keep := flag.Bool("keep", false, "leave the files, whatever comes out")
	flag.Parse()

	given := cfg.Dir != ""
	if !given {
		dir, err := os.MkdirTemp("", "embedlog-soak")
		if err != nil {
			return err
		}
		cfg.Dir = dir
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	res, err := soak.Run(ctx, cfg)
	if err != nil {
		return fmt.Errorf("%w\nseed %d, files in %s", err, cfg.Seed, cfg.Dir)
	}
	fmt.Print(res)
	if len(res.Report.Bad()) > 0 {
		return fmt.Errorf("anomalies; seed %d, files in %s", cfg.Seed, cfg.Dir)
	}
	if *keep || given {
		fmt.Printf("files in %s\n", cfg.Dir)
		return nil
	}
	return os.RemoveAll(cfg.Dir)
}
