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
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	code, _, closed := strings.Cut(rest, "```")
	if !ok || !closed || len(code) < 100 {
		t.Fatal("the README has no code, or code that does not end")
	}
	if !strings.Contains(string(tested), code) {
		t.Fatalf("the README's program is not the one in readme_example_test.go:\n%s", code)
	}
}
