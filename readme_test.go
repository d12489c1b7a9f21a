package embedlog_test

import (
	"os"
	"strings"
	"testing"
)

// The README shows only code that a test runs.
func TestReadmeShowsTestedCode(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	tested, err := os.ReadFile("readme_example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for rest := string(readme); ; blocks++ {
		_, after, ok := strings.Cut(rest, "```go\n")
		if !ok {
			break
		}
		code, next, closed := strings.Cut(after, "```")
		if !closed || len(code) < 100 {
			t.Fatal("the README has code that does not end, or is none")
		}
		if !strings.Contains(string(tested), code) {
			t.Errorf("the README's program is not in readme_example_test.go:\n%s", code)
		}
		rest = next
	}
	if blocks != 2 {
		t.Errorf("the README has %d programs", blocks)
	}
}
