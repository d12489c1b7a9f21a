// Command run switches on each seeded bug in turn and runs the test that must catch
// it, and each of these tests without a bug, which must pass. Run it at the top of
// the repository; an argument is the name of a single bug, or of the package whose tests must catch it.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/x/embedlog/internal/seed"
)

func main() {
	dir, err := os.MkdirTemp("", "seeded")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ok := run(dir, os.Args[1:])
	os.RemoveAll(dir)
	if !ok {
		os.Exit(1)
	}
}

func run(dir string, only []string) bool {
	ok, caught, tried := true, 0, 0
	passed := map[string]bool{}
	for _, b := range seed.All {
		if len(only) > 0 && only[0] != b.Name && only[0] != b.Package {
			continue
		}
		program := filepath.Join(dir, filepath.Base(b.Package)+".test")
		if _, err := os.Stat(program); err != nil {
			build := exec.Command("go", "test", "-tags", "seededbugs", "-c", "-o", program, "./"+b.Package)
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Printf("build %s: %v\n%s", b.Package, err, out)
				return false
			}
		}
		if !passed[b.Test] {
			passed[b.Test] = true
			if out, err := test(program, b, ""); err != nil {
				fmt.Printf("%s fails without a bug: %v\n%s\n", b.Test, err, out)
				ok = false
			}
		}
		tried++
		if out, err := test(program, b, b.Name); err == nil || bytes.Contains(out, []byte("test timed out")) { // on a busy machine
			fmt.Printf("missed  %-34s %s\n", b.Name, b.Test)
			ok = false
			continue
		}
		caught++
		fmt.Printf("caught  %-34s %s\n", b.Name, b.Test)
	}
	fmt.Printf("%d of %d seeded bugs caught\n", caught, tried)
	return ok && tried > 0
}

func test(program string, b seed.Bug, bug string) ([]byte, error) {
	c := exec.Command(program, "-test.run", "^"+b.Test+"$", "-test.timeout", "15m")
	if b.Package == "query" && bug != "" {
		c.Args = append(c.Args, "-oracle.cases", "1000") // or else it is missed
	}
	c.Dir = b.Package
	c.Env = append(os.Environ(), "EMBEDLOG_BUG="+bug)
	return c.CombinedOutput()
}
