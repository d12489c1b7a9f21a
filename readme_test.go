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
	var tested strings.Builder
	for _, file := range []string{"readme_example_test.go", "examples/evolve/main.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tested.Write(b)
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
		if !strings.Contains(tested.String(), code) {
			t.Errorf("the README shows what is in no tested file:\n%s", code)
		}
		rest = next
	}
	if blocks != 3 {
		t.Errorf("the README has %d programs", blocks)
	}
}
