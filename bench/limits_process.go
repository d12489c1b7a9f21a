package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// limitIdle is the memory of a process that has this program loaded and nothing open.
func limitIdle() side {
	return side{
		fresh: true,
		run: func(*rep) (result, error) {
			// What start-up left behind is no more ours to count than it is the log's.
			runtime.GC()
			n, err := residentBytes()
			return result{Value: float64(n) / (1 << 20)}, err
		},
	}
}

// limitBinary is the size of a program that does nothing, built as users build
// what they ship: without symbols.
func limitBinary() side {
	return side{run: func(r *rep) (result, error) {
		if err := os.WriteFile(filepath.Join(r.Dir, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
			return result{}, err
		}
		return buildSize(r.Dir, "main.go", filepath.Join(r.Dir, "empty"))
	}}
}

// buildSize builds target in dir and measures the program, in MB of 10^6 bytes.
func buildSize(dir, target, program string) (result, error) {
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, target)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return result{}, fmt.Errorf("go build %s: %w\n%s", target, err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		return result{}, err
	}
	return result{Value: float64(info.Size()) / 1e6}, nil
}
