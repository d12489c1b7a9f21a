package engine

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// What members say is kept in memory for as long as they are there, and members are
// whoever has the right to read: so there are bounds, far above what members need.
// The generation of a classic group has to fit a record of __consumer_offsets, too,
// which is less.
const (
	// maxMemberBytes bounds what one member says of itself.
	maxMemberBytes = 4 << 20
	// maxGroupBytes bounds what all members of a group say.
	maxGroupBytes = 32 << 20
	// maxProtocols bounds the protocols of a classic member: each of them is looked for
	// among those of all others. Consumers have one or two.
	maxProtocols = 32
	// maxPatternBytes and maxPatternSize bound a pattern, and what it becomes when it is
	// compiled: a{1000} is seven bytes and a thousand instructions.
	maxPatternBytes = 8 << 10
	maxPatternSize  = 50_000
	// patternUnitBytes is about what one of maxPatternSize takes.
	patternUnitBytes = 40
)

// protocolsBytes is what a member's protocols take.
func protocolsBytes(list []GroupProtocol) (n int) {
	for _, p := range list {
		n += len(p.Name) + len(p.Metadata)
	}
	return n
}

// namesBytes is what names take.
func namesBytes(names []string) (n int) {
	for _, s := range names {
		n += len(s) + 16
	}
	return n
}

// tooLarge reports why a member that says n bytes cannot be in a group whose other
// members say others.
func tooLarge(group, member string, n, others int) error {
	switch {
	case n > maxMemberBytes:
		return &InvalidMemberError{group, member, fmt.Sprintf("it says %d bytes of itself, %d are allowed", n, maxMemberBytes)}
	case others+n > maxGroupBytes:
		return fmt.Errorf("%w: its members say %d bytes of themselves", ErrGroupMaxSize, others+n)
	}
	return nil
}

// CompilePattern makes a pattern match whole names, as Kafka does. An error is an
// *InvalidRegexError.
func CompilePattern(pattern string) (*regexp.Regexp, error) {
	match, _, err := compileRegex(pattern)
	return match, err
}

// compileRegex is CompilePattern, and says how large it becomes.
func compileRegex(pattern string) (match *regexp.Regexp, size int, err error) {
	if len(pattern) > maxPatternBytes {
		return nil, 0, &InvalidRegexError{strings.ToValidUTF8(pattern[:100], "") + "...", fmt.Errorf("it is longer than %d bytes", maxPatternBytes)}
	}
	tree, err := syntax.Parse(pattern, syntax.Perl) // alone: it must not close our parenthesis
	if err != nil {
		return nil, 0, &InvalidRegexError{pattern, err}
	}
	if size = patternSize(tree); size > maxPatternSize {
		return nil, 0, &InvalidRegexError{pattern, errors.New("it becomes too large")}
	}
	if match, err = regexp.Compile(`\A(?:` + pattern + `)\z`); err != nil {
		return nil, 0, &InvalidRegexError{pattern, err}
	}
	return match, size, nil
}

// patternSize is about how many instructions and ranges of letters a pattern becomes,
// at most a little more than maxPatternSize.
func patternSize(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		if n += patternSize(sub); n > maxPatternSize {
			return n
		}
	}
	if re.Op == syntax.OpRepeat { // syntax allows a thousand
		n *= max(re.Max, re.Min+1, 1)
	}
	return n
}
