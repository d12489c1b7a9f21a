package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Help fits a terminal of 80 columns, but for the forms and examples of commands,
// which are copied, and the line that says where there is more.
func TestHelpFitsATerminal(t *testing.T) {
	t.Setenv("EMBEDLOG_DATA", "") // it is shown as the default
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return // cobra's own
		}
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		if out.Len() == 0 {
			t.Errorf("%s: no help", c.CommandPath())
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimRight(line, "\n")
			if n := utf8.RuneCountInString(line); n > 80 && !strings.HasPrefix(line, "  embedlog ") && !strings.HasPrefix(line, "Use \"embedlog ") {
				t.Errorf("%s: a line of %d columns: %s", c.CommandPath(), n, line)
			}
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk((&app{}).root())
}
