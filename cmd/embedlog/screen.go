package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"
)

// style is an ANSI sequence: for terminals only, and never the only carrier of a
// meaning.
type style string

const (
	bold   style = "1"
	red    style = "31"
	yellow style = "33"
)

// paint dresses s when w is a terminal and nobody said NO_COLOR.
func (a *app) paint(w io.Writer, st style, s string) string {
	if s == "" || a.noColor || !isTerminal(w) {
		return s
	}
	return "\x1b[" + string(st) + "m" + s + "\x1b[0m"
}

// isTerminal reports whether f, a reader or a writer, is a terminal.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// isPipe reports whether whoever read our output has gone.
func isPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }

// json writes v as one line.
func (a *app) json(v any) error {
	return json.NewEncoder(a.stdout).Encode(v)
}

// say writes a line for a person, unless JSON was asked for.
func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}

// note writes a line for a person beside the output proper.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// table is columns of text: numbers to the right, words to the left, two spaces
// between, as wide as what is in them.
type table struct {
	head  []string
	right []bool
	rows  [][]string
}

// newTable makes a table. A column whose head begins with ">" holds numbers.
func newTable(head ...string) *table {
	t := &table{right: make([]bool, len(head))}
	for i, h := range head {
		name, number := strings.CutPrefix(h, ">")
		t.right[i] = number
		t.head = append(t.head, name)
	}
	return t
}

// add adds a row; cells are shown as fmt prints them.
func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// show writes the table, its head in bold.
func (a *app) show(t *table) error {
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	out.WriteString(a.paint(a.stdout, bold, t.line(t.head, widths)) + "\n")
	for _, row := range t.rows {
		out.WriteString(t.line(row, widths) + "\n")
	}
	_, err := io.WriteString(a.stdout, out.String())
	return err
}

func (t *table) line(row []string, widths []int) string {
	var b strings.Builder
	for i, cell := range row {
		if i > 0 {
			b.WriteString("  ")
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if t.right[i] {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// bytesText is a size for people; -1 is not known.
func bytesText(n int64) string {
	if n < 0 {
		return "-"
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 5 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, " KMGTP"[unit])
}

// plural is "1 record", "2 records".
func plural[N int | int64](n N, one string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// dash is a number, or "-" for -1, which stands for none.
func dash(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// orDash is a word, or "-" for none.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
